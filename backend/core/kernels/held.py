"""The change of loss with a direction of the logits held (Eq. 8): what the fast kernels need, and their whole rows.

With y′ the ablated logits, L those before and v̂ the direction, the held logits are y′ − κ·v̂, κ = (y′ − L)·v̂. Since
y′ − L = q·u + d·A_i with u = L − b_U, q = r − 1 and d = r·c, they are p tilted by e^X with

    X = q·ũ + d·ã + e·ṽ,    e = −κ = −(q·(u·v̂) + d·(A_i·v̂)),    ṽ = v̂ − Σ p·v̂

and the loss changes by log Σ p·e^X − X_correct. A_i·v̂ is one number a neuron, u·v̂ one a token: nothing is summed over
the vocabulary for κ.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from backend.core.kernels import held_compiled as native_held
from backend.core.kernels import rows as compiled
from backend.core.kernels.plain import chosen_pairs
from backend.core.kernels.problem import TILE, Before, PairStatistics, Problem
from backend.core.metrics.predictions import Predictions

_LOOPS: Any = native_held


@dataclass(frozen=True)
class Held:
    """The held direction at every token."""

    v: Tensor
    """v̂, [d_vocab]"""
    mean: Tensor
    """Σ p·v̂, [tokens, 1] as the next two."""
    farthest: Tensor
    """max |ṽ|"""
    correct: Tensor
    """ṽ of the correct token."""
    e: Tensor
    """−κ, [tokens, n_neurons]"""

    @classmethod
    def of(cls, problem: Problem, predictions: Predictions) -> "Held":
        """Of a problem that has a direction."""
        v, path = problem.direction, problem.path
        assert v is not None
        mean = (predictions.p @ v)[:, None]
        # v̂ has mean 0, so that the constant by which log p and the logits differ is nothing along it.
        u_along = predictions.log_p @ v - predictions.mean_l[:, 0] * v.sum()
        if problem.b_U is not None:
            u_along = u_along - problem.b_U @ v
        a_along = path.W_out @ (path.W_U @ v)
        e = -((problem.r - 1) * u_along[:, None] + problem.r * problem.c * a_along)
        farthest = torch.maximum(v.max() - mean, mean - v.min())
        return cls(v, mean, farthest, v[problem.targets][:, None] - mean, e)

    def x_correct(self, problem: Problem, predictions: Predictions, mean_a: Tensor) -> Tensor:
        """X of the correct token, [tokens, n_neurons], float64; mean_a: Σ p·a."""
        l_correct, b_correct = predictions.centred_correct()
        q, d = problem.r.double() - 1, problem.r.double() * problem.c
        a_correct = problem.path.of_tokens(problem.targets).double() - mean_a
        return q * (l_correct - b_correct)[:, None] + d * a_correct + self.e.double() * self.correct


def fill_held(
    problem: Problem, before: Before, held: Held, mean_a: Tensor, wanted: Tensor, out: PairStatistics,
    rounding: float = compiled.ROUNDING,
) -> None:  # fmt: skip
    """Fill `out.delta_loss_freq` of the wanted pairs, [tokens, n_neurons], from whole rows of logits.

    Args:
        mean_a: Σ p·a, [tokens, n_neurons].
        rounding: what the polynomials may leave out, in nats.
    """
    assert out.delta_loss_freq is not None
    predictions = before.predictions
    d = problem.r * problem.c
    reach = d.abs() * (problem.path.size + mean_a.abs()) + (problem.r - 1).abs() * predictions.deepest
    reach += held.e.abs() * held.farthest
    wild = wanted & (reach > compiled.FARTHEST)
    _fill_wild(problem, before, wild, out)
    pairs = compiled.in_blocks(wanted & ~wild)
    if not len(pairs[0]):
        return
    sums = _sums(problem, predictions, held, mean_a, pairs, rounding)
    x_correct = held.x_correct(problem, predictions, mean_a)[pairs]
    out.delta_loss_freq[pairs] = (sums.log1p() - x_correct).float()


def _fill_wild(problem: Problem, before: Before, wild: Tensor, out: PairStatistics) -> None:
    """The plain kernel writes all of a pair; of it only this loss is taken, so that nothing else depends on it."""
    own = PairStatistics.empty(problem)
    for t in wild.any(dim=1).nonzero().flatten().tolist():
        chosen_pairs(problem, before, t, wild[t].nonzero().squeeze(1), own)
    if out.delta_loss_freq is not None and own.delta_loss_freq is not None:
        out.delta_loss_freq[wild] = own.delta_loss_freq[wild]


def _sums(
    problem: Problem,
    predictions: Predictions,
    held: Held,
    mean_a: Tensor,
    pairs: tuple[Tensor, Tensor],
    rounding: float,
) -> Tensor:
    """Σ p·(e^X − 1) by pair, float64, over all cores."""
    tokens, rows = pairs
    path, has_b = problem.path, problem.b_U is not None
    mass = torch.stack([part.sum(dim=1) for part in torch.split(predictions.p, TILE, dim=1)], dim=1)
    p, log_p, A, sizes, b, v = compiled.arrays(
        predictions.p, predictions.log_p, path.A, path.tile_size, compiled.bias(problem), held.v
    )
    by_token = compiled.arrays(
        predictions.mean_l[:, 0] - predictions.mean_b[:, 0], held.mean[:, 0], predictions.deepest[:, 0],
        held.farthest[:, 0], mass,
    )  # fmt: skip
    q, d = (problem.r - 1)[pairs], (problem.r * problem.c)[pairs]
    by_pair = compiled.arrays(mean_a[pairs], rows.int(), tokens.int(), d, q, held.e[pairs])
    sums = torch.empty(len(tokens), dtype=torch.float64)
    data = (p, log_p, A, sizes, b, has_b, v, *by_token, rounding / mass.shape[1], *by_pair)
    found = sums.numpy()
    jobs = pairwise(compiled.cuts(tokens))
    compiled.in_parallel(lambda job: _LOOPS.sum_held(*data, *job, found), jobs)
    return sums
