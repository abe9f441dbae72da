"""Effects of moving the residual stream anywhere: x′ is given, token by token, as a forward pass left it.

With the norm frozen the logits gain ((x̃′ − x̃)/s)·W_U, so a token has a row of changes of its own; the rest is as for a
neuron of the last layer (`core/kernels/plain.py`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.core.kernels import held
from backend.core.kernels import rows as compiled
from backend.core.kernels.engine import Frequency, effects_of
from backend.core.kernels.problem import Before, DirectPath, PairStatistics, Problem
from backend.core.metrics.distributions import distribution
from backend.core.metrics.effects import Effects
from backend.core.models.readout import Readout


@dataclass(frozen=True)
class Unmoved:
    """Tokens as the model predicts them by itself."""

    centred: Tensor
    """x̃, [tokens, d_model]"""
    scale: Tensor
    logits: Tensor
    targets: Tensor
    before: Before
    frequency: Frequency | None

    @classmethod
    def of(
        cls, readout: Readout, residual: Tensor, targets: Tensor, frequency: Frequency | None = None
    ) -> "Unmoved":  # fmt: skip
        """From the residual stream after the last block [tokens, d_model] and the next tokens [tokens]."""
        centred = readout.centred(residual)
        scale = readout.scale(centred)
        logits = readout.logits(centred, scale)
        return cls(centred, scale, logits, targets, Before.of(logits, targets, readout.b_U), frequency)


def moved_effects(readout: Readout, unmoved: Unmoved, residual: Tensor) -> Effects:
    """What another residual stream, [tokens, d_model], does at every token; the effects are [tokens, 1]."""
    moved = readout.centred(residual)
    r = unmoved.scale / readout.scale(moved)
    change = (moved - unmoved.centred) / unmoved.scale[:, None]
    if residual.device.type == "cpu":
        pairs = _compiled(readout, unmoved, change, r)
    else:
        pairs = _plain(readout, unmoved, change, r)
    return effects_of(unmoved.before, pairs, _told(readout, unmoved, change, r, pairs))


def _told(
    readout: Readout, unmoved: Unmoved, change: Tensor, r: Tensor, pairs: PairStatistics
) -> dict[str, Tensor | None]:
    """The same of token frequency as `Frequency.told`, where every token has a change of its own."""
    frequency = unmoved.frequency
    if frequency is None:
        return {}
    unigram, predictions = frequency.unigram, unmoved.before.predictions
    change, r = change.double(), r.double()
    beyond_a = (change * readout.W_U.T[unmoved.targets]).sum(dim=1) - change @ frequency.read
    beyond = (r - 1) * unigram.beyond(predictions, readout.b_U) + r * beyond_a
    return {
        "before_kl": unigram.divergence(predictions),
        "delta_kl": pairs.delta_loss.double() + beyond[:, None],
        "delta_loss_freq": pairs.delta_loss_freq,
    }


def _compiled(readout: Readout, unmoved: Unmoved, change: Tensor, r: Tensor) -> PairStatistics:
    rows = change @ readout.W_U
    path = DirectPath.of_rows(change, readout.W_U, rows)
    own = torch.eye(len(rows), dtype=torch.bool)  # token t meets row t alone
    c = own.float()
    r = r[:, None].expand_as(c).contiguous()
    direction = None if unmoved.frequency is None else unmoved.frequency.direction
    problem = Problem(unmoved.logits, unmoved.targets, c, r, path, readout.b_U, direction)
    mean_a = torch.diag(((unmoved.before.predictions.p @ readout.W_U.T) * change).sum(dim=1))
    out = PairStatistics.empty(problem)
    compiled.fill_rows(problem, unmoved.before, mean_a, own, out)
    if direction is not None:
        along = held.Held.of(problem, unmoved.before.predictions)
        held.fill_held(problem, unmoved.before, along, mean_a, own, out)
    found = {name: values for name, values in vars(out).items() if values is not None}
    return PairStatistics(**{name: values[own][:, None] for name, values in found.items()})


def _plain(readout: Readout, unmoved: Unmoved, change: Tensor, r: Tensor) -> PairStatistics:
    before, frozen_logits = unmoved.before, unmoved.logits + change @ readout.W_U
    frozen = distribution(frozen_logits, unmoved.targets)
    after = readout.rescaled(frozen_logits, r)
    total = distribution(after, unmoved.targets)
    freq = None
    if unmoved.frequency is not None:
        direction = unmoved.frequency.direction
        along = ((after - unmoved.logits) @ direction)[:, None]
        freq = (distribution(after - along * direction, unmoved.targets).loss - before.loss)[:, None]
    return PairStatistics(
        delta_loss=(total.loss - before.loss)[:, None],
        delta_loss_frozen=(frozen.loss - before.loss)[:, None],
        delta_entropy=(total.entropy - before.entropy)[:, None],
        delta_entropy_frozen=(frozen.entropy - before.entropy)[:, None],
        rank=total.rank[:, None],
        changed=(total.top != before.top)[:, None],
        delta_loss_freq=freq,
    )
