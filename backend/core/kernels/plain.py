"""The plain kernel, exact on any device: the one that others are measured against, and that takes over from them.

Every pair is a row of the vocabulary, tilted in three steps (problem.py): frozen, from it total, and from that the one
beside a fixed direction.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from backend.core.kernels.problem import Ablations, Before
from backend.core.metrics.distributions import count_above, normalise
from backend.core.metrics.effects import PairStatistics

_SLAB_BYTES = {"cpu": 3 << 20, "cuda": 1 << 30}
"""Size of one slab of ablated logits: on a CPU it should stay in cache between the passes over it."""


def every_pair(problem: Ablations, before: Before) -> PairStatistics:
    """All pairs, row by row."""
    tokens, n_neurons = problem.c.shape
    out = problem.room()
    all_neurons = torch.arange(n_neurons, device=problem.c.device)
    for t in range(tokens):
        chosen_pairs(problem, before, t, all_neurons, out)
    return out


def chosen_pairs(
    problem: Ablations, before: Before, t: int, neurons: Int[Tensor, "neurons"], out: PairStatistics
) -> None:
    """Fill `out[t, neurons]`; neurons is a sorted index."""
    A = problem.path.A
    slab = max(1, _SLAB_BYTES[A.device.type] // (4 * A.shape[1]))
    scratch = torch.empty(2, min(slab, len(neurons)), A.shape[1], device=A.device)
    for part in torch.split(neurons, slab):
        _fill(problem, before, t, part, out, scratch[0, : len(part)], scratch[1, : len(part)])


def _fill(
    problem: Ablations, before: Before, t: int, neurons: Tensor, out: PairStatistics, y: Tensor, scratch: Tensor
) -> None:
    """One token, one slab of neurons. `y` and `scratch` are [neurons, d_vocab] and overwritten."""
    b_U, target, top = problem.b_U, int(problem.targets[t]), int(before.top[t])
    c, r = problem.c[t, neurons, None], problem.r[t, neurons, None]
    torch.addcmul(problem.logits[t], c, problem.path.A[neurons], out=y)
    if problem.along is not None:
        v, e = problem.along.v, problem.along.e
        y.addcmul_(e[t, neurons, None], v if v.ndim == 1 else v[t])
    highest, correct = y.amax(dim=1, keepdim=True), y[:, target, None].clone()
    if b_U is None:
        # r > 0 keeps the order of the logits, so ranks and the argmax are those of the frozen logits.
        out.rank[t, neurons] = count_above(y, correct, scratch) + 1
        out.changed[t, neurons] = (highest > y[:, top, None]).squeeze(1)
    frozen = normalise(y.sub_(highest), scratch)
    out.delta_loss_frozen[t, neurons] = frozen.log_partition + (highest - correct).squeeze(1) - before.loss[t]
    out.delta_entropy_frozen[t, neurons] = frozen.entropy - before.entropy[t]
    if b_U is None:
        y *= r
        highest, correct = r * highest, r * correct
    else:
        torch.sub(y, b_U - highest, out=y).mul_(r).add_(b_U)
        highest, correct = y.amax(dim=1, keepdim=True), y[:, target, None].clone()
        out.rank[t, neurons] = count_above(y, correct, scratch) + 1
        out.changed[t, neurons] = (highest > y[:, top, None]).squeeze(1)
        y -= highest
    total = normalise(y, scratch)
    out.delta_loss[t, neurons] = total.log_partition + (highest - correct).squeeze(1) - before.loss[t]
    out.delta_entropy[t, neurons] = total.entropy - before.entropy[t]
    if problem.fixed_direction is not None and out.delta_loss_freq is not None:
        correct -= highest
        out.delta_loss_freq[t, neurons] = _loss_beside(problem, t, y, correct, scratch) - before.loss[t]


def _loss_beside(problem: Ablations, t: int, y: Tensor, correct: Tensor, scratch: Tensor) -> Tensor:
    """The loss with y's component along the fixed direction as it was before, [neurons]; y and scratch are overwritten.

    y may be short of a constant: the direction has mean 0. correct: y of the correct token, [neurons, 1].
    """
    v = problem.fixed_direction
    assert v is not None
    v = v if v.ndim == 1 else v[t]
    gained = (torch.sub(y, problem.logits[t], out=scratch) @ v)[:, None]
    y.addcmul_(gained, v, value=-1)
    correct = correct - gained * v[problem.targets[t]]
    highest = y.amax(dim=1, keepdim=True)
    partition = y.sub_(highest).exp_().sum(dim=1)
    return partition.log() + (highest - correct).squeeze(1)
