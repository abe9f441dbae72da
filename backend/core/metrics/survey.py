"""The survey: the most probable tokens exactly, the tail of the vocabulary to first order, with a bound on the rest.

A prediction has most of its mass on a few hundred tokens. Over those every pair is summed exactly; of the others, what
an ablation does to first order is known exactly too, since with ã = a − Σ p·a

    Σ_tail p·ã = −Σ_head p·ã,        Σ_tail p·l̃·ã = Σ p·l̃·a − Σ_head p·l̃·ã

and Σ p·l̃·a for all pairs is a product through d_model. What is left out of the loss and of the entropy is at most
½·e^{max|X|}·Σ_tail p·(4 + |l̃|)·X² (series.py with N = 1), which one product with A∘A bounds for each pair. Where the
bound is above the tolerance, the whole row is summed.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.core.metrics import compiled, native_survey
from backend.core.metrics.kernels import Before, PairStatistics, Problem
from backend.core.metrics.predictions import Predictions
from backend.core.metrics.series import half_precision

TOLERANCE = 8e-4
"""Largest error of a pair's loss or entropy, in nats."""
_HEAD = 384
_HEAD_ROUNDING, _ROW_ROUNDING = 2e-5, 2e-4
"""What the polynomials may leave out, in nats: of a head, whose tail is approximate too, and of a whole row."""
_NEURONS_AT_ONCE = 256
_LOOPS: Any = native_survey


def every_pair(problem: Problem, before: Before) -> PairStatistics:
    """All pairs, each loss and entropy within TOLERANCE; ranks and argmax changes exactly."""
    out = PairStatistics.empty(problem)
    predictions = before.predictions
    mean_a = problem.path.mean(predictions.p)
    known, spread = _Head(problem, predictions).fill(mean_a, out)
    compiled.fill_rows(problem, before, mean_a, ~known, out, spread, _ROW_ROUNDING)
    compiled.fill_ranks(problem, before, known, out)
    return out


class _Head:
    """The most probable tokens of every position, and what the others sum to."""

    def __init__(self, problem: Problem, predictions: Predictions) -> None:
        self._problem, self._predictions = problem, predictions
        self._order, self._counts = self._select()
        self._p_l, self._tail = torch.empty_like(predictions.p), torch.empty_like(predictions.p)
        self._tail_sums = np.empty((4, len(predictions.p)))
        p, log_p, b, mean_l, mean_b, p_l, tail = compiled.arrays(
            predictions.p, predictions.log_p, compiled.bias(problem), predictions.mean_l[:, 0],
            predictions.mean_b[:, 0], self._p_l, self._tail,
        )  # fmt: skip
        data = (p, log_p, b, problem.b_U is not None, mean_l, mean_b, self._order, self._counts, p_l, tail)
        compiled.over_tokens(len(p), lambda *part: _LOOPS.weigh(*data, self._tail_sums, *part))
        places = torch.from_numpy(self._order).long()
        self._p, self._log_p = predictions.p.gather(1, places), predictions.log_p.gather(1, places)
        self._b = torch.zeros(1, 1) if problem.b_U is None else problem.b_U[places]

    def _select(self) -> tuple[Any, Any]:
        log_p = self._predictions.log_p.numpy()
        order, counts = np.zeros((len(log_p), _HEAD), np.int32), np.zeros(len(log_p), np.int64)
        compiled.over_tokens(len(log_p), lambda *part: _LOOPS.select(log_p, _HEAD, order, counts, *part))
        return order, counts

    def _tail_square(self) -> Tensor:
        """An upper bound of Σ ω·a² over the tail, [tokens, n_neurons]."""
        kind = half_precision("cpu") or torch.float32
        path, tail = self._problem.path, self._tail.to(kind)
        parts = [
            (tail @ path.power(2, kind, slice(start, start + _NEURONS_AT_ONCE)).T).float()
            for start in range(0, len(path.A), _NEURONS_AT_ONCE)
        ]
        return torch.cat(parts, dim=1).mul_(1.02)  # for the rounding of the product

    def fill(self, mean_a: Tensor, out: PairStatistics) -> tuple[Tensor, compiled.Spread]:
        """Write all losses and entropies; returns for which pairs they are within the tolerance, and a's spread."""
        problem, predictions = self._problem, self._predictions
        reach = compiled.Reach.of(problem, predictions, mean_a)
        correct_l, correct_b = predictions.centred_correct()
        head = compiled.arrays(
            problem.path.columns(), torch.from_numpy(self._order), torch.from_numpy(self._counts), self._p, self._log_p,
            self._b,
        )  # fmt: skip
        tokens = compiled.arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0])
        pairs = compiled.arrays(
            self._tail_square(), mean_a, problem.path.mean(self._p_l), problem.c, problem.r - 1,
            reach.degrees(problem, predictions, None, None, _HEAD_ROUNDING), problem.path.A[:, problem.targets].T,
            correct_l, correct_l - correct_b, reach.x, predictions.deepest[:, 0],
        )  # fmt: skip
        data = (*head, problem.b_U is not None, *tokens, *self._tail_sums, *pairs)
        deltas, bound = np.empty((4, *problem.c.shape), np.float32), np.empty(problem.c.shape, np.float32)
        norm = np.empty_like(bound)
        compiled.over_tokens(len(reach.x), lambda *part: _LOOPS.head_effects(*data, *part, deltas, bound, norm))
        names = ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen")
        for name, values in zip(names, torch.from_numpy(deltas), strict=True):
            getattr(out, name).copy_(values)
        known = (reach.farthest <= compiled.FARTHEST) & (torch.from_numpy(bound) <= TOLERANCE)
        return known, compiled.Spread(torch.from_numpy(norm), 2)
