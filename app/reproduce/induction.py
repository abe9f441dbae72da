"""The induction jobs that a reproduction is made from: which it needs, which the atlas has, what they found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from backend.client import AsyncClient, calls
from backend.schemas import (
    MAX_JOBS_LISTED,
    InductionAttribution,
    InductionChange,
    InductionClip,
    InductionCurves,
    InductionHeads,
    InductionJobRequest,
    InductionKnockout,
    InductionPart,
    InductionProblem,
    InductionStart,
    Job,
    JobRequest,
    NeuronColumns,
    RunSummary,
)

JobKind = Literal["doubled", "natural", "frequency"]
"""Text written twice; text that repeats of itself; text written twice, for token-frequency neurons."""
PARTS_OF: dict[JobKind, tuple[InductionPart, ...]] = {
    "doubled": ("curves", "clip", "change", "heads", "bos", "mean_output", "attribution"),
    "natural": ("curves", "clip", "change"),
    "frequency": ("curves", "clip", "change"),
}
SPAN, NATURAL_SPAN = 100, 6
RANDOM_NEURONS = 10
"""Neurons without a class that are measured beside the others, as many as the paper sets beside token-frequency
neurons: the null of every check on single tokens and on repeated text."""


@dataclass(frozen=True)
class Chosen:
    """A run's neurons, and those that are looked at one by one, the strongest first."""

    columns: NeuronColumns
    entropy: list[str]
    frequency: list[str]

    def needed(self, kind: JobKind) -> set[str]:
        """Neurons that a job must have measured to serve."""
        needed = self.frequency if kind == "frequency" else self.entropy[:1]
        return {*needed, *random_neurons(self)} if needed else set()


@dataclass
class Induction:
    """What one finished job found."""

    job: int
    start: InductionStart
    curves: InductionCurves | None = None
    clips: dict[str, InductionClip] = field(default_factory=dict)
    change: InductionChange | None = None
    heads: InductionHeads | None = None
    knockouts: list[InductionKnockout] = field(default_factory=list)
    attributions: list[InductionAttribution] = field(default_factory=list)

    @property
    def apart(self) -> bool:
        """Whether text lies between the two occurrences."""
        return self.start.source == "natural"

    @property
    def outdated(self) -> bool:
        """Whether it was measured before what follows a repeat was: then Figure 9a lacks B and X."""
        return self.apart and self.curves is not None and self.curves.after is None


def request_for(kind: JobKind, run: RunSummary, who: Chosen, sequences: int) -> InductionJobRequest | None:
    """The job that a kind of figure is made from; None where the run has no neuron that it could be about."""
    if kind == "frequency" and not who.frequency:
        return None
    natural = kind == "natural"
    neurons = who.frequency if kind == "frequency" else who.entropy
    return InductionJobRequest(
        source="natural" if natural else "synthetic",
        sequences=sequences,
        span=NATURAL_SPAN if natural else min(SPAN, run.seq_len - 1),
        parts=list(PARTS_OF[kind]),
        neurons=[*neurons, *random_neurons(who)] if neurons else [],
        heads=[],
        knocked_out_at="measured",
        run=run.id,
    )


def random_neurons(who: Chosen) -> list[str]:
    """Some neurons without a class; of one run always the same."""
    plain = [name for name, kind in zip(who.columns.neuron, who.columns.neuron_class, strict=True) if kind == "plain"]
    plain = [name for name in plain if name not in {*who.frequency, *who.entropy}]
    rows = np.random.default_rng(0).choice(len(plain), min(RANDOM_NEURONS, len(plain)), replace=False)
    return [plain[row] for row in sorted(rows)]


async def find(client: AsyncClient, kind: JobKind, run: RunSummary, who: Chosen) -> Induction | str:
    """What the newest finished job of that kind found, or a sentence that says why there is none.

    Raises:
        ApiError: the service did not answer.
    """
    wanted = request_for(kind, run, who, 1)
    if wanted is None:
        return "The run has no token-frequency neurons."
    alike = _alike((await client.send(calls.jobs(MAX_JOBS_LISTED))).jobs, wanted)
    for job in alike:
        if job.status == "finished":
            induction = await read(client, job.id)
            if induction is not None and who.needed(kind) <= set(induction.start.neurons):
                return induction
    failed = next((f" The last one failed: {job.message}" for job in alike if job.status == "failed"), "")
    return (
        f"Run {run.id} has no finished induction job ({wanted.source}, {wanted.span} tokens) for it.{failed} "
        "`calibroscope reproduce` does what is missing unless --induction is 0."
    )


def _alike(jobs: Sequence[Job], wanted: InductionJobRequest) -> list[Job]:
    """Jobs of a run on one kind of text that measure at least as much, of the model's own heads and changed at the
    measured position alone, as the paper's authors do."""
    alike = []
    for job in jobs:
        asked = InductionJobRequest.model_validate(job.request)
        same = (job.run, asked.source, asked.span) == (wanted.run, wanted.source, wanted.span)
        changes_heads = bool({"bos", "mean_output"} & set(wanted.parts))
        same = same and (asked.knocked_out_at == wanted.knocked_out_at or not changes_heads)
        if same and not asked.heads and set(wanted.parts) <= set(asked.parts):
            alike.append(job)
    return alike


async def read(client: AsyncClient, job: int) -> Induction | None:
    """What a job that has ended found; None if it did not even begin.

    Raises:
        ApiError: there is no such job.
    """
    induction: Induction | None = None
    async for event in client.stream(calls.follow_job(job)):
        one = event.root
        if isinstance(one, InductionStart):
            induction = Induction(job, one)
        elif induction is None or isinstance(one, InductionProblem):
            return None
        elif isinstance(one, InductionClip):
            induction.clips[one.neuron] = one
        elif isinstance(one, InductionKnockout):
            induction.knockouts.append(one)
        elif isinstance(one, InductionAttribution):
            induction.attributions.append(one)
        elif isinstance(one, InductionCurves):
            induction.curves = one
        elif isinstance(one, InductionChange):
            induction.change = one
        elif isinstance(one, InductionHeads):
            induction.heads = one
    return induction


async def queue_missing(
    client: AsyncClient, kinds: Iterable[JobKind], run: RunSummary, who: Chosen, sequences: int
) -> list[Job]:
    """Queue what the atlas lacks, and again what it has from before all was measured, on no fewer sequences; the jobs,
    for somebody to do.

    Raises:
        ApiError: the service refuses a job.
    """
    queued = []
    for kind in kinds:
        induction = await find(client, kind, run, who)
        known = 0 if isinstance(induction, str) else induction.start.sequences
        wanted = request_for(kind, run, who, max(sequences, known))
        if wanted is not None and (isinstance(induction, str) or induction.outdated):
            queued.append(await client.send(calls.add_job(JobRequest(model=run.model, induction=wanted))))
    return queued
