"""What it does to predictions not to let a neuron above a mean where text repeats (Figures 5b, 9b, 10b, 10c).

A neuron n of the last layer with the reference m is clipped to min(n, m) on the second occurrence. That changes it by
δ = min(m − n, 0), which is what setting the excess max(n − m, 0) to zero does, so the closed form of the effects
serves.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.induction.readings import PlainPass, second_places
from backend.core.induction.text import Repeats
from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.effects import TokenBatch
from backend.core.metrics.induction import Mean, mean_over, of_repeats, percent_change
from backend.core.metrics.jackknife import Ids
from backend.core.models.analysis_model import AnalysisModel

_TOKENS_AT_ONCE = 256
_MOST_TOKENS_SHOWN = 1_000


@dataclass(frozen=True)
class ClippedTokens:
    """A sample of tokens of second occurrences that have a target."""

    loss: Float[Tensor, "tokens"]
    """Before, nats."""
    delta_loss: Float[Tensor, "tokens"]
    """Nats."""
    delta_entropy: Float[Tensor, "tokens"]
    """Nats."""
    reciprocal_rank: Float[Tensor, "tokens"]
    """Before."""
    token: Int[Tensor, "tokens"]
    target: Int[Tensor, "tokens"]
    source: Int[Tensor, "tokens"]
    """Which text each is from: tokens of one text are not independent."""


@dataclass(frozen=True)
class ClippingAfter:
    """X in Figure 9b: a neuron clipped at the position after the second occurrence; [1] each, losses in nats."""

    loss: Mean
    entropy: Mean
    delta_loss: Mean
    delta_entropy: Mean
    percent: Mean
    """The change of entropy in percent of the entropy before."""


@dataclass(frozen=True)
class ClippingTotals:
    """Means over the whole of the second occurrence and over repeats, [] each: before, after, and after − before.

    Losses and entropies are in nats.
    """

    loss_before: Mean
    loss: Mean
    delta_loss: Mean
    percent_loss: Mean
    """The change in percent of what it was before."""
    entropy_before: Mean
    entropy: Mean
    delta_entropy: Mean
    percent_entropy: Mean


@dataclass(frozen=True)
class Clipping:
    """Figures 5b, 9b, 10b, 10c: one neuron not let above its reference on the second occurrence; [span] each.

    Losses and entropies are in nats.
    """

    neuron: int
    """Its index in the layer."""
    reference: float
    loss: Mean
    entropy: Mean
    delta_loss: Mean
    delta_entropy: Mean
    percent: Mean
    """The change of entropy in percent of the entropy before."""
    tokens: ClippedTokens
    after: ClippingAfter | None
    """None where text is doubled."""
    totals: ClippingTotals


@dataclass(frozen=True)
class _Changes:
    """Loss and entropy before, and after − before, at all tokens that `second_places` means; the loss is NaN where
    nothing follows."""

    loss: Float[Tensor, "tokens"]
    entropy: Float[Tensor, "tokens"]
    delta_loss: Float[Tensor, "tokens neurons"]
    delta_entropy: Float[Tensor, "tokens neurons"]
    rank: Int[Tensor, "tokens"]
    """Of the target before."""


def clipping_steps(repeats: Repeats) -> int:
    """How many words on progress `clip_neurons` has."""
    return -(-int(second_places(repeats).sum()) // _TOKENS_AT_ONCE)


def clip_neurons(
    model: AnalysisModel,
    repeats: Repeats,
    plain: PlainPass,
    neurons: Sequence[int],
    references: Float[Tensor, "neurons"],
    seed: int,
) -> Generator[str | Clipping, None, None]:
    """Clip each of some last-layer neurons alone: says what it does, then yields each neuron's result.

    Args:
        plain: the pass over these repeats, with the residual stream kept and these neurons read.
        references: what each neuron is clipped to.
        seed: of the sample of tokens.
    """
    readings, meant = plain.readings, second_places(repeats)
    targets = repeats.targets[:, repeats.reach :][meant]
    activations = readings.activations[:, repeats.reach :][meant]
    changes = yield from _changes(model, plain, activations, targets, list(neurons), references)
    places = repeats.places[:, repeats.reach :]
    tokens = repeats.tokens[repeats.sequence[:, None], places][meant]
    sources = repeats.source[repeats.sequence][:, None].expand_as(meant)[meant]
    shown = _sample(repeats, targets >= 0, seed)
    for column, neuron in enumerate(neurons):
        delta_loss, delta_entropy = changes.delta_loss[:, column], changes.delta_entropy[:, column]
        sampled = ClippedTokens(
            changes.loss[shown],
            delta_loss[shown],
            delta_entropy[shown],
            1 / changes.rank[shown],
            tokens[shown],
            targets[shown],
            sources[shown],
        )
        values = (changes.loss, changes.entropy, delta_loss, delta_entropy)
        yield _clipping(neuron, float(references[column]), repeats, sampled, *values)


def _changes(
    model: AnalysisModel,
    plain: PlainPass,
    activations: Tensor,
    targets: Tensor,
    neurons: list[int],
    references: Tensor,
) -> Generator[str, None, _Changes]:
    readout, stream, mlp_raw = model.readout.of_neurons(neurons), plain.stream, plain.mlp_raw
    engine, limits = EffectsEngine(readout), references.to(stream.device)
    columns = [stream, activations.to(stream), targets.to(stream.device), *([] if mlp_raw is None else [mlp_raw])]
    effects = []
    for x, n, target, *m in zip(*(column.split(_TOKENS_AT_ONCE) for column in columns), strict=True):
        batch = TokenBatch(x, (n - limits).clamp_min(0), target.clamp_min(0), *m)
        effects.append(engine.effects(batch, torch.zeros_like(limits)))
        yield "clipping the neurons"

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(batch, name).cpu() for batch in effects])

    known = targets >= 0
    return _Changes(
        joined("before_loss").where(known, torch.nan),
        joined("before_entropy"),
        joined("delta_loss").where(known[:, None], torch.nan),
        joined("delta_entropy"),
        joined("before_rank"),
    )


def _sample(repeats: Repeats, known: Tensor, seed: int) -> Tensor:
    """Which of the tokens that `second_places` means are shown: some of the occurrences' that have a target."""
    meant, chance = second_places(repeats), torch.Generator().manual_seed(seed)
    eligible = known & repeats.inside[repeats.reach :].expand_as(meant)[meant]
    order = torch.randperm(int(eligible.sum()), generator=chance)[:_MOST_TOKENS_SHOWN]
    return eligible.nonzero().squeeze(1)[order.sort().values]


def _clipping(
    neuron: int,
    reference: float,
    repeats: Repeats,
    tokens: ClippedTokens,
    loss: Tensor,
    entropy: Tensor,
    delta_loss: Tensor,
    delta_entropy: Tensor,
) -> Clipping:
    """From values at the tokens that `second_places` means: before, and after − before."""
    before = [_placed(repeats, values) for values in (loss, entropy)]
    delta = [_placed(repeats, values) for values in (delta_loss, delta_entropy)]
    inside, groups = repeats.inside[repeats.reach :], repeats.groups

    def at(columns: Tensor) -> dict[str, Mean]:
        return _means([values[:, columns] for values in before], [values[:, columns] for values in delta], groups)

    totals = _totals(
        [of_repeats(values[:, inside]) for values in before],
        [of_repeats(values[:, inside]) for values in delta],
        groups,
    )
    after = None if inside.all() else ClippingAfter(**at(~inside))
    return Clipping(neuron, reference, **at(inside), tokens=tokens, after=after, totals=totals)


def _placed(repeats: Repeats, values: Tensor) -> Tensor:
    """Values at the tokens that `second_places` means, at their places, [repeats, reach]; NaN at the others."""
    placed = torch.full(second_places(repeats).shape, torch.nan, dtype=torch.float64)
    placed[second_places(repeats)] = values.double()
    return placed


def _means(before: list[Tensor], delta: list[Tensor], groups: Ids) -> dict[str, Mean]:
    """By place, from loss and entropy before and what is added to them, [repeats, places] each."""
    (loss, entropy), (delta_loss, delta_entropy) = before, delta
    return {
        "loss": mean_over(loss + delta_loss, groups),
        "entropy": mean_over(entropy + delta_entropy, groups),
        "delta_loss": mean_over(delta_loss, groups),
        "delta_entropy": mean_over(delta_entropy, groups),
        "percent": percent_change(entropy, delta_entropy, groups),
    }


def _totals(before: list[Tensor], delta: list[Tensor], groups: Ids) -> ClippingTotals:
    """From each repeat's means of loss and entropy before, and of what is added to them, [repeats] each."""
    means: dict[str, Mean] = {}
    for name, values, change in zip(("loss", "entropy"), before, delta, strict=True):
        means[f"{name}_before"] = mean_over(values, groups)
        means[name] = mean_over(values + change, groups)
        means[f"delta_{name}"] = mean_over(change, groups)
        means[f"percent_{name}"] = percent_change(values, change, groups)
    return ClippingTotals(**means)
