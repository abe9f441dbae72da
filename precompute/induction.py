"""The induction lab at full size: a job's parts, each kept in the atlas when it is done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from backend import schemas
from backend.atlas.records import JobRecord, RunRecord
from backend.atlas.store import Atlas
from backend.core.devices import refusing_memory_errors
from backend.core.errors import CalibroscopeError, SourceError
from backend.core.induction import Change, Experiment, Part, Plan, Progress
from backend.core.model import AnalysisModel
from backend.core.repeating import Corpus, Wanted, find_repeats
from backend.core.repeats import Repeats
from backend.induction_request import plan, wanted
from backend.live.induction_answers import Told
from precompute.corpus import open_corpus, pack
from precompute.progress import Reporter

GROUPS: tuple[tuple[Part, ...], ...] = (
    ("curves", "clip", "change"),
    ("heads",),
    ("bos",),
    ("mean_output",),
    ("attribution",),
)
"""Parts that are measured together: what a job that was stopped does not do again."""
_SEARCHED = 40
"""Corpus sequences that are searched for every natural repeat that is wanted."""

Say = Callable[[float, str], None]


class JobCancelled(CalibroscopeError):
    """Somebody asked for the job to stop."""


def carry_out(job: JobRecord, atlas: Atlas, model: AnalysisModel, cache: Path, reporter: Reporter) -> None:
    """Measure what the job still lacks.

    Raises:
        JobCancelled: it was cancelled meanwhile; what was done is kept.
        CalibroscopeError: with a sentence that says what to do.
    """
    request = schemas.InductionJobRequest.model_validate(job.request)
    run = None if job.run is None else atlas.run(job.run)
    asked = _with_corpus(wanted(atlas, request, run), run, cache, model, reporter)
    measured = plan(atlas, request, run)
    repeats, told = find_repeats(model, asked)
    bos = asked.bos(model)
    telling = Told(model, repeats, measured.neurons)
    if "start" not in job.parts_done:
        if "clip" in measured.parts:
            told += f" Clipping brings a neuron down to {measured.reference}."
        atlas.add_job_part(job.id, "start", [telling.start(asked.source, told).model_dump_json()])
    groups = [group for group in GROUPS if set(group) & measured.parts]
    reporter.stage(f"Induction (job {job.id})", len(groups), 0, "parts")
    for place, group in enumerate(groups):
        if group[0] not in job.parts_done:
            share = _Share(atlas, job.id, place, len(groups))
            _measure(atlas, job, model, repeats, measured, bos, group, telling, share)
        reporter.advance(1)


def _measure(
    atlas: Atlas,
    job: JobRecord,
    model: AnalysisModel,
    repeats: Repeats,
    measured: Plan,
    bos: int | None,
    group: tuple[Part, ...],
    telling: Told,
    say: Say,
) -> None:
    own = replace(measured, parts=frozenset(group) & measured.parts)
    payloads: list[str] = []
    with refusing_memory_errors(f"Measuring induction on {len(repeats.tokens)} sequences"):
        for found in Experiment(model, repeats, own, bos).steps():
            if isinstance(found, Progress):
                say(found.done / found.of, found.doing)
                continue
            event = telling.event(found)
            if event.kind == "heads" and group[0] != "heads":
                continue  # scored again for the heads that are knocked out: they are the same
            payloads.append(event.model_dump_json())
            if isinstance(found, Change) and job.run is not None:
                _keep_change(atlas, job.run, model, found)
    atlas.add_job_part(job.id, group[0], payloads)


def _keep_change(atlas: Atlas, run: int, model: AnalysisModel, found: Change) -> None:
    if atlas.run(run).layer == model.last_layer:
        atlas.add_induction_change(run, found.change.mean.numpy(), found.change.se.numpy())


class _Share:
    """Progress of a part as progress of the job; stops a job that was cancelled."""

    def __init__(self, atlas: Atlas, job: int, place: int, groups: int) -> None:
        self._atlas, self._job, self._place, self._groups = atlas, job, place, groups

    def __call__(self, share: float, doing: str) -> None:
        if not self._atlas.tell_job(self._job, (self._place + min(share, 1.0)) / self._groups, doing):
            raise JobCancelled(f"Job {self._job} was cancelled.")


def _with_corpus(asked: Wanted, run: RunRecord | None, cache: Path, model: AnalysisModel, reporter: Reporter) -> Wanted:
    """The run's whole corpus in place of its sample, where it is at hand and more text is wanted than that holds."""
    if asked.corpus is None or run is None:
        return asked
    needed = asked.sequences * (_SEARCHED if asked.source == "natural" else 1)
    if needed <= len(asked.corpus.tokens):
        return asked
    name, split, field = (str(run.config.get(key) or "") for key in ("dataset", "split", "field"))
    try:
        corpus = open_corpus(name, cache, reporter.say, split=split or "train", field=field or "text")
        tokens = pack(corpus, model, needed, run.seq_len, run.seed, asked.bos(model))
    except SourceError as error:
        reporter.say(f"The corpus of run {run.id} is not at hand ({error}); its stored sample is used.")
        return asked
    return asked if len(tokens) <= len(asked.corpus.tokens) else replace(asked, corpus=Corpus(tokens, name))
