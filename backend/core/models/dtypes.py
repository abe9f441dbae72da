"""In which numbers a model's weights are kept and its layers computed, and whether they fit.

Whatever it is, the readout, what is read of the model, and all statistics are float32 or float64.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import psutil
import torch

from backend.core.errors import BadConfig, ModelTooLarge, SourceError, is_memory_error
from backend.core.models.devices import device_words
from backend.core.models.sizes import Stored, stored

DTypeName = Literal["float32", "bfloat16", "float16"]
AUTO = "auto"
_DTYPES: dict[DTypeName, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip


@dataclass(frozen=True)
class Tolerance:
    """How far a processed model may be from the original one on loading."""

    log_probs: float
    """nats"""
    relative: float
    """Relative to the largest value."""
    reason: str


TOLERANCES: dict[DTypeName, Tolerance] = {
    "float32": Tolerance(5e-3, 1e-3, "float32 rounding over a deep model reaches some 1e-4 nats"),
    "bfloat16": Tolerance(0.5, 3e-2, "bfloat16 keeps 8 bits: folded weights are rounded to 1 part in 256 once more"),
    "float16": Tolerance(0.1, 5e-3, "float16 keeps 11 bits: folded weights are rounded to 1 part in 2048 once more"),
}
"""A wrong fold or centring is off by whole nats in any of them."""


def dtype_name(dtype: torch.dtype) -> DTypeName:
    """What a type of numbers is called."""
    return next(name for name, known in _DTYPES.items() if known == dtype)


def choose_dtype(asked: str, folder: Path, name: str, device: torch.device) -> torch.dtype:
    """The type in which a model's weights are loaded; `auto` is float32 where that fits, else as they are stored.

    Args:
        name: the model's.

    Raises:
        BadConfig: no such type.
        SourceError: the device does not compute in it.
        ModelTooLarge: the weights do not fit, with what would.
    """
    if asked != AUTO and asked not in get_args(DTypeName):
        raise BadConfig(f"--dtype takes auto, {', '.join(get_args(DTypeName))}, not {asked[:40]!r}.")
    there, free = stored(folder), free_memory(device)
    if asked == AUTO:
        kept = next((dtype for short, dtype in _STORED.items() if short == there.dtype), torch.float32)
        fits = needed(there, torch.float32) <= free or not _computes_in(device, kept)
        dtype = torch.float32 if fits else kept
    else:
        dtype = _DTYPES[asked]  # type: ignore[index]
        if not _computes_in(device, dtype):
            raise SourceError(f"{device_words(device)} does not compute in {asked}: use --dtype float32.")
    _require_memory(there, dtype, free, name, device)
    return dtype


_STORED = {"BF16": torch.bfloat16, "F16": torch.float16}


def needed(there: Stored, dtype: torch.dtype) -> int:
    """Bytes that a model takes: its weights, and beside them the unembedding in float32."""
    return there.elements * dtype.itemsize + 4 * there.largest_axes


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)


def _require_memory(there: Stored, dtype: torch.dtype, free: int, name: str, device: torch.device) -> None:
    if needed(there, dtype) <= free:
        return
    smaller = f"--dtype bfloat16 takes {_gigabytes(needed(there, torch.bfloat16))}"
    where = "--device cpu" if device.type == "cuda" else "a machine with more"
    spread = ", --device-map auto spreads it over all cards" if device.type == "cuda" else ""
    ways = f"{smaller}{spread}; else take {where}" if dtype.itemsize > 2 else f"take {where}{spread}"
    raise ModelTooLarge(
        f"{name} needs {_gigabytes(needed(there, dtype))} of memory in {dtype_name(dtype)}, and "
        f"{_gigabytes(free)} are free on {device_words(device)}: {ways}."
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _computes_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device has what a transformer is made of in a type, not emulated on a card that lacks it."""
    if device.type == "cuda" and dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        x = torch.ones(2, 4, dtype=dtype, device=device)
        torch.nn.functional.silu(torch.nn.functional.layer_norm((x @ x.T).softmax(-1), (2,)))
    except RuntimeError as error:
        if is_memory_error(error):
            raise
        return False
    return True
