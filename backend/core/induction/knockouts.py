"""Attention heads changed, and what last-layer neurons and predictions do then (Figures 5c, 12, 13)."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from backend.core.induction.readings import OfRepeats, OverOccurrence, Readings, read_repeats
from backend.core.induction.repeats import Repeats
from backend.core.induction.single_position import Unchanged, changed_alone, unchanged
from backend.core.interventions.heads import bos_hooks, continued, output_hooks, output_sums, prefixes
from backend.core.metrics.induction import Mean, knocked_out
from backend.core.metrics.jackknife import Array, groups_of
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId

How = Literal["bos", "mean_output"]
Role = Literal["induction", "baseline"]
Where = Literal["every", "measured"]
"""`every`: heads are changed at every position, so that later positions look back on changed ones. `measured`: at the
position that is read alone, as in the paper's authors' code."""
_POSITIONS_AT_ONCE = 16
"""Positions between two words on progress, where heads are changed at one alone."""
_PREFIX_BYTES = 1 << 30
"""Residual streams kept, so that the model before the first changed head runs once."""


@dataclass(frozen=True)
class Job:
    """Heads changed together."""

    how: How
    role: Role
    heads: list[HeadId]

    @property
    def layer(self) -> int:
        """The first that is changed."""
        return min(head.layer for head in self.heads)


@dataclass(frozen=True)
class Knockout:
    """What the model does then, by position: [2·span] each."""

    job: Job
    where: Where
    loss: Mean
    entropy: Mean
    activations: Mean
    """[2·span, neurons]"""
    second: OverOccurrence
    """Means over the whole of the second occurrence."""
    difference: OverOccurrence
    """By how much they differ from those with every head in place, paired by repeat."""
    left: Mean
    """What is left of each neuron's change of activation between the occurrences, [neurons]: (second occurrence with
    the heads changed − first) / (second − first), the latter two with every head in place; 1 is all, 0 nothing."""


def jobs(chosen: Sequence[HeadId], baselines: Sequence[HeadId], parts: AbstractSet[str]) -> list[Job]:
    """Induction heads alone and together, baselines likewise; mean outputs of induction heads alone."""
    found: list[Job] = []
    if "bos" in parts:
        found += [Job("bos", "induction", heads) for heads in _together(chosen)]
        found += [Job("bos", "baseline", heads) for heads in _together(baselines)]
    if "mean_output" in parts:
        found += [Job("mean_output", "induction", heads) for heads in _together(chosen)]
    return found


def planned(heads: int, parts: AbstractSet[str]) -> int:
    """How many jobs so many heads, and as many baselines, will be."""
    together = len(knocked_out([(0, head) for head in range(heads)]))
    return 2 * together * ("bos" in parts) + together * ("mean_output" in parts)


def _left(means: Mapping[str, Array]) -> Array:
    return (means["out"] - means["first"]) / (means["second"] - means["first"])


def _together(heads: Sequence[HeadId]) -> list[list[HeadId]]:
    pairs = [(head.layer, head.index) for head in heads]
    return [[HeadId(*pair) for pair in group] for group in knocked_out(pairs)]


class Knockouts:
    """Runs jobs over batches of repeated text."""

    def __init__(
        self, model: AnalysisModel, batches: Sequence[Repeats], indices: list[int], where: Where = "every"
    ) -> None:
        """indices: last-layer neurons whose activations are told; where: the positions at which heads are changed."""
        self._model, self._batches, self._indices, self._where = model, batches, indices, where
        self._groups = groups_of(np.concatenate([part.source[part.sequence].numpy() for part in batches]))
        self._kept: dict[int, dict[int, Tensor]] = {}
        self._bytes = 0

    def steps_of(self, jobs: int, *, mean_outputs: bool) -> int:
        """How many words on progress `steps` has for so many jobs."""
        a_job = sum(1 if self._where == "every" else len(_pieces(part)) for part in self._batches)
        return jobs * a_job + (mean_outputs + bool(jobs)) * len(self._batches)

    def steps(self, jobs: Sequence[Job]) -> Iterator[str | Knockout]:
        """Does a little at a time: says what it did, and yields each job's result."""
        outputs = yield from self._outputs([job for job in jobs if job.how == "mean_output"])
        readings: dict[int, list[Readings]] = {number: [] for number in range(len(jobs))}
        if self._where == "measured":
            yield from self._at_measured(jobs, outputs, readings)
        layers = {job.layer for job in jobs}
        inside, plain = self._batches[0].inside, (yield from self._unchanged(jobs))
        for number, job in enumerate(jobs):
            if self._where == "every":
                yield from self._everywhere(job, outputs, layers, readings[number])
            joined = Readings.joined(readings[number])
            changed = plain | {"out": joined.occurrences(inside)[1]}
            yield Knockout(
                job,
                self._where,
                *joined.means(inside, self._groups),
                second=OverOccurrence.of(changed, self._groups, lambda means: means["out"]),
                difference=OverOccurrence.of(changed, self._groups, lambda means: means["out"] - means["second"]),
                left=OverOccurrence.of(changed, self._groups, _left).activations,
            )

    def _unchanged(self, jobs: Sequence[Job]) -> Generator[str, None, dict[str, OfRepeats]]:
        """Each repeat's means over both occurrences with every head in place."""
        readings: list[Readings] = []
        for part in self._batches if jobs else ():
            trace = self._model.trace(part.tokens)
            own = trace.activations[..., self._indices]
            readings.append(read_repeats(self._model.readout, part, trace.residual, own))
            yield "reading the neurons with every head in place"
        if not readings:
            return {}
        first, second = Readings.joined(readings).occurrences(self._batches[0].inside)
        return {"first": first, "second": second}

    def _everywhere(
        self, job: Job, outputs: Mapping[HeadId, Tensor], layers: AbstractSet[int], readings: list[Readings]
    ) -> Iterator[str]:
        for number, part in enumerate(self._batches):
            hooks = bos_hooks(job.heads) if job.how == "bos" else output_hooks(job.heads, outputs)
            prefix = self._prefixes(number, part, layers)[job.layer]
            residual, activations = continued(self._model, prefix, job.layer, hooks)
            readings.append(read_repeats(self._model.readout, part, residual, activations[..., self._indices]))
            yield _doing(job)

    def _at_measured(
        self, jobs: Sequence[Job], outputs: Mapping[HeadId, Tensor], readings: Mapping[int, list[Readings]]
    ) -> Iterator[str]:
        heads = sorted({head for job in jobs for head in job.heads})
        for part in self._batches:
            before = unchanged(self._model, part.tokens, heads, self._indices)
            for number, job in enumerate(jobs):
                yield from self._one_at_a_time(job, before, part, outputs, readings[number])

    def _one_at_a_time(
        self, job: Job, before: Unchanged, part: Repeats, outputs: Mapping[HeadId, Tensor], readings: list[Readings]
    ) -> Iterator[str]:
        # At the first position a head has nothing else to look at: BOS ablation leaves it as it is.
        residual, activations = before.residual.clone(), before.activations.clone()
        written = None if job.how == "bos" else outputs
        for places in _pieces(part):
            for place, x, n in changed_alone(self._model, before, places, job.heads, self._indices, written):
                residual[:, place], activations[:, place] = x, n
            yield _doing(job)
        readings.append(read_repeats(self._model.readout, part, residual, activations))

    def _outputs(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Each head's z, averaged over the tokens of all second occurrences."""
        heads = sorted({head for job in jobs for head in job.heads})
        sums: dict[HeadId, Tensor] = {}
        count = 0
        for part in self._batches if heads else ():
            found, tokens = output_sums(self._model, part, heads)
            sums = {head: total + sums.get(head, 0) for head, total in found.items()}
            count += tokens
            yield "averaging what the heads write"
        return {head: total / count for head, total in sums.items()}

    def _prefixes(self, number: int, part: Repeats, layers: AbstractSet[int]) -> dict[int, Tensor]:
        if number in self._kept:
            return self._kept[number]
        found = prefixes(self._model, part.tokens, layers)
        size = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
        if self._bytes + size <= _PREFIX_BYTES:
            self._kept[number], self._bytes = found, self._bytes + size
        return found


def _doing(job: Job) -> str:
    return f"knocking out {', '.join(map(str, job.heads))}"


def _pieces(part: Repeats) -> list[list[int]]:
    """The positions that are read of some sequence, a few at a time."""
    places = torch.unique(part.places[part.present]).tolist()
    return [places[start : start + _POSITIONS_AT_ONCE] for start in range(0, len(places), _POSITIONS_AT_ONCE)]
