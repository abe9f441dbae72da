"""Attention heads changed, and what last-layer neurons and predictions do then (Figures 5c, 12, 13)."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from backend.core.attention import bos_hooks, continued, output_hooks, output_sums, prefixes
from backend.core.metrics.induction import Mean, knocked_out
from backend.core.model import AnalysisModel
from backend.core.neurons import HeadId
from backend.core.repeating import Readings, read_repeats
from backend.core.repeats import Repeats

How = Literal["bos", "mean_output"]
Role = Literal["induction", "baseline"]
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
    loss: Mean
    entropy: Mean
    activations: Mean
    """[2·span, neurons]"""


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
    """Passes over the text that so many heads, and as many baselines, will take."""
    together = len(knocked_out([(0, head) for head in range(heads)]))
    return 2 * together * ("bos" in parts) + (together + 1) * ("mean_output" in parts)


def _together(heads: Sequence[HeadId]) -> list[list[HeadId]]:
    pairs = [(head.layer, head.index) for head in heads]
    return [[HeadId(*pair) for pair in group] for group in knocked_out(pairs)]


class Knockouts:
    """Runs jobs over batches of repeated text."""

    def __init__(self, model: AnalysisModel, batches: Sequence[Repeats], indices: list[int]) -> None:
        """indices: last-layer neurons whose activations are told."""
        self._model, self._batches, self._indices = model, batches, indices
        self._kept: dict[int, dict[int, Tensor]] = {}
        self._bytes = 0

    def passes(self, jobs: Sequence[Job]) -> int:
        """How often `steps` goes through all batches."""
        return len(jobs) + any(job.how == "mean_output" for job in jobs)

    def steps(self, jobs: Sequence[Job]) -> Iterator[str | Knockout]:
        """Does one batch at a time: says what it did, and yields each job's result."""
        outputs = yield from self._outputs([job for job in jobs if job.how == "mean_output"])
        layers = {job.layer for job in jobs}
        for job in jobs:
            readings: list[Readings] = []
            for number, part in enumerate(self._batches):
                hooks = bos_hooks(job.heads) if job.how == "bos" else output_hooks(job.heads, outputs)
                prefix = self._prefixes(number, part, layers)[job.layer]
                residual, activations = continued(self._model, prefix, job.layer, hooks)
                readings.append(read_repeats(self._model.readout, part, residual, activations[..., self._indices]))
                yield f"knocking out {', '.join(map(str, job.heads))}"
            yield Knockout(job, *Readings.joined(readings).means(self._batches[0].inside))

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
