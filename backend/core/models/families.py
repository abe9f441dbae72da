"""What has to be said of an architecture: what it does after its last MLP, how documents end in its vocabulary, and why
some are refused.

Most families need nothing here. TransformerLens' bridge knows where their parts are, what norms do is learnt by asking
them (`norms`), and `core/models/self_check.py` sees on every load whether the closed forms hold. What is refused here
is refused by its configuration, before that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from backend.core.errors import UnsupportedModel

SUPPORTED = (
    "GPT-1, GPT-2, GPT-Neo, GPT-NeoX/Pythia, GPT-J, CodeGen, GPT-BigCode, BLOOM, MPT, OPT, Phi 1 to 3, Falcon, LLaMA, "
    "Mistral, Qwen 2 and 3, Gemma 1 to 3, OLMo 1 to 3, Granite, Nemotron, Cohere, StarCoder2, SmolLM3, GLM-4, "
    "EXAONE 4, StableLM"
)
"""The families whose tiny models the tests compare with the original in float64."""

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What separates documents in training: of GPT-2, GPT-NeoX, Phi, Qwen, SmolLM, OLMo, Falcon and others; of LLaMA 3; of
LLaMA 1 and 2, Mistral, OPT and BLOOM; of Gemma."""

_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
_RESIDUAL_MULTIPLIERS = {"GraniteForCausalLM": "residual_multiplier"}
_LOGIT_DIVISORS = {"GraniteForCausalLM": "logits_scaling"}
"""By architecture: what divides the logits after the unembedding, where TransformerLens does not fold it (it does
Cohere's)."""
_POST_LN = {"OpenAIGPTLMHeadModel": None, "OPTForCausalLM": "do_layer_norm_before"}
"""By architecture: blocks end in a LayerNorm after the MLP is added to the stream, where the named setting is off."""


@dataclass(frozen=True)
class Ending:
    """What a model does between its last MLP's output weights and its predictions, beside its final norm.

    A norm between the MLP and the residual stream is not said here: the bridge has it as a part of the block.
    """

    residual_multiplier: float = 1.0
    """Of what the MLP adds to the residual stream."""
    logit_multiplier: float = 1.0
    softcap: float | None = None
    """The logits are softcap·tanh(y/softcap); None where they are y."""
    norm_in_block: bool = False
    """Whether the last norm is the last block's own, after its MLP was added to the stream, and none follows."""

    @classmethod
    def of(cls, config: Any, architecture: str) -> Self:
        """From a configuration as transformers reads it."""
        text = config.get_text_config()

        def said(settings: Mapping[str, str]) -> float:
            return float(getattr(text, settings[architecture])) if architecture in settings else 1.0

        caps = (getattr(text, name, None) for name in _SOFTCAPS)
        pre_norm = _POST_LN.get(architecture)
        return cls(
            residual_multiplier=said(_RESIDUAL_MULTIPLIERS),
            logit_multiplier=1 / said(_LOGIT_DIVISORS),
            softcap=next((float(cap) for cap in caps if cap), None),
            norm_in_block=architecture in _POST_LN and (pre_norm is None or not getattr(text, pre_norm)),
        )


@dataclass(frozen=True)
class Refusal:
    """Something in a configuration for which the closed forms of the effects do not hold."""

    settings: tuple[str, ...]
    """Names in the configuration, any of which being set means it."""
    reason: str
    """A sentence that follows the model's name."""


REFUSALS = (
    Refusal(
        ("num_local_experts", "num_experts"),
        "its MLPs route between experts; neurons of such layers are not supported yet.",
    ),
)


def stand_in_for_absent_norm(original: Any) -> bool:
    """Put a module that changes nothing where an OPT has no final norm: TransformerLens runs what it finds there.

    Returns:
        Whether there is no final norm, so that nothing takes a mean out of what is written into the stream.
    """
    if original.config.model_type != "opt":
        return False
    decoder = original.model.decoder
    if decoder.final_layer_norm is not None or not original.config.do_layer_norm_before:
        return False
    decoder.final_layer_norm = nn.Identity()
    return True


def refuse_unsupported(config: Any, name: str) -> None:
    """Refuse a model whose configuration names a step that the closed forms do not cover.

    Args:
        config: as transformers read it.

    Raises:
        UnsupportedModel: it does.
    """
    text = config.get_text_config()
    for refusal in REFUSALS:
        if any(getattr(text, setting, None) for setting in refusal.settings):
            raise UnsupportedModel(f"{name}: {refusal.reason}")
