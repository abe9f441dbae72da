"""What a model predicts and what its neurons do where text repeats: by position, and over whole occurrences (§6).

A reading is a value at one of the places that are read of a repeat (`Repeats.places`); it is NaN where a repeat has no
such place, and a loss is also NaN where no target follows.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from backend.core.induction.text import Repeats
from backend.core.metrics.distributions import distribution
from backend.core.metrics.induction import Mean, built_of, change, mean_over, of_repeats
from backend.core.metrics.jackknife import Array, Ids
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import Readout

_ROWS_AT_ONCE = 128
"""Rows of logits in memory together."""
_EXAMPLES = 3


@dataclass(frozen=True)
class RepeatMeans:
    """Each repeat's means over the places of one of its occurrences; loss and entropy in nats."""

    loss: Float64[Tensor, "repeats"]
    entropy: Float64[Tensor, "repeats"]
    activations: Float64[Tensor, "repeats neurons"]


@dataclass(frozen=True)
class Readings:
    """Values at the places that are read of every repeat; NaN where there is nothing."""

    loss: Float[Tensor, "repeats places"]
    """Of the token that follows, nats."""
    entropy: Float[Tensor, "repeats places"]
    """Nats."""
    activations: Float[Tensor, "repeats places neurons"]

    @classmethod
    def joined(cls, batches: "Sequence[Readings]") -> "Readings":
        """The readings of several batches, one after the other."""
        names = ("loss", "entropy", "activations")
        return cls(*(torch.cat([getattr(batch, name) for batch in batches]) for name in names))

    def means(self, columns: Bool[Tensor, "places"], groups: Int64[Ids, "repeats"]) -> tuple[Mean, Mean, Mean]:
        """Means of loss, entropy and activations over the repeats, at some of the places.

        Args:
            columns: which places.
            groups: the group of each repeat, as in `Repeats`.
        """
        places = (values[:, columns] for values in (self.loss, self.entropy, self.activations))
        loss, entropy, activations = (mean_over(values, groups) for values in places)
        return loss, entropy, activations

    def occurrences(self, inside: Bool[Tensor, "places"]) -> tuple[RepeatMeans, RepeatMeans]:
        """Each repeat's means over its first and over its second occurrence.

        Args:
            inside: which places are of the occurrences, as in `Repeats`.
        """
        places = (values[:, inside] for values in (self.loss, self.entropy, self.activations))
        halves = ((of_repeats(half) for half in values.chunk(2, dim=1)) for values in places)
        first, second = zip(*halves, strict=True)
        return RepeatMeans(*first), RepeatMeans(*second)


@dataclass(frozen=True)
class OccurrenceMeans:
    """Means over an occurrence's places and over repeats, or what is built of such means."""

    loss: Mean
    """[], nats."""
    entropy: Mean
    """[], nats."""
    activations: Mean
    """[neurons]"""

    @classmethod
    def of(
        cls,
        parts: Mapping[str, RepeatMeans],
        groups: Int64[Ids, "repeats"],
        built: Callable[[Mapping[str, Array]], Array],
    ) -> "OccurrenceMeans":
        """What is built of means over repeats of several occurrences, for loss, entropy and activations each.

        Args:
            parts: the occurrences by name.
            groups: the group of each repeat, as in `Repeats`.
            built: from the means of `parts` by name.
        """

        def mean(name: str) -> Mean:
            return built_of({key: getattr(part, name) for key, part in parts.items()}, groups, built)

        return cls(mean("loss"), mean("entropy"), mean("activations"))


@dataclass(frozen=True)
class ExampleSequence:
    """One of the sequences, to look at."""

    sequence: int
    loss: Float[Tensor, "length"]
    """At a token, of the next one, nats; NaN at the last."""


@dataclass(frozen=True)
class AfterOccurrences:
    """B and X in Figure 9a: the position after the first occurrence, and the one after the second."""

    loss: Mean
    """[2], nats."""
    entropy: Mean
    """[2], nats."""
    activations: Mean
    """[2, neurons]"""


@dataclass(frozen=True)
class Curves:
    """Figures 5a, 9a, 10a: by position of the first occurrence, then of the second."""

    loss: Mean
    """[2·span], nats."""
    entropy: Mean
    """[2·span], nats."""
    activations: Mean
    """[2·span, neurons]"""
    references: Float[Tensor, "neurons"]
    """What clipping brings each neuron down to."""
    examples: list[ExampleSequence]
    after: AfterOccurrences | None
    """None where text is doubled."""
    first: OccurrenceMeans
    """Means over the whole of the first occurrence."""
    second: OccurrenceMeans
    """Means over the whole of the second occurrence."""
    change: OccurrenceMeans
    """Second − first, paired by repeat."""

    @classmethod
    def of(
        cls,
        readings: Readings,
        repeats: Repeats,
        references: Float[Tensor, "neurons"],
        examples: list[ExampleSequence],
    ) -> "Curves":
        """From readings of the plain model."""
        inside, groups = repeats.inside, repeats.groups
        first, second = readings.occurrences(inside)
        both = {"first": first, "second": second}
        return cls(
            *readings.means(inside, groups),
            references,
            examples,
            None if inside.all() else AfterOccurrences(*readings.means(~inside, groups)),
            first=OccurrenceMeans.of(both, groups, lambda means: means["first"]),
            second=OccurrenceMeans.of(both, groups, lambda means: means["second"]),
            change=OccurrenceMeans.of(both, groups, lambda means: means["second"] - means["first"]),
        )


@dataclass(frozen=True)
class ActivationChange:
    """Figure 11: every neuron's mean activation over the second occurrence less that over the first, [d_mlp]."""

    change: Mean


class PlainPass:
    """What the model as it is does on repeated text, gathered batch by batch."""

    def __init__(self, model: AnalysisModel, repeats: Repeats, neurons: Sequence[int], *, keep_stream: bool) -> None:
        """A pass that has read nothing yet.

        Args:
            neurons: of the last layer, whose activations are read.
            keep_stream: whether the residual stream at the second occurrences is kept, which clipping starts from.
        """
        self._model, self._repeats, self._neurons, self._keep_stream = model, repeats, list(neurons), keep_stream
        self.examples: list[ExampleSequence] = []
        self._readings: list[Readings] = []
        self._stream: list[Tensor] = []
        self._mlp_raw: list[Tensor] = []
        self._means: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._sequences = 0

    def run(self, batches: Sequence[Repeats]) -> Generator[str, None, None]:
        """Run the model over all batches, saying so after each."""
        for batch in batches:
            self._add(batch)
            yield "running the model on the repeated text"

    @property
    def readings(self) -> Readings:
        """What was read of all repeats."""
        return Readings.joined(self._readings)

    @property
    def activation_change(self) -> ActivationChange:
        """How much more each neuron of the layer is active on second occurrences."""
        first, second = (torch.cat(means) for means in self._means)
        return ActivationChange(change(first, second, self._repeats.groups))

    @property
    def stream(self) -> Float[Tensor, "tokens d_model"]:
        """The residual stream after the last block at all tokens that `second_places` means."""
        return torch.cat(self._stream)

    @property
    def mlp_raw(self) -> Float[Tensor, "tokens d_model"] | None:
        """What the last MLP writes there before the norm that follows it; None where none does."""
        return torch.cat(self._mlp_raw) if self._mlp_raw else None

    def _add(self, batch: Repeats) -> None:
        trace, readout = self._model.trace(batch.tokens), self._model.readout
        self._readings.append(read_repeats(readout, batch, trace.residual, trace.activations[..., self._neurons]))
        for places, means in zip((batch.first, batch.second), self._means, strict=True):
            means.append(_mean_at(trace.activations, batch, places))
        if self._keep_stream:
            meant = second_places(batch)
            rows = batch.sequence[:, None].expand_as(meant)[meant]
            places = batch.places[:, batch.reach :][meant]
            self._stream.append(trace.residual[rows, places])
            if readout.post_norm is not None:
                self._mlp_raw.append(readout.post_norm.before(trace.activations[rows, places]))
        for row in range(min(len(batch.tokens), _EXAMPLES - len(self.examples))):
            targets = torch.cat([batch.tokens[row, 1:], torch.tensor([-1])]).to(trace.residual.device)
            loss, _ = loss_and_entropy(readout, trace.residual[row], targets)
            self.examples.append(ExampleSequence(self._sequences + row, loss.cpu()))
        self._sequences += len(batch.tokens)


def second_places(repeats: Repeats) -> Bool[Tensor, "repeats reach"]:
    """Which places of second occurrences, and of what follows them, are meant."""
    return repeats.present[:, repeats.reach :]


def read_repeats(
    readout: Readout,
    batch: Repeats,
    residual: Float[Tensor, "sequences length d_model"],
    activations: Float[Tensor, "sequences length neurons"],
) -> Readings:
    """What the model predicts and its neurons do at the places of repeats.

    Args:
        residual: the stream after the last block.
        activations: of the neurons that are read.
    """
    present, targets = batch.present, batch.targets
    rows = batch.sequence[:, None].expand_as(batch.places)[present].to(residual.device)
    places = batch.places[present].to(residual.device)
    loss, entropy = loss_and_entropy(readout, residual[rows, places], targets[present].to(residual.device))
    return Readings(*(_placed(present, values) for values in (loss, entropy, activations[rows, places])))


def loss_and_entropy(
    readout: Readout, x: Float[Tensor, "rows d_model"], targets: Int[Tensor, "rows"]
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Loss and entropy after residuals x, in nats; the loss is NaN where a target is −1."""
    loss, entropy = [], []
    for rows, following in zip(x.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
        centred = readout.centred(rows)
        predicted = distribution(readout.logits(centred, readout.scale(centred)), following.clamp_min(0))
        loss.append(predicted.loss.where(following >= 0, torch.nan))
        entropy.append(predicted.entropy)
    return torch.cat(loss), torch.cat(entropy)


def _placed(present: Tensor, values: Tensor) -> Tensor:
    """Values [present places, ...] where they belong, [repeats, 2·reach, ...]; NaN elsewhere."""
    placed = torch.full((*present.shape, *values.shape[1:]), torch.nan)
    placed[present] = values.cpu()
    return placed


def _mean_at(activations: Tensor, batch: Repeats, places: Tensor) -> Tensor:
    """Each repeat's mean over its tokens at places [repeats, span], [repeats, d_mlp]."""
    means = [
        activations[sequence, positions[valid].to(activations.device)].mean(dim=0)
        for sequence, positions, valid in zip(batch.sequence.tolist(), places, batch.valid, strict=True)
    ]
    return torch.stack(means).cpu() if means else torch.zeros(0, activations.shape[-1])
