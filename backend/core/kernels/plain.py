"""The plain kernel, exact on any device: the one that others are measured against, and that takes over from them.

Every pair is a row of the vocabulary, tilted in three steps (problem.py): frozen, from it total, and from that the one
beside a fixed direction. Under a soft-cap each is of the logits after it.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from backend.core.kernels.problem import Ablations, Before
from backend.core.metrics.distributions import Normaliser, count_above, normalise
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
    room = torch.empty(2 if problem.softcap is None else 3, min(slab, len(neurons)), A.shape[1], device=A.device)
    for part in torch.split(neurons, slab):
        y, scratch, *capped = room[:, : len(part)]
        _write_frozen(problem, t, part, y)
        if problem.softcap is None:
            _fill(problem, before, t, part, out, y, scratch)
        else:
            _fill_capped(problem, problem.softcap, before, t, part, out, y, scratch, capped[0])


def _write_frozen(problem: Ablations, t: int, neurons: Tensor, y: Tensor) -> None:
    """The logits of one token with the norm's scale frozen, before a soft-cap, [neurons, d_vocab]."""
    torch.addcmul(problem.logits[t], problem.c[t, neurons, None], problem.path.A[neurons], out=y)
    if problem.along is not None:
        v, e = problem.along.v, problem.along.e
        y.addcmul_(e[t, neurons, None], v if v.ndim == 1 else v[t])


def _fill(
    problem: Ablations, before: Before, t: int, neurons: Tensor, out: PairStatistics, y: Tensor, scratch: Tensor
) -> None:
    """One token, one slab of neurons. `y` and `scratch` are [neurons, d_vocab] and overwritten."""
    b_U, target, top = problem.b_U, int(problem.targets[t]), int(before.top[t])
    r = problem.r[t, neurons, None]
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
    if out.delta_kl is not None:
        out.delta_kl[t, neurons] = _distance(problem, before.predictions.log_p[t], y, total, scratch)
    if problem.fixed_direction is not None and out.delta_loss_freq is not None:
        correct -= highest
        loss = _loss_beside(problem, problem.logits[t], t, y, correct, scratch)
        out.delta_loss_freq[t, neurons] = loss - before.loss[t]


def _fill_capped(
    problem: Ablations,
    softcap: float,
    before: Before,
    t: int,
    neurons: Tensor,
    out: PairStatistics,
    y: Tensor,
    scratch: Tensor,
    z: Tensor,
) -> None:
    """One token, one slab of neurons, where softcap·tanh(y/softcap) are the logits.

    `y` is as `_write_frozen` leaves it; `scratch` and `z` are room of its size, and all three are overwritten.
    """
    b_U, target, top, r = problem.b_U, int(problem.targets[t]), int(before.top[t]), problem.r[t, neurons, None]
    frozen, highest, correct = _capped(y, softcap, target, scratch, z)
    out.delta_loss_frozen[t, neurons] = frozen.log_partition + (highest - correct).squeeze(1) - before.loss[t]
    out.delta_entropy_frozen[t, neurons] = frozen.entropy - before.entropy[t]
    y.mul_(r) if b_U is None else y.sub_(b_U).mul_(r).add_(b_U)
    # A soft-cap keeps the order of the logits, until float32 knows the largest no more apart.
    out.rank[t, neurons] = count_above(y, y[:, target, None].clone(), scratch) + 1
    out.changed[t, neurons] = y.amax(dim=1) > y[:, top]
    total, highest, correct = _capped(y, softcap, target, scratch, z)
    out.delta_loss[t, neurons] = total.log_partition + (highest - correct).squeeze(1) - before.loss[t]
    out.delta_entropy[t, neurons] = total.entropy - before.entropy[t]
    log_p = before.predictions.log_p[t]
    if out.delta_kl is not None:
        out.delta_kl[t, neurons] = _distance(problem, log_p, z, total, scratch)
    if problem.fixed_direction is not None and out.delta_loss_freq is not None:
        loss = _loss_beside(problem, log_p, t, z, correct - highest, scratch)
        out.delta_loss_freq[t, neurons] = loss - before.loss[t]


def _capped(y: Tensor, softcap: float, target: int, scratch: Tensor, z: Tensor) -> tuple[Normaliser, Tensor, Tensor]:
    """Normaliser, highest and correct logit after the soft-cap, each of the latter [neurons, 1]; z becomes the logits
    after it, less the highest."""
    torch.div(y, softcap, out=z).tanh_().mul_(softcap)
    highest, correct = z.amax(dim=1, keepdim=True), z[:, target, None].clone()
    return normalise(z.sub_(highest), scratch), highest, correct


def _distance(problem: Ablations, log_p: Tensor, y: Tensor, after: Normaliser, scratch: Tensor) -> Tensor:
    """By how much D_KL(P_freq‖p) = −H(P_freq) − Σ P_freq·log p grows, [neurons].

    Args:
        log_p: before, [d_vocab].
        y: the logits after, less the highest, as the normaliser has them.
    """
    assert problem.p_freq is not None
    # Differences first, so that small ones keep their digits.
    return after.log_partition - torch.sub(y, log_p, out=scratch) @ problem.p_freq


def _loss_beside(problem: Ablations, before: Tensor, t: int, y: Tensor, correct: Tensor, scratch: Tensor) -> Tensor:
    """The loss with y's component along the fixed direction as it was before, [neurons]; y and scratch are overwritten.

    y may be short of a constant: the direction has mean 0.

    Args:
        before: the token's logits without ablation, or short of a constant too, [d_vocab].
        correct: y of the correct token, [neurons, 1].
    """
    v = problem.fixed_direction
    assert v is not None
    v = v if v.ndim == 1 else v[t]
    gained = (torch.sub(y, before, out=scratch) @ v)[:, None]
    y.addcmul_(gained, v, value=-1)
    correct = correct - gained * v[problem.targets[t]]
    highest = y.amax(dim=1, keepdim=True)
    partition = y.sub_(highest).exp_().sum(dim=1)
    return partition.log() + (highest - correct).squeeze(1)
