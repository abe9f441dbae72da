"""Which kernel computes the effects here, and why. All have one interface: (Ablations, Before) → PairStatistics.

A kernel says which statistics it computes. Others are taken from the plain kernel, and its reason says so: a
new statistic has to be written there alone, and elsewhere where it is to be fast.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch

from backend.core.kernels import plain, rows, rows_capped, series, survey
from backend.core.kernels.problem import Ablations, Before, FixedDirection
from backend.core.metrics.effects import PairStatistics
from backend.core.toolchain import missing_for_triton

Mode = Literal["exact", "survey"]


DEFAULT_MEMORY = 4 * 10**9
"""Bytes; the same everywhere, so that an atlas does not depend on how much happens to be free."""
_MOST_TOKENS = 256
_FEW_TOKENS = 16
_ROWS_A_TOKEN = 12
"""Rows of float32 over the vocabulary that a token takes: logits, p, log p, the series' weights, and what comes and
goes while these are formed."""
_ROWS_OF_SCRATCH = 440
"""Rows of float32 over the vocabulary that the kernel takes besides, however many tokens there are."""
_WITH_POWERS, _WITH_NARROW_POWERS = 4, 3.5
"""Rows of float32 that a neuron takes when the powers of its row of A are kept: A to A⁴, or A, A² and three that are
narrower where the device has such a type; in a survey A, its transpose and what is narrower."""
_WITHOUT_POWERS = 2
"""Rows of float32 that a neuron takes when no powers are kept: A, and its transpose in a survey."""
_KEPT_BACK = 64 * 10**6
"""Bytes that the C library's allocator may keep of what was freed: blocks of up to 32 MB each."""
_LEAST_SLAB = 512
"""Neurons in a slab below which their powers are not kept, to have more neurons instead."""
_TOKENS_A_DIMENSION, _MOST_BLOCK = 3, 8192
"""Tokens by dimension of the residual stream that share a slab of A: forming it takes a tenth of their time then."""
_READ_A_TOKEN = 48
"""Bytes by dimension of the residual stream that are kept of a token while the slabs of neurons pass."""


@dataclass(frozen=True)
class Tiles:
    """How many tokens and neurons are handled at once."""

    tokens: int
    neurons: int
    keep_powers: bool = False
    """Whether there is room for the powers of A."""
    block: int = _MOST_BLOCK
    """Tokens that a slab of neurons meets before the next is formed, tile by tile."""

    @classmethod
    def within(cls, memory: int, n_neurons: int, d_model: int, d_vocab: int) -> "Tiles":
        """The largest tiles that fit into so many bytes; never less than 8 tokens by 64 neurons."""
        row, tokens = 4 * d_vocab, _MOST_TOKENS
        memory -= _KEPT_BACK
        while tokens > 8 and tokens * _ROWS_A_TOKEN * row > memory / 3:
            tokens //= 2
        left = memory - (tokens * _ROWS_A_TOKEN + _ROWS_OF_SCRATCH) * row
        a_neuron = (_WITH_POWERS if series.half_precision("cpu") is None else _WITH_NARROW_POWERS) * row
        if left >= a_neuron * n_neurons:
            return cls(tokens, n_neurons, keep_powers=True)
        block = min(_MOST_BLOCK, _TOKENS_A_DIMENSION * d_model, memory // 8 // (_READ_A_TOKEN * d_model))
        block = max(tokens, block // tokens * tokens)
        left -= block * _READ_A_TOKEN * d_model
        neurons = int(left / a_neuron)
        if neurons >= _LEAST_SLAB:
            return cls(tokens, neurons, keep_powers=True, block=block)
        return cls(tokens, max(64, min(n_neurons, left // (_WITHOUT_POWERS * row))), block=block)


_FAST = frozenset(
    {
        "delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen", "rank", "changed",
        "delta_loss_freq", "delta_kl",
    }
)  # fmt: skip
"""What every fast kernel computes."""


@dataclass(frozen=True)
class Kernel:
    """A way to compute all pairs."""

    name: str
    reason: str
    every_pair: Callable[[Ablations, Before], PairStatistics]
    bound: float | None = None
    """Largest error, in nats, that it allows itself for a loss or an entropy; None where it sums every term."""


def choose_kernel(
    device: torch.device, mode: Mode = "exact", *, along: bool = False, softcap: float | None = None
) -> Kernel:
    """The fastest kernel for a device; a survey's errors stay below `survey.TOLERANCE`, all others are exact.

    Args:
        along: whether ablations move the logits along a direction of each token's own (`Ablations.along`).
        softcap: what bounds the logits (`Ablations.softcap`).
    """
    if softcap is not None and device.type == "cpu":
        reason = "CPU; the logits' soft-cap bends every tilt, so that it has no moment series: whole rows, compiled"
        return Kernel("row by row, compiled", reason, rows_capped.every_pair)
    if device.type == "cpu":
        narrow = series.half_precision("cpu")
        products = "float32" if narrow is None else f"float32 and {str(narrow).removeprefix('torch.')}"
        if mode == "survey":
            reason = f"CPU, {products} products; bounded to {survey.TOLERANCE:g} nats, whole rows else"
            return completed(Kernel("survey", reason, survey.every_pair, survey.TOLERANCE), _FAST)
        reason = f"CPU, {products} products; bounded to {series.EXACT.tolerance:g} nats, whole rows else"
        return completed(Kernel("moment series", reason, by_series, series.EXACT.tolerance), _FAST)
    missing = missing_for_triton()
    if missing is None:
        from backend.core.kernels import triton_rows as gpu

        return completed(Kernel("Triton", "CUDA; every term is summed, in float32", gpu.every_pair), _FAST)
    return Kernel("row by row", f"{device.type} without Triton, which is faster: {missing}", plain.every_pair)


def completed(kernel: Kernel, computes: frozenset[str]) -> Kernel:
    """A kernel that computes some statistics, with the others from the plain one."""
    others = sorted({field.name for field in fields(PairStatistics)} - computes)
    if not others:
        return kernel

    def every_pair(problem: Ablations, before: Before) -> PairStatistics:
        exact = plain.every_pair(problem, before)
        return replace(kernel.every_pair(problem, before), **{name: getattr(exact, name) for name in others})

    return replace(kernel, reason=f"{kernel.reason}; {', '.join(others)} row by row", every_pair=every_pair)


def by_series(problem: Ablations, before: Before) -> PairStatistics:
    """The CPU's kernel: moment series where they are certified, whole rows elsewhere, ranks from windows.

    For a few tokens, raising all of A to its powers costs more than whole rows do.
    """
    if len(problem.logits) < _FEW_TOKENS:
        return by_rows(problem, before)
    out = problem.room()
    expansion = series.Series(problem, before.predictions, remembered=before.remembered)
    certified = expansion.fill(out)
    spread = rows.Spread(expansion.spread, series.EXACT.order + 1)
    done = rows.fill_rows(problem, before, expansion.mean_a, ~certified, out, spread, fixed=expansion.fixed)
    rows.fill_ranks(problem, before, certified, out)
    if expansion.fixed is not None:
        wanted = ~(done | expansion.fixed_certified)
        rows.fill_fixed(problem, before, expansion.fixed, expansion.mean_a, wanted, out)
    return out


def by_rows(problem: Ablations, before: Before) -> PairStatistics:
    """The compiled loops over whole rows for every pair."""
    out = problem.room()
    everything = torch.ones_like(problem.c, dtype=torch.bool)
    mean_a = problem.path.mean(before.predictions.p)
    fixed = None if problem.fixed_direction is None else FixedDirection.of(problem, before.predictions)
    done = rows.fill_rows(problem, before, mean_a, everything, out, fixed=fixed)
    if fixed is not None:
        rows.fill_fixed(problem, before, fixed, mean_a, ~done, out)
    return out
