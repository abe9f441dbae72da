"""What it does to predictions not to let a neuron above a mean where text repeats (Figures 5b, 9b, 10b, 10c)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.core.induction.repeats import Repeats
from backend.core.metrics.induction import Mean, mean_over, of_repeats, percent_change
from backend.core.metrics.jackknife import Ids


@dataclass(frozen=True)
class Points:
    """A sample of tokens of second occurrences that have a target; [points] each."""

    loss: Tensor
    delta_loss: Tensor
    delta_entropy: Tensor
    reciprocal_rank: Tensor
    """Before."""
    token: Tensor
    target: Tensor
    source: Tensor
    """Which text each is from: tokens of one text are not independent."""


@dataclass(frozen=True)
class Clipped:
    """X in Figure 9b: a neuron not let above its reference at the position after the second occurrence; [1] each."""

    loss: Mean
    entropy: Mean
    delta_loss: Mean
    delta_entropy: Mean
    percent: Mean
    """The change of entropy in percent of the entropy before."""


@dataclass(frozen=True)
class ClipTotals:
    """Means over the whole of the second occurrence and over repeats, [] each: before, after, and after − before."""

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
class Clip:
    """Figures 5b, 9b, 10b, 10c: one neuron not let above its reference on the second occurrence; [span] each."""

    neuron: int
    """Its index in the layer."""
    reference: float
    loss: Mean
    entropy: Mean
    delta_loss: Mean
    delta_entropy: Mean
    percent: Mean
    """The change of entropy in percent of the entropy before."""
    points: Points
    after: Clipped | None
    """None where text is doubled."""
    totals: ClipTotals

    @classmethod
    def of(
        cls,
        neuron: int,
        reference: float,
        repeats: Repeats,
        points: Points,
        loss: Tensor,
        entropy: Tensor,
        delta_loss: Tensor,
        delta_entropy: Tensor,
    ) -> "Clip":
        """From values at the tokens that `second_places` means: before, and after − before."""
        placed = [_placed(repeats, values) for values in (loss, entropy, delta_loss, delta_entropy)]
        own = repeats.inside[repeats.reach :]
        means = _means(*(values[:, own] for values in placed), repeats.groups)
        beyond = _means(*(values[:, ~own] for values in placed), repeats.groups)
        totals = _totals(*(of_repeats(values[:, own]) for values in placed), repeats.groups)
        return cls(neuron, reference, *means, points, None if own.all() else Clipped(*beyond), totals)


def second_places(repeats: Repeats) -> Tensor:
    """Which places of second occurrences, and of what follows them, are meant, [repeats, reach]."""
    return repeats.present[:, repeats.reach :]


def _placed(repeats: Repeats, values: Tensor) -> Tensor:
    """Values at the tokens that `_second` means, at their places, [repeats, reach]; NaN at the others."""
    placed = torch.full(second_places(repeats).shape, torch.nan, dtype=torch.float64)
    placed[second_places(repeats)] = values.double()
    return placed


def _means(loss: Tensor, entropy: Tensor, delta_loss: Tensor, delta_entropy: Tensor, groups: Ids) -> list[Mean]:
    """By place: after, after − before, and the change of entropy in percent; loss and entropy are those before."""
    means = [mean_over(values, groups) for values in (loss + delta_loss, entropy + delta_entropy)]
    means += [mean_over(values, groups) for values in (delta_loss, delta_entropy)]
    return [*means, percent_change(entropy, delta_entropy, groups)]


def _totals(loss: Tensor, entropy: Tensor, delta_loss: Tensor, delta_entropy: Tensor, groups: Ids) -> ClipTotals:
    """From each repeat's means, [repeats]."""
    both = ((loss, delta_loss), (entropy, delta_entropy))
    found = []
    for before, moved in both:
        found += [mean_over(values, groups) for values in (before, before + moved, moved)]
        found.append(percent_change(before, moved, groups))
    return ClipTotals(*found)
