"""How far computed effects are from what they should be: some of them again, in float64 and from their definition.

A kernel's own bound tells what its series leaves out. Logits, losses and differences of losses are rounded to float32
besides. Here both are measured together: each chosen neuron is ablated at each chosen token by forming the ablated
residual stream, norming it, and reading all logits out, in float64, from the float32 residual stream and weights.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from backend.core.metrics.effects import Effects, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.models.readout import Readout, capped

_COLUMNS = 8_192
"""Of W_U that are read in float64 at once."""
NEURONS, TOKENS = 16, 16
"""Of which effects are computed again."""


@dataclass(frozen=True)
class Precision:
    """Largest differences of computed effects from float64's, in nats, over the losses and entropies of all pairs."""

    neurons: int
    tokens: int
    total: float
    """Final norm recomputed."""
    frozen: float
    """Final norm's scale held."""
    frequency_held: float | None
    """Losses with the token-frequency direction held; None where that is not computed."""

    @classmethod
    def of(
        cls,
        readout: Readout,
        batch: TokenBatch,
        targets: Float[Tensor, "d_mlp"],
        effects: Effects,
        unigram: Unigram | None,
        seed: int,
        size: tuple[int, int] = (NEURONS, TOKENS),
    ) -> "Precision":
        """Set computed effects beside float64.

        Args:
            targets: the activation that replaced each neuron's.
            size: how many neurons and tokens are computed again: half of the neurons are those whose effect is largest,
                where rounding and what a series leaves out are largest too; the others, and the tokens, are random.
        """
        generator = torch.Generator().manual_seed(seed)
        device = batch.residual.device
        tokens = torch.randperm(len(batch.targets), generator=generator)[: size[1]].to(device)
        largest = effects.delta_loss.abs().mean(dim=0).argsort(descending=True)[: size[0] // 2]
        order = torch.randperm(effects.delta_loss.shape[1], generator=generator).to(device)
        neurons = torch.cat([largest, order[~torch.isin(order, largest)][: size[0] - len(largest)]])
        chosen = TokenBatch(batch.residual[tokens], batch.activations[tokens], batch.targets[tokens])
        again = recomputed(readout, chosen, targets, neurons, unigram)
        apart = {
            name: float((getattr(effects, name)[tokens][:, neurons].double() - value).abs().max())
            for name, value in again.items()
        }
        return cls(
            neurons=len(neurons),
            tokens=len(tokens),
            total=_largest(apart["delta_loss"], apart["delta_entropy"]),
            frozen=_largest(apart["delta_loss_frozen"], apart["delta_entropy_frozen"]),
            frequency_held=apart.get("delta_loss_freq"),
        )


def _largest(*values: float) -> float:
    """NaN where one is: Python's own `max` depends on the order."""
    return float(torch.tensor(values, dtype=torch.float64).max())


def recomputed(
    readout: Readout,
    batch: TokenBatch,
    targets: Float[Tensor, "d_mlp"],
    neurons: Int[Tensor, "neurons"],
    unigram: Unigram | None = None,
) -> dict[str, Float64[Tensor, "tokens neurons"]]:
    """Effects of some neurons from their definition (Eq. 4-6, 8), in nats, by the names they have in `Effects`.

    Args:
        targets: the activation that replaces each neuron's.
        neurons: indices of those to compute.
        unigram: token frequencies; None leaves out the loss beside their direction.
    """
    x, n = batch.residual.double(), batch.activations.double()
    deltas = targets[neurons].double() - n[:, neurons]
    exact = _doubled(readout.of_neurons(neurons))
    m = None if exact.post_norm is None else exact.post_norm.before(n)
    plain = exact.centred(x)
    scale = exact.scale(plain)
    before = _Predictions.of(_logits(exact, plain / scale[:, None]), batch.targets)
    effects: dict[str, list[Tensor]] = {}
    direction = None if unigram is None else unigram.direction.double().to(x.device)
    for place in range(len(neurons)):
        ablated = exact.centred(x + _written(exact, m, place, deltas[:, place, None]))
        normed = torch.cat([ablated / exact.scale(ablated)[:, None], ablated / scale[:, None]])
        after, frozen = torch.split(_logits(exact, normed), len(x))
        for suffix, logits in (("", after), ("_frozen", frozen)):
            now = _Predictions.of(logits, batch.targets)
            effects.setdefault(f"delta_loss{suffix}", []).append(now.loss - before.loss)
            effects.setdefault(f"delta_entropy{suffix}", []).append(now.entropy - before.entropy)
        if direction is not None:
            gained = (after - before.logits) @ direction
            without = _Predictions.of(after - gained[:, None] * direction, batch.targets)
            effects.setdefault("delta_loss_freq", []).append(without.loss - before.loss)
    return {name: torch.stack(columns, dim=1) for name, columns in effects.items()}


def _doubled(readout: Readout) -> Readout:
    """All of a readout but W_U, which is read in pieces, in float64."""
    post = readout.post_norm
    if post is not None:
        b_raw = None if post.b_raw is None else post.b_raw.double()
        post = replace(post, gain=post.gain.double(), W_raw=post.W_raw.double(), b_raw=b_raw)
    return replace(readout, W_out=readout.W_out.double(), post_norm=post)


def _written(
    readout: Readout, m: Float64[Tensor, "tokens d_model"] | None, neuron: int, delta: Float64[Tensor, "tokens 1"]
) -> Float64[Tensor, "tokens d_model"]:
    """What the residual stream gains, where a norm follows the MLP by forming what it writes anew."""
    post = readout.post_norm
    if post is None or m is None:
        return delta * readout.W_out[neuron]
    after = m + delta * post.rows[neuron]
    return (after / post.scale(after)[:, None] - m / post.scale(m)[:, None]) * post.gain


@dataclass(frozen=True)
class _Predictions:
    logits: Tensor
    loss: Tensor
    entropy: Tensor

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor) -> "_Predictions":
        log_p = logits.log_softmax(dim=1)
        loss = -log_p.gather(1, targets[:, None])[:, 0]
        return cls(logits, loss, -(log_p.exp() * log_p).sum(dim=1))


def _logits(readout: Readout, normed: Tensor) -> Tensor:
    """[tokens, d_vocab], float64"""
    parts = [normed @ part.double() for part in torch.split(readout.W_U, _COLUMNS, dim=1)]
    logits = torch.cat(parts, dim=1)
    return capped(logits if readout.b_U is None else logits + readout.b_U.double(), readout.softcap)
