"""What has to be said of an architecture: how documents end in its vocabulary, and why some are refused.

Most families need nothing here. TransformerLens' bridge knows where their parts are, and `core/models/self_check.py`
sees on every load whether the closed forms hold. What is refused here is refused by its configuration, before that.
"""

from dataclasses import dataclass
from typing import Any

from backend.core.errors import UnsupportedModel

SUPPORTED = "GPT-2, GPT-Neo, GPT-NeoX/Pythia, OPT, Phi, Falcon, LLaMA, Mistral, Qwen 2 and 3, Gemma 1, StableLM"
"""The families whose tiny models the tests compare with the original in float64."""

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What separates documents in training: of GPT-2, GPT-NeoX, Phi, Qwen, SmolLM, OLMo, Falcon and others; of LLaMA 3; of
LLaMA 1 and 2, Mistral, OPT and BLOOM; of Gemma."""


@dataclass(frozen=True)
class Refusal:
    """Something in a configuration for which the closed forms of the effects do not hold."""

    settings: tuple[str, ...]
    """Names in the configuration, any of which being set means it."""
    reason: str
    """A sentence that follows the model's name."""


REFUSALS = (
    Refusal(
        ("final_logit_softcapping",),
        "its logits pass through a soft-cap (tanh), so centring the unembedding changes them and the closed forms of "
        "the effects do not hold. Models of this family (Gemma 2) are not supported yet.",
    ),
    Refusal(
        ("num_local_experts", "num_experts"),
        "its MLPs route between experts; neurons of such layers are not supported yet.",
    ),
)


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
