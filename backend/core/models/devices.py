"""Where tensors live, and what to say when they do not fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backend.core.errors import ModelTooLarge, SourceError, is_memory_error


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes a CUDA GPU where there is one, else the CPU.

    Products of float32 are computed in float32 from then on. PyTorch can be set to round their factors to TF32 on CUDA,
    to 10 bits, as NVIDIA's containers do: an error of 10⁻³ where effects of 10⁻⁶ nats are measured.

    Raises:
        SourceError: no such device on this machine.
    """
    torch.set_float32_matmul_precision("highest")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SourceError(f"The device {name!r} is not there: torch finds no CUDA GPU. Use --device cpu or auto.")
    problem = f"{name!r} is not a device of this instrument: use auto, cpu, or cuda."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SourceError(problem) from error
    if device.type not in ("cpu", "cuda"):  # others (mps, xpu, meta) lack float64 or have never been measured
        raise SourceError(problem)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SourceError(
            f"The device {name!r} is not there: this machine's last GPU is cuda:{torch.cuda.device_count() - 1}."
        )
    return device


def device_words(device: torch.device) -> str:
    """The graphics card's name, or how many of the processor's threads compute."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} {'thread' if threads == 1 else 'threads'}"


def device_name(device: torch.device) -> str:
    """`cpu`, or which GPU it is: two GPUs of one kind round alike, others need not."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def refusing_memory_errors(what: str) -> Iterator[None]:
    """Turn running out of memory during `what` into a sentence.

    Raises:
        ModelTooLarge: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_memory_error(error) or isinstance(error, ModelTooLarge):
            raise
        raise ModelTooLarge(
            f"{what} ran out of memory. Take a smaller model, shorter sequences, or a machine with more memory."
        ) from error
