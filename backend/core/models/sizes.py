"""Whether a model's configuration claims more than its weights hold: such a one would be built, for hours or for ever,
before anybody noticed that its tensors are not there."""

import json
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from backend.core.errors import SourceError

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
_WIDTHS = (
    "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "vocab_size",
    "word_embed_proj_dim", "num_attention_heads", "n_head", "num_key_value_heads", "head_dim",
)  # fmt: skip
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_MOST_POSITIONS = 1 << 24
_MOST_HEADER_BYTES = 100_000_000
"""As safetensors itself has it."""
_MOST_CONFIG_BYTES = 10_000_000


def require_sizes(folder: Path, name: str) -> None:
    """Refuse a model folder whose configuration asks for more than its tensors hold.

    Raises:
        SourceError: the configuration cannot be read, or claims layers or widths that no tensor in the folder has.
    """
    path = folder / "config.json"
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError("it is far too large")
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
        shapes = [shape for file in folder.glob("*.safetensors") for shape, _ in _tensors(file)]
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise SourceError(f"{name} cannot be read: its config.json or weights are damaged ({error}).") from error
    widest = max((axis for shape in shapes for axis in shape), default=0)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        _require(part, _LAYERS, len(shapes), name)
        _require(part, _WIDTHS, widest, name)
        _require(part, _POSITIONS, _MOST_POSITIONS, name)


@dataclass(frozen=True)
class Stored:
    """What a folder's weights are, from the headers of their files."""

    elements: int
    """Numbers in all tensors."""
    largest_axes: int
    """Numbers in the largest matrix, which in a language model is the unembedding or as large as it."""
    dtype: str
    """The type of most of them as safetensors writes it, such as BF16."""


def stored(folder: Path) -> Stored:
    """How much a model folder holds, and in which type.

    Raises:
        SourceError: a header is damaged.
    """
    try:
        tensors = [tensor for file in folder.glob("*.safetensors") for tensor in _tensors(file)]
    except (OSError, ValueError, RecursionError, struct.error) as error:
        raise SourceError(f"The weights in {folder} are damaged ({error}).") from error
    sizes, types = [prod(shape) for shape, _ in tensors], Counter[str]()
    for size, (_, dtype) in zip(sizes, tensors, strict=True):
        types[dtype] += size
    matrices = (size for size, (shape, _) in zip(sizes, tensors, strict=True) if len(shape) == 2)
    return Stored(sum(sizes), max(matrices, default=0), types.most_common(1)[0][0] if types else "F32")


def _require(config: dict[str, Any], keys: tuple[str, ...], most: int, name: str) -> None:
    for key in keys:
        value = config.get(key)
        if isinstance(value, int | float) and not -1 <= value <= most:
            raise SourceError(
                f"{name}: config.json says {key} = {value:.6g}, but its weights have room for {most} at most. The "
                "configuration belongs to another model, or is damaged: nothing was built from it."
            )


def _tensors(file: Path) -> list[tuple[list[int], str]]:
    """The shapes and types of a safetensors file's tensors, from its header alone."""
    with file.open("rb") as source:
        (size,) = struct.unpack("<Q", source.read(8))
        if size > _MOST_HEADER_BYTES:
            raise ValueError(f"the header of {file.name} is far too large")
        header = json.loads(source.read(size))
    entries = [entry for key, entry in header.items() if key != "__metadata__"] if isinstance(header, dict) else []
    tensors = [(entry.get("shape"), str(entry.get("dtype"))) for entry in entries if isinstance(entry, dict)]
    return [
        (shape, dtype)
        for shape, dtype in tensors
        if isinstance(shape, list) and all(isinstance(axis, int) for axis in shape)
    ]
