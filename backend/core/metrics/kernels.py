"""The inner loop of the effects: many (token, neuron) pairs, each a full row of ablated logits, in O(d_vocab).

With A = W_out·W_U [n_neurons, d_vocab], L the logits, c = δ/s and r = s/s′ (SPEC "Ablation"):

    frozen norm:      y = L + c·A_i
    norm recomputed:  y = r·(L − b_U + c·A_i) + b_U

so no unembedding is redone for a neuron. `pair_statistics` is the plain torch kernel, exact on any device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.core.metrics.distributions import count_above, normalise

_SLAB_BYTES = {"cpu": 3 << 20, "cuda": 1 << 30}
"""Size of one slab of ablated logits: on a CPU it should stay in cache between the passes over it."""


@dataclass(frozen=True)
class PairStatistics:
    """What ablating neuron i does to the prediction at token t; every tensor is [tokens, n_neurons], after ablation."""

    loss: Tensor
    loss_frozen: Tensor
    entropy: Tensor
    entropy_frozen: Tensor
    rank: Tensor
    changed: Tensor
    """Whether some token now beats the token that was most probable before (norm recomputed)."""


def pair_statistics(
    logits: Tensor, targets: Tensor, c: Tensor, r: Tensor, A: Tensor, b_U: Tensor | None
) -> PairStatistics:
    """Statistics of every (token, neuron) pair.

    Args:
        logits: L, [tokens, d_vocab].
        targets: the correct next tokens, [tokens].
        c: δ/s, [tokens, n_neurons].
        r: s/s′, [tokens, n_neurons].
        A: W_out·W_U, [n_neurons, d_vocab].
        b_U: the unembedding's bias, [d_vocab], or None where it is zero.
    """
    tokens, n_neurons = c.shape
    out = _empty(tokens, n_neurons, c.device)
    slab = max(1, _SLAB_BYTES[c.device.type] // (4 * A.shape[1]))
    y, scratch = torch.empty(2, min(slab, n_neurons), A.shape[1], device=c.device)
    tops = logits.argmax(dim=1)
    for t in range(tokens):
        token = _Token(logits[t], int(targets[t]), int(tops[t]), b_U)
        for start in range(0, n_neurons, slab):
            part = slice(start, min(start + slab, n_neurons))
            rows = part.stop - start
            _fill(out, (t, part), token, c[t, part, None], r[t, part, None], A[part], y[:rows], scratch[:rows])
    return out


@dataclass(frozen=True)
class _Token:
    logits: Tensor
    target: int
    top: int
    b_U: Tensor | None


def _fill(
    out: PairStatistics,
    place: tuple[int, slice],
    token: _Token,
    c: Tensor,
    r: Tensor,
    A: Tensor,
    y: Tensor,
    scratch: Tensor,
) -> None:
    """One token, one slab of neurons. `y` and `scratch` are [neurons, d_vocab] and overwritten."""
    b_U, target, top = token.b_U, token.target, token.top
    torch.addcmul(token.logits, c, A, out=y)
    highest, correct = y.amax(dim=1, keepdim=True), y[:, target, None].clone()
    if b_U is None:
        # r > 0 keeps the order of the logits, so ranks and the argmax are those of the frozen logits.
        out.rank[place] = count_above(y, correct, scratch) + 1
        out.changed[place] = (highest > y[:, top, None]).squeeze(1)
    frozen = normalise(y.sub_(highest), scratch)
    out.loss_frozen[place] = frozen.log_partition + (highest - correct).squeeze(1)
    out.entropy_frozen[place] = frozen.entropy
    if b_U is None:
        y *= r
        highest, correct = r * highest, r * correct
    else:
        torch.sub(y, b_U - highest, out=y).mul_(r).add_(b_U)
        highest, correct = y.amax(dim=1, keepdim=True), y[:, target, None].clone()
        out.rank[place] = count_above(y, correct, scratch) + 1
        out.changed[place] = (highest > y[:, top, None]).squeeze(1)
        y -= highest
    total = normalise(y, scratch)
    out.loss[place] = total.log_partition + (highest - correct).squeeze(1)
    out.entropy[place] = total.entropy


def _empty(tokens: int, n_neurons: int, device: torch.device) -> PairStatistics:
    def floats() -> Tensor:
        return torch.empty(tokens, n_neurons, device=device)

    rank = torch.empty(tokens, n_neurons, dtype=torch.int64, device=device)
    changed = torch.empty(tokens, n_neurons, dtype=torch.bool, device=device)
    return PairStatistics(floats(), floats(), floats(), floats(), rank, changed)
