"""A graphics card that is not there: tensors that say they are on CUDA, and are computed on the CPU.

They refuse what CUDA refuses: to meet a tensor on the CPU of more than one number, or to be read by numpy. So code that
runs here makes every tensor on the right device, copies where it must, and gives the numbers that the CPU gives; how
often it waited for the card is counted. Nothing is learned of rounding, speed or memory.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CARD = torch.device("cuda:0")
_CPU = torch.device("cpu")
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_INDEXED = {
    torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default,
    torch.ops.aten._index_put_impl_.default,
}  # fmt: skip
"""Whose indices may be on the CPU."""
_WAITS = {
    torch.ops.aten._local_scalar_dense.default: "a number is read",
    torch.ops.aten.nonzero.default: "places are counted",
    torch.ops.aten.masked_select.default: "places are counted",
    torch.ops.aten.equal.default: "a number is read",
    torch.ops.aten._unique2.default: "places are counted",
    torch.ops.aten.repeat_interleave.Tensor: "places are counted",
}
"""Operations for which the processor waits for the card."""


class OnCard(Tensor):
    """A tensor whose numbers are in `elem`."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            layout=elem.layout, device=torch.device("meta"), requires_grad=elem.requires_grad,
        )  # fmt: skip
        made.elem = elem.detach()
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What Python is answered; PyTorch's own code sees `meta`, since a build for CPUs has no place for another."""
        return CARD

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnCard({self.elem!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {}, Counter())


class SimulatedCard(TorchDispatchMode):
    """While it is entered, `device="cuda"` makes tensors `OnCard`."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        """How often the processor waited for the card, and for what."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {}, self.waits)


def _computed(func: Any, args: Any, kwargs: Mapping[str, Any], waits: Counter[str]) -> Any:
    if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
        return False
    given, _ = tree_flatten((args, dict(kwargs)))
    tensors = [value for value in given if isinstance(value, Tensor)]
    on = [value for value in tensors if isinstance(value, OnCard)]
    asked = kwargs.get("device")
    to_card = bool(on) if asked is None else torch.device(asked).type in ("cuda", "meta")
    _refuse_mixture(func, args, tensors, on)
    if on and func in _WAITS:
        waits[f"{_WAITS[func]}: {func}"] += 1
    if func is torch.ops.aten._local_scalar_dense.default:
        to_card = False
    if func is torch.ops.aten.copy_.default:
        to_card = isinstance(args[0], OnCard)
    if func in _COPIES and on and not to_card:  # to the card is asked for and not waited for
        waits[f"copied: {func}"] += 1
    wrapped = {id(value.elem): value for value in on}
    plain_args, plain_kwargs = tree_map(_plain, (args, dict(kwargs)))
    if asked is not None:
        plain_kwargs["device"] = _CPU
    found = func(*plain_args, **plain_kwargs)
    if not to_card:
        return tree_map(lambda value: value.clone() if _aliases(value, on) else value, found)
    return tree_map(lambda value: wrapped.get(id(value), OnCard(value)) if isinstance(value, Tensor) else value, found)


def _plain(value: Any) -> Any:
    if isinstance(value, OnCard):
        return value.elem
    return _CPU if isinstance(value, torch.device) and value.type in ("cuda", "meta") else value


def _aliases(value: Any, on: list[OnCard]) -> bool:
    return isinstance(value, Tensor) and any(value is one.elem for one in on)


def _refuse_mixture(func: Any, args: Any, tensors: list[Tensor], on: list[OnCard]) -> None:
    """
    Raises:
        RuntimeError: as CUDA would, tensors on both devices meet.
    """
    if not on or func in _COPIES:
        return
    if func in _INDEXED and isinstance(args[0], OnCard):
        tensors = [value for value in (args[0], *args[2:3]) if isinstance(value, Tensor)]
    apart = [value for value in tensors if not isinstance(value, OnCard) and (value.ndim or func in _INDEXED)]
    apart = [value for value in apart if not (func in _INDEXED and isinstance(args[0], OnCard) and not value.ndim)]
    if apart:
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} was given one on cpu and one on cuda"
        )


@contextmanager
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedCard]:
    """A card that `choose_device` knows as cuda:0, and on which Triton's kernel is interpreted."""
    from backend.core.kernels import triton_rows
    from backend.core.models import analysis_model

    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)  # which a build for CPUs refuses
    monkeypatch.setattr(triton_rows, "_tuned", _Interpreted(triton_rows._tuned))
    monkeypatch.setattr(analysis_model, "choose_device", lambda name: CARD if name.startswith("cuda") else _CPU)
    with SimulatedCard() as mode:
        yield mode


class _Interpreted:
    """A kernel that refuses tensors that are not on the card, and is interpreted with their numbers."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **options: Any) -> None:
            for place, value in enumerate(args):
                if isinstance(value, Tensor) and not (isinstance(value, OnCard) and value.is_contiguous()):
                    raise RuntimeError(f"Argument {place} of the kernel is not a contiguous tensor on the card")
            with torch._C._DisableTorchDispatch():
                self._kernel[grid](*map(_plain, args), **options)

        return launch
