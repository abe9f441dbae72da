"""Whole rows for chosen pairs on a CPU where the logits have a soft-cap, C·tanh(y/C).

Without it an ablation takes the logits l to l + x; with it from L = C·tanh(l/C) to L + D, and as
tanh(α + β) = (tanh α + tanh β)/(1 + tanh α·tanh β),

    D = C·(1 − t²)·τ/(1 + t·τ),    t = tanh(l/C),   τ = tanh(x/C)

keeps the digits of a small change. p is what the capped logits predict; with D₀ the correct token's D one pass sums

    Σ p·(e^{D − D₀} − 1)    Σ p·(e^{D − D₀} − 1)·(l̃ + D − D₀)    Σ p·(D − D₀)

for the frozen x = c·a + e·v and the total r·x + q·(l − b), and for the latter Σ v̂·D, with which another pass keeps the
capped logits' component along v̂ as it was, and Σ P_freq·D, from which the change of D_KL(P_freq‖p) follows. Nothing is
centred before the cap, under which a constant matters. Order is that of y, as tanh is monotone.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from backend.core.kernels import rows
from backend.core.kernels import rows_capped_compiled as native_capped
from backend.core.kernels.plain import chosen_pairs
from backend.core.kernels.problem import Ablations, Before
from backend.core.metrics.effects import PairStatistics

_STEEPEST = 1.0
"""Largest |x|/C for which the loops' quotient is tanh to float32's rounding."""
_LOOPS: Any = native_capped


def every_pair(problem: Ablations, before: Before) -> PairStatistics:
    """All pairs of ablations that have a soft-cap; those that take the logits far are left to the plain kernel."""
    out, cap = problem.room(), problem.softcap
    assert cap is not None
    reach = _reach(problem)
    wild = ~((2 * reach <= rows.FARTHEST) & (reach <= _STEEPEST * cap))
    if problem.fixed_direction is not None:
        # What is taken out reaches |Σ v̂·D|·max |v̂| ≤ max |D|·Σ |v̂|·max |v̂|.
        v = problem.fixed_direction
        widest = v.abs().amax(dim=-1, keepdim=True) * v.abs().sum(dim=-1, keepdim=True)
        wild |= ~(2 * reach * (1 + widest) <= rows.FARTHEST)
    for t in wild.any(dim=1).nonzero().flatten().tolist():
        chosen_pairs(problem, before, t, wild[t].nonzero().squeeze(1), out)
    pairs = rows.in_blocks(~wild)
    if len(pairs[0]):
        _write(problem, before, pairs, *_summed(problem, before, cap, reach, pairs), out)
    return out


def _reach(problem: Ablations) -> Float[Tensor, "tokens neurons"]:
    """A bound of |x|, and so of |D|, over the frozen and the total tilt."""
    x = problem.c.abs() * problem.path.size
    if problem.along is not None:
        x = x + problem.along.e.abs() * problem.along.v.abs().amax(dim=-1, keepdim=True)
    u = problem.logits if problem.b_U is None else problem.logits - problem.b_U
    return torch.maximum(x, problem.r * x + (problem.r - 1).abs() * u.abs().amax(dim=1, keepdim=True))


def _summed(
    problem: Ablations, before: Before, cap: float, reach: Tensor, pairs: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """`sum_capped` over all cores: sums [pairs, 9] (float64) and counts above [pairs, 2]."""
    tokens, neurons = pairs
    predictions, along, fixed = before.predictions, problem.along, problem.fixed_direction
    t = (problem.logits.double() / cap).tanh()
    absent = torch.zeros(1, 1)
    inputs = rows.arrays(
        predictions.p, predictions.log_p, problem.logits, t.float(), (cap * (1 - t.square())).float(), problem.path.A,
        rows.bias(problem), absent if along is None else torch.atleast_2d(along.v),
        absent if fixed is None else torch.atleast_2d(fixed), absent[0] if problem.p_freq is None else problem.p_freq,
        predictions.mean_l[:, 0],
    )  # fmt: skip
    p, log_p, logits, t_rows, slopes, A, b, v, v_fixed, p_freq, mean_l = inputs
    widest = np.abs(v_fixed).max(axis=1)
    kinds = (problem.b_U is not None, along is not None, fixed is not None, problem.p_freq is not None)
    e = torch.zeros_like(problem.c) if along is None else along.e
    by_pair = rows.arrays(
        neurons.int(), tokens.int(), problem.c[pairs], (problem.r - 1)[pairs], e[pairs], 2 * reach[pairs],
        problem.targets, before.top,
    )  # fmt: skip
    sums, above = np.empty((len(tokens), 9)), np.empty((len(tokens), 2), np.int64)
    data = (
        p, log_p, logits, t_rows, slopes, A, b, kinds[0], v, kinds[1], v_fixed, widest, kinds[2], p_freq, kinds[3],
        np.float32(1 / cap), mean_l, *by_pair,
    )  # fmt: skip
    rows.in_parallel(lambda job: _LOOPS.sum_capped(*data, *job, sums, above), pairwise(rows.cuts(tokens)))
    return torch.from_numpy(sums), torch.from_numpy(above)


def _write(
    problem: Ablations, before: Before, pairs: tuple[Tensor, Tensor], sums: Tensor, above: Tensor, out: PairStatistics
) -> None:
    """Losses, entropies, ranks and what else is asked for, from the sums over whole rows."""
    frozen, frozen_y, frozen_x, total, total_y, total_x, expected, _, beside = sums.unbind(dim=1)
    # D₀ of the correct token is 0 in these sums: the loss changes by the logarithm alone.
    out.delta_loss_frozen[pairs] = frozen.log1p().float()
    out.delta_entropy_frozen[pairs] = (frozen.log1p() - (frozen_y + frozen_x) / (1 + frozen)).float()
    out.delta_loss[pairs] = total.log1p().float()
    out.delta_entropy[pairs] = (total.log1p() - (total_y + total_x) / (1 + total)).float()
    out.rank[pairs] = above[:, 0] + 1
    out.changed[pairs] = above[:, 1] > 0
    if out.delta_loss_freq is not None:
        out.delta_loss_freq[pairs] = beside.log1p().float()
    if out.delta_kl is not None:
        out.delta_kl[pairs] = (total.log1p() - expected).float()
