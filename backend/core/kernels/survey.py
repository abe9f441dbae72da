"""The survey: the most probable tokens exactly, the tail of the vocabulary to first order, with a bound on the rest.

A prediction has most of its mass on a few hundred tokens. Over those every pair is summed exactly; of the others, what
an ablation does to first order is known exactly too, since with ã = a − Σ p·a

    Σ_tail p·ã = −Σ_head p·ã,        Σ_tail p·l̃·ã = Σ p·l̃·a − Σ_head p·l̃·ã

and Σ p·l̃·a for all pairs is a product through d_model. What is left out of the loss and of the entropy is at most
¼·(1 + e^{max|X|})·Σ_tail p·(4 + |l̃|)·X² (series.py with N = 1), which one product with A∘A bounds for each pair. Where
the bound is above the tolerance, more of the probable tokens are summed; where thousands do not suffice, the whole row.

A direction along which a norm after the MLP moves the logits is part of X: what it does to first order is known exactly
too, and one more sum over the tail bounds the rest.

The loss beside a fixed direction has no head of its own yet: it comes from the moment series of order 2 and
whole rows, within the same tolerance, and costs more than all the rest of a survey.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.core.kernels import rows as compiled
from backend.core.kernels import survey_compiled as native_survey
from backend.core.kernels.problem import Ablations, Before
from backend.core.kernels.series import Accuracy, Series, Weight, half_precision
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions

TOLERANCE = 8e-4
"""Largest error of a pair's loss or entropy, in nats."""
_CUTS = (128, 256, 512, 1024, 2048, 4096)
"""Most probable tokens summed exactly: of every pair, and of pairs whose bound is not yet small enough."""
_HEAD_ROUNDING, _ROW_ROUNDING = 2e-5, 2e-4
"""What the polynomials may leave out, in nats: of a head, whose tail is approximate too, and of a whole row."""
_NEURONS_AT_ONCE = 256
_LOOPS: Any = native_survey
_FIXED = Accuracy(order=2, half_from=2, tolerance=TOLERANCE / 2)


def every_pair(problem: Ablations, before: Before) -> PairStatistics:
    """All pairs, each loss and entropy within TOLERANCE; ranks and argmax changes exactly."""
    out = problem.room()
    predictions = before.predictions
    # Without a fixed direction the series is not summed: its means of A alone are taken.
    expansion = Series(problem, predictions, _FIXED, losses_only=True, remembered=before.remembered)
    mean_a, fixed = expansion.mean_a, expansion.fixed
    known, spread = _Head(problem, predictions).fill(expansion, out)
    done = compiled.fill_rows(problem, before, mean_a, ~known, out, spread, _ROW_ROUNDING, fixed)
    compiled.fill_ranks(problem, before, known, out)
    if fixed is not None:
        rest = expansion.fill_fixed(out, ~done)
        compiled.fill_fixed(problem, before, fixed, mean_a, rest, out, _ROW_ROUNDING)
    return out


class _Head:
    """The most probable tokens of every position, and what the others sum to."""

    def __init__(self, problem: Ablations, predictions: Predictions) -> None:
        self._problem, self._predictions = problem, predictions
        tokens, d_vocab = predictions.p.shape
        self._cuts = np.unique(np.minimum(_CUTS, d_vocab))
        self._order = self._select(tokens, int(self._cuts[-1]))
        kind = half_precision("cpu")
        self._p_l = torch.empty_like(predictions.p)
        self._tail = torch.empty_like(predictions.p, dtype=kind or torch.float32)
        self._tails = np.empty((len(self._cuts), 5, tokens))
        self._mean_lv = np.empty(tokens)
        self._moved = compiled.moved_along(problem, predictions)
        v, self._has_v, self._mean_v, _, _ = compiled.moved_arrays(self._moved, problem.c)
        data = compiled.arrays(
            predictions.p, predictions.log_p, compiled.bias(problem), predictions.mean_l[:, 0],
            predictions.mean_b[:, 0], self._p_l,
        )  # fmt: skip
        p, log_p, b, mean_l, mean_b, p_l = data
        whole = self._tail.numpy() if kind is None else np.empty((0, 0), np.float32)
        half = np.empty((0, 0), np.uint16) if kind is None else self._tail.view(torch.uint16).numpy()
        has_b, means = problem.b_U is not None, (mean_l, mean_b, self._mean_v)
        data = [p, log_p, b, has_b, v, self._has_v, *means, self._order, self._cuts, p_l, whole, half]
        compiled.over_tokens(tokens, lambda *part: _LOOPS.weigh(*data, self._tails, self._mean_lv, *part))

    def _select(self, tokens: int, most: int) -> Any:
        log_p, order = self._predictions.log_p, np.empty((tokens, most), np.int32)
        data = compiled.arrays(log_p, log_p.amax(dim=1))
        compiled.over_tokens(tokens, lambda *part: _LOOPS.select(*data, order, *part))
        return order

    def _listed(self, most: int) -> Any:
        """The first tokens of the order, with p, log p, b_U and v of each, [tokens, most]."""
        order, b_U = torch.from_numpy(self._order[:, :most]), self._problem.b_U
        p, log_p = (values.gather(1, order.long()) for values in (self._predictions.p, self._predictions.log_p))
        b, along = torch.zeros(1, 1) if b_U is None else b_U[order.long()], self._problem.along
        if along is None:
            v = torch.zeros(1, 1)
        else:
            v = along.v[order.long()] if along.v.ndim == 1 else along.v.gather(1, order.long())
        return tuple(compiled.arrays(order, p, log_p, b, v))

    def _tail_square(self) -> Tensor:
        """An upper bound of Σ ω·a² over the tail, [tokens, neurons]."""
        path, tail = self._problem.path, self._tail
        parts = [
            (tail @ path.power(2, tail.dtype, slice(start, start + _NEURONS_AT_ONCE)).T).float()
            for start in range(0, len(path.A), _NEURONS_AT_ONCE)
        ]
        return torch.cat(parts, dim=1).mul_(1.02)  # for the rounding of the product

    def fill(self, expansion: Series, out: PairStatistics) -> tuple[Tensor, compiled.Spread]:
        """Write all losses and entropies; returns for which pairs they are within the tolerance, and a's spread."""
        problem, predictions, mean_a = self._problem, self._predictions, expansion.mean_a
        mean_la = expansion.mean(Weight(j=1)) if problem.b_U is None else problem.path.mean(self._p_l)
        reach = compiled.Reach.of(problem, predictions, mean_a, self._moved)
        correct_l, correct_b = predictions.centred_correct()
        tokens = tuple(compiled.arrays(correct_l - correct_b, predictions.deepest[:, 0]))
        means = (*compiled.arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0]), self._mean_v)
        (square,) = compiled.arrays(self._tail_square())
        x_correct = problem.c * (problem.path.of_tokens(problem.targets) - mean_a)
        mean_lx, e = problem.c * mean_la, torch.zeros_like(problem.c[:1])
        if self._moved is not None:
            e = self._moved.along.e
            x_correct += e * self._moved.correct
            mean_lx += e * torch.from_numpy(self._mean_lv).float()[:, None]
        degrees = reach.degrees(_HEAD_ROUNDING)
        pairs = tuple(
            compiled.arrays(problem.c, problem.r - 1, e, mean_a, mean_lx, reach.x, x_correct, degrees)
        )  # fmt: skip
        has_b, shape = problem.b_U is not None, problem.c.shape
        deltas, bound, norm = (np.empty((*shape, *more), np.float32) for more in ((4,), (), ()))
        head = (self._listed(self._cuts[0]), has_b, self._has_v, *means, self._tails[0], square, pairs, tokens)
        (columns,) = compiled.arrays(problem.path.columns())
        compiled.over_tokens(len(bound), lambda *part: _LOOPS.head_effects(columns, *head, *part, deltas, bound, norm))

        near = reach.farthest <= compiled.FARTHEST
        columns, rows = (near & (torch.from_numpy(bound) > TOLERANCE)).T.nonzero(as_tuple=True)
        some = compiled.arrays(rows, columns)
        kinds = (has_b, self._has_v)
        deeper = (self._listed(self._cuts[-1]), *kinds, *means, self._cuts, self._tails, square, pairs, tokens, *some)
        (A,) = compiled.arrays(problem.path.A)
        compiled.over_tokens(
            len(rows), lambda *part: _LOOPS.deeper_effects(A, *deeper, TOLERANCE, *part, deltas, bound)
        )
        names = ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen")
        for name, values in zip(names, torch.from_numpy(deltas).unbind(dim=2), strict=True):
            getattr(out, name).copy_(values)
        return near & (torch.from_numpy(bound) <= TOLERANCE), compiled.Spread(torch.from_numpy(norm), 2)
