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
D_EXPERT = 11
"""Neurons of an expert; all experts of a layer, a shared one included, have D_MLP."""
_SEED = 7


@dataclass(frozen=True)
class Family:
    """How to build a family's tiny model, and where in it the reference puts its hands."""

    config: str
    mlp_out: str
    """Path of the module whose input is the neurons' activations; of a mixture of experts the mixture itself."""
    final_norm: str
    options: dict[str, Any] = field(default_factory=dict)
    norm: str = "rms"
    """Of the final norm: `layer` or `rms`, `layer1` or `rms1` where the gain is 1 + weight, `none` where there is
    none."""
    parallel: bool = False
    """Whether a block's MLP reads what its attention reads."""
    gated: bool = False
    """Whether activations are products of two projections of what the MLP reads."""
    d_mlp: int = D_MLP
    experts: int = 0
    """Those that a router chooses from; 0 where the MLP has none."""


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
_OPT = {
    "hidden_size": D_MODEL,
    "ffn_dim": D_MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 64,
}
_GPT = {"n_embd": D_MODEL, "n_inner": D_MLP, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
_FC_OUT, _LN_F = "transformer.h.-1.mlp.fc_out", "transformer.ln_f"

_LINEAR_ATTENTION: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


def _llama_like(config: str, norm: str = "rms", *, parallel: bool = False, **options: Any) -> Family:
    return Family(config, _DOWN, _NORM, _LLAMA_LIKE | options, norm, parallel, gated=True)


def _mixture(config: str, experts: int, module: str = "mlp", **options: Any) -> Family:
    """Experts of D_EXPERT neurons, of which each token passes two."""
    sizes = {"intermediate_size": D_EXPERT, "moe_intermediate_size": D_EXPERT, "num_experts_per_tok": 2}
    return Family(
        config, f"model.layers.-1.{module}", _NORM, _LLAMA_LIKE | sizes | options, gated=True, experts=experts
    )


FAMILIES: dict[str, Family] = {
    "gpt2": Family("GPT2Config", "transformer.h.-1.mlp.c_proj", _LN_F, _GPT, "layer"),
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
        "GPTNeoConfig", "transformer.h.-1.mlp.c_proj", _LN_F,
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_layers": LAYERS, "num_heads": HEADS,
         "attention_types": [[["global"], LAYERS]], "max_position_embeddings": 64}, "layer",
    ),
    "opt": Family(
        "OPTConfig", "model.decoder.layers.-1.fc2", "model.decoder.final_layer_norm",
        _OPT | {"word_embed_proj_dim": D_MODEL}, "layer",
    ),
    "llama": _llama_like("LlamaConfig"),
    "mistral": _llama_like("MistralConfig"),
    "qwen2": _llama_like("Qwen2Config"),
    "qwen3": _llama_like("Qwen3Config"),
    "gemma": _llama_like("GemmaConfig", "rms1"),
    # Norms after the MLP, soft-caps, multipliers, and final norms of other kinds. Caps are low, so that they bite.
    "gemma2": _llama_like(
        "Gemma2Config", "rms1", final_logit_softcapping=2.5, attn_logit_softcapping=1.5, sliding_window=5,
        query_pre_attn_scalar=D_MODEL // HEADS,
    ),
    "gemma3": _llama_like(
        "Gemma3TextConfig", "rms1", sliding_window=5, query_pre_attn_scalar=D_MODEL // HEADS,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "olmo2": _llama_like("Olmo2Config"),
    "granite": _llama_like(
        "GraniteConfig", residual_multiplier=0.3, logits_scaling=2.5, embedding_multiplier=3.0, attention_multiplier=0.2
    ),
    "nemotron": Family("NemotronConfig", _DOWN, _NORM, _LLAMA_LIKE, "layer1"),
    "opt-350m": Family(
        "OPTConfig", "model.decoder.layers.-1.fc2", "model.decoder.layers.-1.final_layer_norm",
        _OPT | {"word_embed_proj_dim": D_MODEL // 2, "do_layer_norm_before": False}, "layer",
    ),
    # Variants on which a family's usual reading of its configuration would go wrong:
    "gpt-neox-serial": Family(
        "GPTNeoXConfig", "gpt_neox.layers.-1.mlp.dense_4h_to_h", "gpt_neox.final_layer_norm",
        {"hidden_size": D_MODEL, "intermediate_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "max_position_embeddings": 64, "use_parallel_residual": False}, "layer",
    ),
    "llama-tied": _llama_like("LlamaConfig", tie_word_embeddings=True, mlp_bias=True, attention_bias=True),
    "mistral-window": _llama_like("MistralConfig", sliding_window=5),
    "falcon": Family(
        "FalconConfig", "transformer.h.-1.mlp.dense_4h_to_h", _LN_F,
        {"hidden_size": D_MODEL, "ffn_hidden_size": D_MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
        "layer", parallel=True,
    ),
    "stablelm": _llama_like("StableLmConfig", "layer", use_qkv_bias=True),
    # Mixtures of experts: whether the chosen experts' weights are made to add up to 1, and before or after the choice
    "mixtral": _mixture("MixtralConfig", 4, num_local_experts=4),
    "olmoe": _mixture("OlmoeConfig", 4, num_experts=4, norm_topk_prob=False),
    "qwen2-moe": _mixture(
        "Qwen2MoeConfig", 3, num_experts=3, shared_expert_intermediate_size=D_EXPERT, norm_topk_prob=False
    ),
    "qwen3-moe": _mixture("Qwen3MoeConfig", 4, num_experts=4, norm_topk_prob=True),
    "gpt-oss": _mixture(
        "GptOssConfig", 4, num_local_experts=4, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
}  # fmt: skip

RELATIVES: dict[str, Family] = {
    "gpt2-without-norms": Family(
        "GPT2Config", "transformer.h.-1.mlp.c_proj", _LN_F, _GPT | {"layer_norm_epsilon": 1e12}, "layer"
    ),
    "opt-without-final-norm": Family(
        "OPTConfig", "model.decoder.layers.-1.fc2", "",
        _OPT | {"word_embed_proj_dim": D_MODEL, "_remove_final_layer_norm": True}, "none",
    ),
    "gpt-j": Family("GPTJConfig", _FC_OUT, _LN_F, _GPT | {"rotary_dim": 4}, "layer", parallel=True),
    "codegen": Family("CodeGenConfig", _FC_OUT, _LN_F, _GPT | {"rotary_dim": 4}, "layer", parallel=True),
    "gpt-bigcode": Family("GPTBigCodeConfig", "transformer.h.-1.mlp.c_proj", _LN_F, _GPT, "layer"),
    "bloom": Family(
        "BloomConfig", "transformer.h.-1.mlp.dense_4h_to_h", _LN_F,
        {"hidden_size": D_MODEL, "n_layer": LAYERS, "n_head": HEADS}, "layer", d_mlp=4 * D_MODEL,
    ),
    "mpt": Family(
        "MptConfig", "transformer.blocks.-1.ffn.down_proj", "transformer.norm_f",
        {"d_model": D_MODEL, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": 64}, "layer", d_mlp=4 * D_MODEL,
    ),
    "openai-gpt": Family(
        "OpenAIGPTConfig", "transformer.h.-1.mlp.c_proj", "transformer.h.-1.ln_2",
        {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}, "layer", d_mlp=4 * D_MODEL,
    ),
    "starcoder2": Family("Starcoder2Config", "model.layers.-1.mlp.c_proj", _NORM, _LLAMA_LIKE, "layer"),
    "olmo": _llama_like("OlmoConfig", "layer"),
    "olmo3": _llama_like("Olmo3Config", sliding_window=5),
    "exaone4": _llama_like("Exaone4Config", sliding_window=5),
    "phi3": _llama_like("Phi3Config"),
    "smollm3": _llama_like("SmolLM3Config"),
    "glm": _llama_like("GlmConfig"),
    "glm4": _llama_like("Glm4Config"),
    "granite-moe": _mixture(
        "GraniteMoeConfig", 4, "block_sparse_moe", num_local_experts=4, residual_multiplier=0.3, logits_scaling=3.0
    ),
    "cohere": _llama_like("CohereConfig", "layer", parallel=True, logit_scale=0.4),
    "cohere2": _llama_like("Cohere2Config", "layer", parallel=True, logit_scale=0.4, sliding_window=5),
    "ministral3": _llama_like("Ministral3Config"),
    "arcee": Family("ArceeConfig", _DOWN, _NORM, _LLAMA_LIKE),
    "apertus": Family("ApertusConfig", _DOWN, _NORM, _LLAMA_LIKE),
    "ernie4.5": _llama_like("Ernie4_5Config"),
    "hunyuan": _llama_like("HunYuanDenseV1Config"),
    "seed-oss": _llama_like("SeedOssConfig"),
    "jais2": Family("Jais2Config", _DOWN, _NORM, _LLAMA_LIKE, "layer"),
    "nanochat": Family(
        "NanoChatConfig", "model.layers.-1.mlp.fc2", _NORM, _LLAMA_LIKE | {"final_logit_softcapping": 2.5}
    ),
    "lfm2": Family(
        "Lfm2Config", "model.layers.-1.feed_forward.w2", "model.embedding_norm",
        _LLAMA_LIKE | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, gated=True,
    ),
    "qwen3.5": _llama_like("Qwen3_5TextConfig", "rms1", **_LINEAR_ATTENTION),
    "olmo-hybrid": _llama_like("OlmoHybridConfig", **_LINEAR_ATTENTION),
    "bamba": Family(
        "BambaConfig", "model.layers.-1.feed_forward.down_proj", "model.final_layernorm",
        _LLAMA_LIKE | {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8,
                       "mamba_chunk_size": 8}, gated=True,
    ),
}  # fmt: skip
"""Further architectures, and variants that add nothing new to the text lab: their effects and live interventions are
compared with the original, what is parametrised by `FAMILIES` alone is not."""

UNCHECKED: dict[str, Family] = {
    # transformers cannot run it in float64
    "xglm": Family(
        "XGLMConfig", "model.layers.-1.fc2", "model.layer_norm",
        {"d_model": D_MODEL, "ffn_dim": D_MLP, "num_layers": LAYERS, "attention_heads": HEADS,
         "max_position_embeddings": 64}, "layer",
    ),
}  # fmt: skip

REFUSED: dict[str, Family] = {
    # Experts in groups, of which the router chooses first
    "deepseek-v3": _mixture(
        "DeepseekV3Config", 4, n_routed_experts=4, n_group=1, topk_group=1, first_k_dense_replace=0, kv_lora_rank=8,
        q_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, head_dim=4, v_head_dim=8, num_key_value_heads=HEADS,
    ),
    "qwen2-moe-mixed": _mixture(
        "Qwen2MoeConfig", 3, num_experts=3, shared_expert_intermediate_size=D_EXPERT, mlp_only_layers=[0]
    ),
    "vaultgemma": _llama_like("VaultGemmaConfig", "rms1"),
}  # fmt: skip
EVERY = FAMILIES | RELATIVES | UNCHECKED | REFUSED
ENDINGS = ("gemma2", "olmo2", "granite", "nemotron", "opt-350m")
"""Families that end otherwise than GPT-2 and LLaMA: a norm after the MLP with and without a soft-cap, multipliers, a
gain of 1 + weight on a LayerNorm, a last norm within the block."""


def build(name: str, folder: Path, *, vocab: int = VOCAB, seed: int = _SEED) -> ModelFiles:
    """Save a family's tiny model and tokenizer under `folder`."""
    family = EVERY[name]
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
    # With an eps of 10¹² a LayerNorm divides by 10⁶ whatever it reads; gains make up for it.
    gain = max(1.0, getattr(model.config, "layer_norm_epsilon", 0.0)) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
                if name.endswith("weight"):
                    parameter.mul_(gain)
            else:
                parameter.copy_(0.25 * torch.randn_like(parameter))
