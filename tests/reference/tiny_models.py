"""Tiny models of every family, made from a configuration with random weights, and a tokenizer of bytes.

Norm gains and biases are randomised: with the usual ones and zeros a wrong fold would go unseen.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn

from backend.core.models.sources import ModelFiles

D_MODEL, D_MLP, LAYERS, HEADS, KEY_VALUE_HEADS, VOCAB = 32, 44, 2, 4, 2, 260
_SEED = 7


@dataclass(frozen=True)
class Family:
    """How to build a family's tiny model, and where in it the reference puts its hands."""

    config: str
    mlp_out: str
    """Path of the module whose input is the neurons' activations."""
    final_norm: str
    options: dict[str, Any] = field(default_factory=dict)
    norm: str = "rms"
    """`layer`, `rms`, or `rms1` where the gain is 1 + weight."""
    parallel: bool = False
    """Whether a block's MLP reads what its attention reads."""

    @property
    def gated(self) -> bool:
        """Whether activations are products of two projections of what the MLP reads."""
        return self.mlp_out.endswith("down_proj")


_LLAMA_LIKE = {
    "hidden_size": D_MODEL,
    "intermediate_size": D_MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "head_dim": D_MODEL // HEADS,
    "max_position_embeddings": 64,
}
_DOWN, _NORM = "model.layers.-1.mlp.down_proj", "model.norm"

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        "GPT2Config", "transformer.h.-1.mlp.c_proj", "transformer.ln_f",
        {"n_embd": D_MODEL, "n_inner": D_MLP, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}, "layer",
    ),
    "gpt-neox": Family(
        "GPTNeoXConfig", "gpt_neox.layers.-1.mlp.dense_4h_to_h", "gpt_neox.final_layer_norm",
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "max_position_embeddings": 64}, "layer", parallel=True,
    ),
    "phi": Family(
        "PhiConfig", "model.layers.-1.mlp.fc2", "model.final_layernorm",
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "max_position_embeddings": 64}, "layer", parallel=True,
    ),
    "gpt-neo": Family(
        "GPTNeoConfig", "transformer.h.-1.mlp.c_proj", "transformer.ln_f",
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_layers": LAYERS, "num_heads": HEADS,
         "attention_types": [[["global"], LAYERS]], "max_position_embeddings": 64}, "layer",
    ),
    "opt": Family(
        "OPTConfig", "model.decoder.layers.-1.fc2", "model.decoder.final_layer_norm",
        {"hidden_size": D_MODEL, "ffn_dim": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "max_position_embeddings": 64, "word_embed_proj_dim": D_MODEL}, "layer",
    ),
    "llama": Family("LlamaConfig", _DOWN, _NORM, _LLAMA_LIKE),
    "mistral": Family("MistralConfig", _DOWN, _NORM, _LLAMA_LIKE),
    "qwen2": Family("Qwen2Config", _DOWN, _NORM, _LLAMA_LIKE),
    "qwen3": Family("Qwen3Config", _DOWN, _NORM, _LLAMA_LIKE),
    "gemma": Family("GemmaConfig", _DOWN, _NORM, _LLAMA_LIKE, "rms1"),
    # Variants on which a family's usual reading of its configuration would go wrong:
    "gpt-neox-serial": Family(
        "GPTNeoXConfig", "gpt_neox.layers.-1.mlp.dense_4h_to_h", "gpt_neox.final_layer_norm",
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "max_position_embeddings": 64, "use_parallel_residual": False}, "layer",
    ),
    "llama-tied": Family(
        "LlamaConfig", _DOWN, _NORM,
        _LLAMA_LIKE | {"tie_word_embeddings": True, "mlp_bias": True, "attention_bias": True},
    ),
    "mistral-window": Family("MistralConfig", _DOWN, _NORM, _LLAMA_LIKE | {"sliding_window": 5}),
    "falcon": Family(
        "FalconConfig", "transformer.h.-1.mlp.dense_4h_to_h", "transformer.ln_f",
        {"hidden_size": D_MODEL, "ffn_hidden_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
        "layer", parallel=True,
    ),
    "stablelm": Family("StableLmConfig", _DOWN, _NORM, _LLAMA_LIKE | {"use_qkv_bias": True}, "layer"),
}  # fmt: skip

UNCHECKED: dict[str, Family] = {
    # transformers cannot run it in float64
    "xglm": Family(
        "XGLMConfig", "model.layers.-1.fc2", "model.layer_norm",
        {"d_model": D_MODEL, "ffn_dim": D_MLP, "num_layers": LAYERS, "attention_heads": HEADS,
         "max_position_embeddings": 64}, "layer",
    ),
}  # fmt: skip

REFUSED: dict[str, Family] = {
    "gemma2": Family("Gemma2Config", _DOWN, _NORM, _LLAMA_LIKE, "rms1"),
    "gemma3": Family("Gemma3TextConfig", _DOWN, _NORM, _LLAMA_LIKE, "rms1"),
    "opt-350m": Family(
        "OPTConfig",
        "model.decoder.layers.-1.fc2",
        "model.decoder.final_layer_norm",
        {
            "hidden_size": D_MODEL,
            "ffn_dim": D_MLP,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": D_MODEL // 2,
            "do_layer_norm_before": False,
        },
        "layer",
    ),
    "granite": Family("GraniteConfig", _DOWN, _NORM, _LLAMA_LIKE | {"residual_multiplier": 0.3}),
    "olmo2": Family("Olmo2Config", _DOWN, _NORM, _LLAMA_LIKE),
    "nemotron": Family("NemotronConfig", _DOWN, _NORM, _LLAMA_LIKE, "layer"),
    "mixtral": Family("MixtralConfig", _DOWN, _NORM, _LLAMA_LIKE | {"num_local_experts": 2}),
}


def build(name: str, folder: Path, *, vocab: int = VOCAB, seed: int = _SEED) -> ModelFiles:
    """Save a family's tiny model and tokenizer under `folder`."""
    family = (FAMILIES | UNCHECKED | REFUSED)[name]
    torch.manual_seed(seed)
    config = getattr(transformers, family.config)(
        vocab_size=vocab, bos_token_id=0, eos_token_id=1, pad_token_id=1, **family.options
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    _randomise(model)
    config.architectures = [type(model).__name__]
    target = folder / name
    model.save_pretrained(target)
    byte_tokenizer().save_pretrained(target)
    return ModelFiles(target, name, "folder")


def byte_tokenizer(bos: str = "<s>", eos: str = "</s>", *, adds: bool = False, more: tuple[str, ...] = ()) -> Any:
    """One token a byte, after BOS and EOS; VOCAB − 258 ids stay unused, as padding of the vocabulary does.

    Args:
        bos: token 0, as text; eos: token 1.
        adds: whether it puts BOS before a text on its own.
        more: special tokens besides, from 258 on.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {bos: 0, eos: 1} | {letter: 2 + place for place, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(more))
    if adds:
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)


def _randomise(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.25 * torch.randn_like(parameter))
