"""Effects of moving the residual stream anywhere: x′ is given, token by token, as a forward pass left it.

With the norm frozen the logits gain ((x̃′ − x̃)/s)·W_U, so a token has a row of changes of its own; the rest is as for a
neuron of the last layer (kernels.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.core.metrics import compiled
from backend.core.metrics.distributions import distribution
from backend.core.metrics.effects import Effects, Readout, effects_of
from backend.core.metrics.kernels import Before, DirectPath, PairStatistics, Problem


@dataclass(frozen=True)
class Unmoved:
    """Tokens as the model predicts them by itself."""

    centred: Tensor
    """x̃, [tokens, d_model]"""
    scale: Tensor
    logits: Tensor
    targets: Tensor
    before: Before

    @classmethod
    def of(cls, readout: Readout, residual: Tensor, targets: Tensor) -> "Unmoved":
        """From the residual stream after the last block [tokens, d_model] and the next tokens [tokens]."""
        centred = readout.centred(residual)
        scale = readout.scale(centred)
        logits = readout.logits(centred, scale)
        return cls(centred, scale, logits, targets, Before.of(logits, targets, readout.b_U))


def moved_effects(readout: Readout, unmoved: Unmoved, residual: Tensor) -> Effects:
    """What another residual stream, [tokens, d_model], does at every token; the effects are [tokens, 1]."""
    moved = readout.centred(residual)
    r = unmoved.scale / readout.scale(moved)
    change = (moved - unmoved.centred) / unmoved.scale[:, None]
    if residual.device.type == "cpu":
        pairs = _compiled(readout, unmoved, change, r)
    else:
        pairs = _plain(readout, unmoved, change, r)
    return effects_of(unmoved.before, pairs)


def _compiled(readout: Readout, unmoved: Unmoved, change: Tensor, r: Tensor) -> PairStatistics:
    rows = change @ readout.W_U
    path = DirectPath.of_rows(change, readout.W_U, rows)
    own = torch.eye(len(rows), dtype=torch.bool)  # token t meets row t alone
    c = own.float()
    problem = Problem(
        unmoved.logits, unmoved.targets, c, r[:, None].expand_as(c).contiguous(), path, readout.b_U
    )  # fmt: skip
    mean_a = torch.diag(((unmoved.before.predictions.p @ readout.W_U.T) * change).sum(dim=1))
    out = PairStatistics.empty(problem)
    compiled.fill_rows(problem, unmoved.before, mean_a, own, out)
    return PairStatistics(**{name: getattr(out, name)[own][:, None] for name in vars(out)})


def _plain(readout: Readout, unmoved: Unmoved, change: Tensor, r: Tensor) -> PairStatistics:
    before, held = unmoved.before, unmoved.logits + change @ readout.W_U
    frozen = distribution(held, unmoved.targets)
    total = distribution(readout.rescaled(held, r), unmoved.targets)
    return PairStatistics(
        delta_loss=(total.loss - before.loss)[:, None],
        delta_loss_frozen=(frozen.loss - before.loss)[:, None],
        delta_entropy=(total.entropy - before.entropy)[:, None],
        delta_entropy_frozen=(frozen.entropy - before.entropy)[:, None],
        rank=total.rank[:, None],
        changed=(total.top != before.top)[:, None],
    )
