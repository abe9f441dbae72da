"""Where tensors live, and what to say when they do not fit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backend.core.errors import ModelTooLarge, SourceError


def choose_device(name: str) -> torch.device:
    """The device called `name`; `auto` takes a CUDA GPU where there is one, else the CPU.

    Raises:
        SourceError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SourceError(f"The device {name!r} is not there: torch finds no CUDA GPU. Use --device cpu or auto.")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise SourceError(f"{name!r} is not a device: use auto, cpu, or cuda.") from error


@contextmanager
def refusing_memory_errors(what: str) -> Iterator[None]:
    """Turn running out of memory during `what` into a sentence.

    Raises:
        ModelTooLarge: memory ran out.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelTooLarge(_too_large(what)) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch's CPU allocator raises a plain RuntimeError
            raise
        raise ModelTooLarge(_too_large(what)) from error


def _too_large(what: str) -> str:
    return f"{what} ran out of memory. Take a smaller model, shorter sequences, or a machine with more memory."
