"""Effects of changing the residual stream anywhere: x′ is given, token by token, as a forward pass left it.

With the norm frozen the logits gain ((x̃′ − x̃)/s)·W_U, so a token has a row of changes of its own; the rest is as for a
neuron of the last layer (problem.py).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.kernels import rows as compiled
from backend.core.kernels.engine import Distances, UnigramReadout, effects_of
from backend.core.kernels.problem import Ablations, Before, DirectPath, FixedDirection
from backend.core.metrics.distributions import distribution
from backend.core.metrics.effects import Effects, PairStatistics
from backend.core.metrics.frequency import delta_divergence
from backend.core.models.readout import Readout, capped


@dataclass(frozen=True)
class Unablated:
    """Tokens as the model predicts them by itself."""

    centred: Float[Tensor, "tokens d_model"]
    """x̃"""
    scale: Float[Tensor, "tokens"]
    """s"""
    logits: Float[Tensor, "tokens d_vocab"]
    """Before a soft-cap."""
    targets: Int[Tensor, "tokens"]
    """The next tokens."""
    before: Before
    frequency: UnigramReadout | None

    @classmethod
    def of(
        cls,
        readout: Readout,
        residual: Float[Tensor, "tokens d_model"],
        targets: Int[Tensor, "tokens"],
        frequency: UnigramReadout | None = None,
    ) -> "Unablated":
        """From the residual stream after the last block and the next tokens."""
        centred = readout.centred(residual)
        scale = readout.scale(centred)
        logits = readout.uncapped(centred, scale)
        before = Before.of(logits, targets, readout.b_U, readout.softcap)
        return cls(centred, scale, logits, targets, before, frequency)


def effects_of_residual(readout: Readout, unablated: Unablated, residual: Float[Tensor, "tokens d_model"]) -> Effects:
    """What another residual stream after the last block does at every token; the effects are [tokens, 1]."""
    ablated = readout.centred(residual)
    r = unablated.scale / readout.scale(ablated)
    change = (ablated - unablated.centred) / unablated.scale[:, None]
    if residual.device.type == "cpu" and readout.softcap is None:
        pairs = _compiled(readout, unablated, change, r)
    else:
        pairs = _plain(readout, unablated, change, r)
    return effects_of(unablated.before, pairs, _distances(readout, unablated, change, r, pairs))


def _distances(
    readout: Readout, unablated: Unablated, change: Tensor, r: Tensor, pairs: PairStatistics
) -> Distances | None:
    """D_KL(P_freq‖P), where every token has a change of its own; None where token frequencies are not known."""
    frequency, predictions = unablated.frequency, unablated.before.predictions
    if frequency is None:
        return None
    divergence = frequency.unigram.divergence(predictions.log_p)
    if pairs.delta_kl is not None:
        return Distances(divergence, pairs.delta_kl.double())
    change, r = change.double(), r.double()
    written = r * ((change * readout.W_U.T[unablated.targets]).sum(dim=1) - change @ frequency.read)
    lead = frequency.unigram.lead(predictions, readout.b_U, divergence)
    return Distances(divergence, delta_divergence(pairs.delta_loss, r[:, None] - 1, lead[:, None], written[:, None]))


def _compiled(readout: Readout, unablated: Unablated, change: Tensor, r: Tensor) -> PairStatistics:
    rows = change @ readout.W_U
    path = DirectPath.of_rows(change, readout.W_U, rows)
    wanted = torch.eye(len(rows), dtype=torch.bool)  # token t meets row t alone
    c = wanted.float()
    r = r[:, None].expand_as(c).contiguous()
    direction = None if unablated.frequency is None else unablated.frequency.direction
    problem = Ablations(unablated.logits, unablated.targets, c, r, path, readout.b_U, direction)
    mean_a = torch.diag(((unablated.before.predictions.p @ readout.W_U.T) * change).sum(dim=1))
    out = problem.room()
    fixed = None if direction is None else FixedDirection.of(problem, unablated.before.predictions)
    done = compiled.fill_rows(problem, unablated.before, mean_a, wanted, out, fixed=fixed)
    if fixed is not None:
        compiled.fill_fixed(problem, unablated.before, fixed, mean_a, wanted & ~done, out)
    measured = {name: values for name, values in vars(out).items() if values is not None}
    return PairStatistics(**{name: values[wanted][:, None] for name, values in measured.items()})


def _plain(readout: Readout, unablated: Unablated, change: Tensor, r: Tensor) -> PairStatistics:
    before, cap = unablated.before, readout.softcap
    after_frozen = unablated.logits + change @ readout.W_U
    frozen = distribution(capped(after_frozen, cap), unablated.targets)
    uncapped = readout.rescaled(after_frozen, r)
    after = capped(uncapped, cap)
    total = distribution(after, unablated.targets)
    order = total if cap is None else distribution(uncapped, unablated.targets)
    freq = kl = None
    if unablated.frequency is not None:
        frequency = unablated.frequency
        along = ((after - before.predictions.log_p) @ frequency.direction)[:, None]
        freq = (distribution(after - along * frequency.direction, unablated.targets).loss - before.loss)[:, None]
        if cap is not None:
            gained = after.log_softmax(dim=1) - before.predictions.log_p
            kl = -(gained @ frequency.p)[:, None]
    return PairStatistics(
        delta_loss=(total.loss - before.loss)[:, None],
        delta_loss_frozen=(frozen.loss - before.loss)[:, None],
        delta_entropy=(total.entropy - before.entropy)[:, None],
        delta_entropy_frozen=(frozen.entropy - before.entropy)[:, None],
        rank=order.rank[:, None],
        changed=(order.top != before.top)[:, None],
        delta_loss_freq=freq,
        delta_kl=kl,
    )
