"""What has to be said of an architecture: what it does after its last MLP, and how documents end in its vocabulary.

Most families need nothing here. TransformerLens' bridge knows where their parts are, what norms do is learnt by asking
them (`norms`), and `core/models/self_check.py` sees on every load whether the closed forms hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from backend.core.errors import UnsupportedModel

EXACT: dict[str, str] = {
    "ApertusForCausalLM": "Apertus",
    "ArceeForCausalLM": "Arcee",
    "BambaForCausalLM": "Bamba",
    "BloomForCausalLM": "BLOOM",
    "CodeGenForCausalLM": "CodeGen",
    "CohereForCausalLM": "Cohere",
    "Cohere2ForCausalLM": "Cohere 2",
    "Ernie4_5ForCausalLM": "ERNIE 4.5",
    "Exaone4ForCausalLM": "EXAONE 4",
    "FalconForCausalLM": "Falcon",
    "GemmaForCausalLM": "Gemma",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3ForCausalLM": "Gemma 3",
    "GlmForCausalLM": "GLM-4",
    "Glm4ForCausalLM": "GLM-4-0414",
    "OpenAIGPTLMHeadModel": "GPT-1",
    "GPT2LMHeadModel": "GPT-2",
    "GPTBigCodeForCausalLM": "GPT-BigCode",
    "GPTJForCausalLM": "GPT-J",
    "GPTNeoForCausalLM": "GPT-Neo",
    "GPTNeoXForCausalLM": "GPT-NeoX, Pythia",
    "GptOssForCausalLM": "gpt-oss",
    "GraniteForCausalLM": "Granite",
    "GraniteMoeForCausalLM": "Granite MoE",
    "HunYuanDenseV1ForCausalLM": "HunYuan",
    "Jais2ForCausalLM": "Jais 2",
    "Lfm2ForCausalLM": "LFM2",
    "LlamaForCausalLM": "LLaMA 1 to 3, SmolLM2",
    "Ministral3ForCausalLM": "Ministral 3",
    "MistralForCausalLM": "Mistral",
    "MixtralForCausalLM": "Mixtral",
    "MptForCausalLM": "MPT",
    "NanoChatForCausalLM": "NanoChat",
    "NemotronForCausalLM": "Nemotron",
    "OlmoForCausalLM": "OLMo",
    "Olmo2ForCausalLM": "OLMo 2",
    "Olmo3ForCausalLM": "OLMo 3",
    "OlmoHybridForCausalLM": "OLMo Hybrid",
    "OlmoeForCausalLM": "OLMoE",
    "OPTForCausalLM": "OPT",
    "PhiForCausalLM": "Phi 1 and 2",
    "Phi3ForCausalLM": "Phi 3",
    "Qwen2ForCausalLM": "Qwen 2 and 2.5",
    "Qwen2MoeForCausalLM": "Qwen 2 MoE",
    "Qwen3ForCausalLM": "Qwen 3",
    "Qwen3MoeForCausalLM": "Qwen 3 MoE",
    "Qwen3_5ForCausalLM": "Qwen 3.5",
    "SeedOssForCausalLM": "Seed-OSS",
    "SmolLM3ForCausalLM": "SmolLM3",
    "StableLmForCausalLM": "StableLM",
    "Starcoder2ForCausalLM": "StarCoder2",
}
"""Architectures, by transformers' name, whose tiny models the tests compare with the original in float64, and what
models of them are called."""

SUPPORTED = ", ".join(EXACT.values())

_NO_MLP = "it has no MLPs of neurons: its layers are a state space, a recurrence or a mixture of both."
_UNREADABLE_MLP = "its last MLP cannot be read through TransformerLens."
_UNPROCESSED = "TransformerLens cannot process its weights."
REFUSED: dict[str, str] = {
    "BertLMHeadModel": "its prediction passes a further layer after the last norm.",
    "BitNetForCausalLM": "a norm stands between its activations and W_out; its processed weights predict otherwise.",
    "FalconH1ForCausalLM": _UNPROCESSED,
    "FalconMambaForCausalLM": _NO_MLP,
    "Gemma4ForCausalLM": "its blocks multiply the stream, and add embeddings gated by it, after the MLP.",
    "GraniteMoeHybridForCausalLM": _UNREADABLE_MLP,
    "HrmTextForCausalLM": "its layers run several times over one text, so that a neuron has no one activation.",
    "MambaForCausalLM": _NO_MLP,
    "Mamba2ForCausalLM": _NO_MLP,
    "ModernBertDecoderForCausalLM": "its prediction passes a further layer after the last norm.",
    "RecurrentGemmaForCausalLM": _UNREADABLE_MLP,
    "RwkvForCausalLM": _NO_MLP,
    "VaultGemmaForCausalLM": "TransformerLens does not process its weights (it has no compatibility mode for them).",
    "YoutuForCausalLM": _UNPROCESSED,
}
"""Architectures that TransformerLens has and for which the closed forms of the effects cannot be had: a sentence that
follows a model's name."""

NOT_COMPARED: dict[str, str] = {
    "XGLMForCausalLM": "transformers cannot run it in float64, so that nothing exact is there to compare with.",
    "Zamba2ForCausalLM": "no tiny model of it has been made.",
}
"""Architectures whose models load if the check on loading finds that all holds, and no test compares with the original,
each with the reason."""

SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What separates documents in training: of GPT-2, GPT-NeoX, Phi, Qwen, SmolLM, OLMo, Falcon and others; of LLaMA 3; of
LLaMA 1 and 2, Mistral, OPT and BLOOM; of Gemma."""

_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
_GRANITE = ("GraniteForCausalLM", "GraniteMoeForCausalLM")
_RESIDUAL_MULTIPLIERS = dict.fromkeys(_GRANITE, "residual_multiplier")
_LOGIT_DIVISORS = dict.fromkeys(_GRANITE, "logits_scaling")
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


def attends_to_sinks(model: Any) -> bool:
    """Whether heads attend to sinks besides the tokens (gpt-oss): then what they attend to tokens does not add up to 1,
    and a value bias is not the same at every position, so that it cannot be folded into the output bias.

    Args:
        model: of transformers.
    """
    return any(name.endswith(".sinks") for name, _ in model.named_parameters())


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
    for architecture in getattr(config, "architectures", None) or ():
        if architecture in REFUSED:
            raise UnsupportedModel(f"{name} ({architecture}) cannot be analysed: {REFUSED[architecture]}")
