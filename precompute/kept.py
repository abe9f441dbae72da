"""Tensors that are kept on disk and read again: a file says what it was made from, and vouches for its own bytes.

A file is read only where what it was made from is what is wanted now and no byte of its tensors has changed. Anything
else (made from other weights, cut short, a bit turned over, no tensors at all) counts as not there.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from backend.core.models.downloads import cannot_write

_MADE_FROM, _CHECKSUM = "made_from", "checksum"

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Of each tensor by name: its type as safetensors writes it (`F32`, `I64`), and its shape."""


def fingerprint(**parts: object) -> str:
    """SHA-256 over named parts that JSON can hold; two are equal only where every part is."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def keep(path: Path, tensors: dict[str, Tensor], made_from: str) -> None:
    """Write tensors to a file, whole or not at all; its folder is made if needed.

    Raises:
        SourceError: the disk is full, or nothing may be written there.
    """
    dense = {name: tensor.contiguous() for name, tensor in tensors.items()}
    unfinished = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dense, unfinished, {_MADE_FROM: made_from, _CHECKSUM: _checksum(dense)})
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            unfinished.unlink()
        raise cannot_write(path.parent, error) from error


def kept(path: Path, made_from: str, layout: Layout | None = None) -> dict[str, Tensor] | None:
    """The tensors of a file; None where there is none, it was made from something else, or it is damaged.

    Args:
        layout: the types and shapes that the file must have, no tensor more or less; None for any.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            if metadata.get(_MADE_FROM) != made_from:
                return None
            if layout is not None and {name: _form(file.get_slice(name)) for name in names} != layout:
                return None
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError, RuntimeError):  # a damaged header names what torch does not have
        return None
    return tensors if _checksum(tensors) == metadata.get(_CHECKSUM) else None


def layout_of(path: Path) -> Layout:
    """Types and shapes of a file's tensors as its header has them; none where it is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: _form(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    except (OSError, SafetensorError, ValueError, RuntimeError):
        return {}


def _form(part: Any) -> tuple[str, tuple[int, ...]]:
    return str(part.get_dtype()), tuple(part.get_shape())


def _checksum(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
