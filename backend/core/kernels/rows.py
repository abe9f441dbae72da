"""The CPU kernels around the loops of `rows_compiled.py`: whole rows for chosen pairs, ranks from windows."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from backend.core.kernels import rows_compiled as native
from backend.core.kernels.plain import chosen_pairs
from backend.core.kernels.problem import TILE, Ablations, Before, CentredAlong, FixedDirection
from backend.core.kernels.sums import write_losses_and_entropies
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions

_TOKENS_AT_ONCE = 64
"""Tokens whose tiles of p and l stay in L2 while the rows of A pass by."""
ROUNDING = 2e-7
"""What the polynomials may leave out, in nats."""
_LOOPS: Any = native
_MANY_PAIRS = 8
"""Pairs a token from which on it pays to look at the mass of tiles."""
_FEW_COLUMNS = 512
"""Rows of Aᵀ that are read for a token's ranks at most; beyond, single entries of A are fewer."""
FARTHEST = 16.0
"""Largest |x| and |z| of the polynomials of degree 12, whose argument is a sixteenth of it."""


@dataclass(frozen=True)
class Spread:
    """An upper bound of (Σ p·(1 + |l̃|)·|x|^order)^{1/order} for every pair, x being the frozen tilt."""

    norm: Float[Tensor, "tokens neurons"]
    order: int


def fill_rows(
    problem: Ablations,
    before: Before,
    mean_a: Float[Tensor, "tokens neurons"],
    wanted: Bool[Tensor, "tokens neurons"],
    out: PairStatistics,
    spread: Spread | None = None,
    rounding: float = ROUNDING,
    fixed: FixedDirection | None = None,
) -> Bool[Tensor, "tokens neurons"]:
    """Fill everything of `out` for the wanted pairs from whole rows of logits; where a direction is fixed, returns for
    which of them `delta_loss_freq` is filled too: not where it takes the logits far.

    Args:
        mean_a: Σ p·a.
        spread: what is known of x under p, which lets lower polynomials do; without it their degree follows max |x|.
        rounding: what the polynomials may leave out, in nats.
    """
    problem.require_no_softcap("row by row, compiled")
    predictions = before.predictions
    moved = moved_along(problem, predictions)
    reach = Reach.of(problem, predictions, mean_a, moved)
    wild = wanted & (reach.farthest > FARTHEST)
    for t in wild.any(dim=1).nonzero().flatten().tolist():
        chosen_pairs(problem, before, t, wild[t].nonzero().squeeze(1), out)
    pairs = in_blocks(wanted & ~wild)
    near = wanted if fixed is None else wanted & (wild | (fixed.along.e.abs() * fixed.farthest <= native.NEAR))
    if not len(pairs[0]):
        return near
    degrees = Degrees.of(reach, problem, predictions, pairs, spread, rounding)
    sums, above = _sums(problem, before, (moved, fixed), mean_a, pairs, degrees)
    write_losses_and_entropies(problem, predictions, mean_a, pairs, sums[:, :4], out)
    out.rank[pairs] = above[:, 0] + 1
    out.changed[pairs] = above[:, 1] > 0
    if fixed is not None and out.delta_loss_freq is not None:
        partition = (sums[:, 0] + sums[:, 2] + sums[:, 4]).log1p()
        x_correct = fixed.x_correct(problem, predictions, mean_a)[pairs]
        out.delta_loss_freq[pairs] = (partition - x_correct).float()
    return near


def fill_fixed(
    problem: Ablations,
    before: Before,
    fixed: FixedDirection,
    mean_a: Float[Tensor, "tokens neurons"],
    wanted: Bool[Tensor, "tokens neurons"],
    out: PairStatistics,
    rounding: float = ROUNDING,
) -> None:
    """Fill `out.delta_loss_freq` of the wanted pairs from whole rows of logits.

    Args:
        mean_a: Σ p·a.
        rounding: what the polynomials may leave out, in nats.
    """
    assert out.delta_loss_freq is not None
    predictions = before.predictions
    moved = moved_along(problem, predictions)
    # What the frozen tilt reaches grows by r when the norm is recomputed.
    reach = problem.r * Reach.of(problem, predictions, mean_a, moved).x + problem.total.q.abs() * predictions.deepest
    reach += fixed.along.e.abs() * fixed.farthest
    wild = wanted & (reach > FARTHEST)
    _fill_wild(problem, before, wild, out)
    pairs = in_blocks(wanted & ~wild)
    if not len(pairs[0]):
        return
    sums = _sums_along(problem, predictions, fixed, moved, mean_a, pairs, rounding)
    x_correct = fixed.x_correct(problem, predictions, mean_a)[pairs]
    out.delta_loss_freq[pairs] = (sums.log1p() - x_correct).float()


def _fill_wild(problem: Ablations, before: Before, wild: Tensor, out: PairStatistics) -> None:
    """The plain kernel writes all of a pair; of it only this loss is taken, so that nothing else depends on it."""
    exact = problem.room()
    for t in wild.any(dim=1).nonzero().flatten().tolist():
        chosen_pairs(problem, before, t, wild[t].nonzero().squeeze(1), exact)
    if out.delta_loss_freq is not None and exact.delta_loss_freq is not None:
        out.delta_loss_freq[wild] = exact.delta_loss_freq[wild]


def _sums_along(
    problem: Ablations,
    predictions: Predictions,
    fixed: FixedDirection,
    moved: CentredAlong | None,
    mean_a: Tensor,
    pairs: tuple[Tensor, Tensor],
    rounding: float,
) -> Tensor:
    """Σ p·(e^X − 1) by pair, float64, over all cores."""
    tokens, rows = pairs
    path, has_b = problem.path, problem.b_U is not None
    mass = torch.stack([part.sum(dim=1) for part in torch.split(predictions.p, TILE, dim=1)], dim=1)
    p, log_p, A, sizes, b, v = arrays(
        predictions.p, predictions.log_p, path.A, path.tile_size, bias(problem), torch.atleast_2d(fixed.along.v)
    )
    other, has_v, mean_v, farthest, e = moved_arrays(moved, problem.c)
    mean_u, mean_fixed, deepest, farthest_fixed, masses = arrays(
        predictions.mean_l[:, 0] - predictions.mean_b[:, 0], fixed.mean[:, 0], predictions.deepest[:, 0],
        fixed.farthest[:, 0], mass,
    )  # fmt: skip
    by_token = (mean_u, mean_v, mean_fixed, deepest, farthest, farthest_fixed, masses)
    q, d = problem.total.q[pairs], problem.total.d[pairs]
    by_pair = arrays(mean_a[pairs], rows.int(), tokens.int(), d, q, (problem.r * e)[pairs], fixed.along.e[pairs])
    sums = torch.empty(len(tokens), dtype=torch.float64)
    data = (p, log_p, A, sizes, b, has_b, other, v, has_v, *by_token, rounding / mass.shape[1], *by_pair)
    filled = sums.numpy()
    jobs = pairwise(cuts(tokens))
    in_parallel(lambda job: _LOOPS.sum_along(*data, *job, filled), jobs)
    return sums


def fill_ranks(problem: Ablations, before: Before, wanted: Bool[Tensor, "tokens neurons"], out: PairStatistics) -> None:
    """Fill rank and changed of the wanted pairs, exactly."""
    reach = torch.stack((_movement(problem, problem.targets), _movement(problem, before.top)), dim=2)
    more = np.zeros(tuple(wanted.shape), np.int32)
    beaten = np.zeros(tuple(wanted.shape), np.bool_)
    logits, A, b, c, q = arrays(problem.logits, problem.path.A, bias(problem), problem.c, problem.r - 1)
    rest = wanted.numpy().copy()
    if problem.along is None:
        v, e = arrays(torch.zeros(1, 1), torch.zeros(1, c.shape[1]))
    else:
        v, e = arrays(torch.atleast_2d(problem.along.v), problem.along.e)
    tilt = (b, problem.b_U is not None, v, problem.along is not None, c, q, e)
    per_pair = (*tilt, rest, *arrays(reach, problem.targets, before.top))
    columns = problem.path.kept_columns()
    if columns is not None:
        done = np.zeros(len(wanted), np.bool_)
        data = (logits, columns.numpy(), *per_pair, _FEW_COLUMNS)
        over_tokens(len(wanted), lambda *part: _LOOPS.column_ranks(*data, *part, more, beaten, done))
        rest[done] = False
    size = -(-len(wanted) // _workers())

    def work(start: int) -> None:
        stop = min(start + size, len(wanted))
        _LOOPS.window_ranks(logits, A, *per_pair, start, stop, more, beaten)

    in_parallel(work, range(0, len(wanted), size))
    ranks = before.rank[:, None] + torch.from_numpy(more)
    out.rank.copy_(torch.where(wanted, ranks, out.rank))
    out.changed.copy_(torch.where(wanted, torch.from_numpy(beaten), out.changed))


def _movement(problem: Ablations, tokens: Tensor) -> Tensor:
    """How near a token's logit must be to that of one token a row for the two to change sides; [tokens, neurons]."""
    c, path = problem.c, problem.path
    of_tokens = c * path.of_tokens(tokens)
    highest, lowest = torch.maximum(c * path.highest, c * path.lowest), torch.minimum(c * path.highest, c * path.lowest)
    movement = torch.maximum(highest - of_tokens, of_tokens - lowest)
    if problem.along is not None:
        v = problem.along.v
        at, above, below = problem.along.of_tokens(tokens), v.amax(dim=-1), v.amin(dim=-1)
        movement = movement + problem.along.e.abs() * torch.maximum(above - at, at - below)[:, None]
    if problem.b_U is None:
        return movement
    # The recomputed norm moves them by q·(their distance, the movement and what their biases differ) on top.
    q = (problem.r - 1).abs()
    b = problem.b_U[tokens][:, None]
    apart = torch.maximum(problem.b_U.max() - b, b - problem.b_U.min())
    near = ((1 + q) * movement + q * apart) / (1 - q)
    return torch.where(q < 0.5, near, torch.inf)


def bias(problem: Ablations) -> Float[Tensor, "d_vocab"] | Float[Tensor, "1"]:
    """b_U, or something in its place where there is none."""
    return torch.zeros(1) if problem.b_U is None else problem.b_U


def moved_along(problem: Ablations, predictions: Predictions) -> CentredAlong | None:
    """The direction along which a norm after the MLP moves the logits, under p; None where there is none."""
    return None if problem.along is None else CentredAlong.under(problem.along, problem.targets, predictions)


def moved_arrays(moved: CentredAlong | None, like: Tensor) -> tuple[Any, bool, Any, Any, Tensor]:
    """Its rows, whether there is one, Σ p·v, max |ṽ|, and e of the frozen tilt; zeros in the place of none."""
    if moved is None:
        nothing = np.zeros(len(like), np.float32)
        return np.zeros((1, 1), np.float32), False, nothing, nothing, torch.zeros_like(like)
    v, mean, farthest = arrays(torch.atleast_2d(moved.along.v), moved.mean[:, 0], moved.farthest.expand_as(moved.mean))
    return v, True, mean, farthest[:, 0], moved.along.e


@dataclass(frozen=True)
class Reach:
    """How large x and z = q·(y − b̃) get, which decides the polynomials that e^x and e^z need; x = c·ã, and e·ṽ more
    where a norm after the MLP moves the logits along a direction."""

    x: Float[Tensor, "tokens neurons"]
    """max |x|"""
    z: Float[Tensor, "tokens neurons"]
    """An upper bound of max |z|."""

    @classmethod
    def of(
        cls,
        problem: Ablations,
        predictions: Predictions,
        mean_a: Float[Tensor, "tokens neurons"],
        moved: CentredAlong | None,
    ) -> "Reach":
        """Of every pair; mean_a: Σ p·a, moved: `moved_along`."""
        x = problem.c.abs() * (problem.path.size + mean_a.abs())
        if moved is not None:
            x = x + moved.along.e.abs() * moved.farthest
        return cls(x, (problem.r - 1).abs() * (predictions.deepest + x))

    @property
    def farthest(self) -> Float[Tensor, "tokens neurons"]:
        """The larger of the two."""
        return torch.maximum(self.x, self.z)

    def degrees(self, rounding: float) -> Int[Tensor, "tokens neurons"]:
        """The lowest degrees that leave out no more than `rounding`, in nats, whatever the distribution."""
        return _degrees(self.x, self.z, (0, 0), (torch.ones_like(self.x), torch.ones_like(self.z)), rounding)


def _degrees(x: Tensor, z: Tensor, orders: tuple[int, int], sizes: tuple[Tensor, Tensor], rounding: float) -> Tensor:
    """Degrees, numbered as in `rows_compiled.py`, [tokens, neurons].

    sizes: bounds of Σ p·(1 + |l̃|)·|x|^order and of Σ p·(1 + |l̃|)·|z|^order.
    """
    growth = (x + z).exp()

    def needed(v: Tensor, order: int, size: Tensor) -> Tensor:
        steps = torch.zeros_like(v, dtype=torch.int32)
        for degree in (3, 6):
            steps += size * v ** (degree + 1 - order) * growth / factorial(degree + 1) > rounding / 2
        return torch.where(v > native.NEAR, native.FAR, steps * (native.SIXTH - native.THIRD))

    of_x, of_z = needed(x, orders[0], sizes[0]), needed(z, orders[1], sizes[1])
    return torch.maximum(of_x, of_z) + (of_z > native.THIRD).int()


@dataclass(frozen=True)
class Degrees:
    """Which polynomial a pair needs over all of the vocabulary, and what lets a lower one do in some tiles of it."""

    of_pairs: Int[Tensor, "pairs"]
    mass: Float32[NDArray[np.float32], "tokens tiles"]
    """Σ p·(1 + |l̃|) by tile."""
    allowed: float
    """What a tile may leave out, in nats."""

    @classmethod
    def of(
        cls,
        reach: Reach,
        problem: Ablations,
        predictions: Predictions,
        pairs: tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]],
        spread: Spread | None,
        rounding: float = ROUNDING,
    ) -> "Degrees":
        """Of some pairs (tokens, rows); spread and rounding are those of `fill_rows`."""
        tokens, d_vocab = predictions.p.shape
        mass = np.full((tokens, -(-d_vocab // TILE)), np.inf, np.float32)
        fourth = np.empty(tokens, np.float32)
        if spread is not None or len(pairs[0]) > _MANY_PAIRS * tokens:
            data = arrays(predictions.p, predictions.log_p, bias(problem))
            means = arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0])
            has_b = problem.b_U is not None
            over_tokens(tokens, lambda *part: _LOOPS.tile_masses(*data, has_b, *means, mass, fourth, *part))
        x, z = reach.x[pairs], reach.z[pairs]
        orders, sizes = (0, 0), (torch.ones_like(x), torch.ones_like(z))
        if spread is not None:
            x_norm = spread.norm[pairs]
            z_norm = (problem.r - 1)[pairs].abs() * (torch.from_numpy(fourth).pow(1 / 4)[pairs[0]] + x_norm)
            orders, sizes = (spread.order, 4), (x_norm**spread.order, z_norm**4)
        return cls(_degrees(x, z, orders, sizes, rounding), mass, rounding / mass.shape[1])


def in_blocks(wanted: Bool[Tensor, "tokens neurons"]) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Tokens and rows of the wanted pairs, by blocks of tokens and there by row."""
    parts = []
    for start in range(0, len(wanted), _TOKENS_AT_ONCE):
        rows, tokens = wanted[start : start + _TOKENS_AT_ONCE].T.nonzero(as_tuple=True)
        parts.append((tokens + start, rows))
    tokens, rows = (torch.cat(column) for column in zip(*parts, strict=True))
    return tokens, rows


def _sums(
    problem: Ablations,
    before: Before,
    directions: tuple[CentredAlong | None, FixedDirection | None],
    mean_a: Tensor,
    pairs: tuple[Tensor, Tensor],
    degrees: Degrees,
) -> tuple[Tensor, Tensor]:
    """`native.sum_pairs` over all cores: sums [pairs, 5] (float64) and counts above [pairs, 2]."""
    tokens, rows = pairs
    sums, above = np.empty((len(tokens), 5)), np.empty((len(tokens), 2), np.int64)
    has_b, path, predictions = problem.b_U is not None, problem.path, before.predictions
    p, log_p, A, sizes, b = arrays(predictions.p, predictions.log_p, path.A, path.tile_size, bias(problem))
    mean_l, mean_b, deepest = arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0], predictions.deepest[:, 0])
    (v, has_v, mean_v, far_v, e_v), (w, has_w, mean_w, far_w, e_w) = (moved_arrays(d, problem.c) for d in directions)
    by_token = (mean_l, mean_b, mean_v, mean_w, deepest, far_v, far_w, degrees.mass, degrees.allowed)
    by_pair = arrays(
        mean_a[pairs], rows.int(), tokens.int(), problem.c[pairs], (problem.r - 1)[pairs], e_v[pairs], e_w[pairs],
        degrees.of_pairs, problem.targets, before.top,
    )  # fmt: skip
    data = (p, log_p, A, sizes, b, has_b, v, has_v, w, has_w, *by_token, *by_pair)
    in_parallel(lambda job: _LOOPS.sum_pairs(*data, *job, sums, above), pairwise(cuts(tokens)))
    return torch.from_numpy(sums), torch.from_numpy(above)


def cuts(tokens: Int[Tensor, "pairs"]) -> list[int]:
    """Where to cut a list of pairs, as `in_blocks` orders them, into jobs.

    A job stays within a block of tokens; rows go round the cores in pieces small enough to even out.
    """
    ends = np.flatnonzero(np.diff((tokens // _TOKENS_AT_ONCE).numpy())) + 1
    size = max(16, len(tokens) // (8 * _workers()))
    return sorted({0, len(tokens), *ends.tolist(), *range(0, len(tokens), size)})


def over_tokens(count: int, work: Callable[[int, int], Any]) -> None:
    """Call work(first, last) for parts of the tokens, on all cores."""
    size = max(1, -(-count // (4 * _workers())))
    in_parallel(lambda first: work(first, min(first + size, count)), range(0, count, size))


def arrays(*tensors: Shaped[Tensor, "..."]) -> list[Any]:
    """Tensors as the contiguous arrays that the compiled loops take."""
    return [tensor.contiguous().numpy() for tensor in tensors]


def _workers() -> int:
    return max(1, torch.get_num_threads())


def in_parallel(work: Callable[[Any], Any], jobs: Iterable[Any]) -> None:
    """Run jobs that release the interpreter's lock on all cores; the first error is raised."""
    with ThreadPoolExecutor(_workers()) as pool:
        for _ in pool.map(work, jobs):
            pass
