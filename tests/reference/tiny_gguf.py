"""The tiny LLaMA as a GGUF file, in the layout that llama.cpp's converter writes."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray
from safetensors.numpy import load_file

from backend.core.models.sources import ModelFiles
from tests.reference.tiny_models import D_MLP, D_MODEL, HEADS, KEY_VALUE_HEADS, LAYERS, VOCAB, byte_tokenizer

_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NORMAL, _CONTROL = 1, 3  # kinds of token


def write_gguf(
    llama: ModelFiles, path: Path, *, without: str | None = None, file_type: int | None = None
) -> Path:  # fmt: skip
    """Write the tiny LLaMA's weights and byte tokenizer to `path`.

    Args:
        without: a tensor to leave out.
        file_type: what the file says of how it keeps its weights, whatever it does.
    """
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(D_MODEL // HEADS)
    writer.add_vocab_size(VOCAB)
    if file_type is not None:
        writer.add_file_type(file_type)
    _write_tokenizer(writer)
    for name, tensor in load_file(llama.folder / "model.safetensors").items():
        if name != without:
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(_rotary_order(name, tensor)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: GGUFWriter) -> None:
    vocabulary = byte_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    tokens += ["Ġt", *(f"<unused{n}>" for n in range(len(tokens) + 1, VOCAB))]  # GGUF wants at least one merge
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_merges(["Ġ t"])
    writer.add_token_types([_CONTROL, _CONTROL, *[_NORMAL] * (VOCAB - 2)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def _rotary_order(name: str, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """llama.cpp rotates neighbouring pairs of a head's rows, transformers its two halves."""
    heads = {"q_proj": HEADS, "k_proj": KEY_VALUE_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return tensor
    return tensor.reshape(heads, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
