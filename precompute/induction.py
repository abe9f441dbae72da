"""The induction lab at full size: a job's parts, each kept in the atlas when it is done."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from backend import schemas
from backend.answers.induction import InductionAnswers
from backend.atlas.records import Array, JobRecord, RunRecord
from backend.atlas.store import Atlas
from backend.core.errors import CalibroscopeError, SourceError
from backend.core.induction.experiment import Experiment, ExperimentPart, Plan, Progress
from backend.core.induction.readings import ActivationChange
from backend.core.induction.text import CorpusSequences, Repeats, RepeatSpec, find_repeats
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.devices import device_name, refusing_memory_errors
from backend.core.models.sources import ReadFiles
from backend.requests.induction import plan, repeat_spec
from precompute.config import RESULTS_FORMAT
from precompute.corpus import open_corpus, pack, tokens_hash
from precompute.kept import fingerprint
from precompute.maker import software
from precompute.progress import Reporter

GROUPS: tuple[tuple[ExperimentPart, ...], ...] = (
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


def made_by(read: ReadFiles, device: torch.device) -> str:
    """Fingerprint of what computes a job's results, besides the text: weights, tokenizer, code, packages, device."""
    return fingerprint(format=RESULTS_FORMAT, model=read.fingerprint, versions=software(), device=device_name(device))


class JobCancelled(CalibroscopeError):
    """Somebody asked for the job to stop."""


def carry_out(
    job: JobRecord, atlas: Atlas, model: AnalysisModel, made_by: str, cache: Path, reporter: Reporter
) -> None:
    """Measure what the job still lacks.

    Args:
        made_by: of the model, as the function of that name has it.

    Raises:
        JobCancelled: it was cancelled meanwhile; what was done is kept.
        CalibroscopeError: with a sentence that says what to do.
    """
    request = schemas.InductionJobRequest.model_validate(job.request)
    run = None if job.run is None else atlas.runs.get(job.run)
    spec = _with_corpus(repeat_spec(atlas, request, run), run, cache, model, reporter)
    measured = plan(atlas, request, model.experts, run)
    repeats, summary = find_repeats(model, spec)
    made_from = f"{made_by}:{tokens_hash(repeats.tokens.cpu().numpy())}"
    job = atlas.jobs.take_up(job.id, made_from)
    bos = spec.bos(model)
    answers = InductionAnswers(model, repeats, measured.neurons)
    if "start" not in job.parts_done:
        start = answers.start(spec.source, measured.summary(summary))
        _keep(atlas, job.id, "start", [start.model_dump_json()], made_from)
    groups = [group for group in GROUPS if set(group) & measured.parts]
    reporter.stage(f"Induction (job {job.id})", len(groups), 0, "parts")
    for place, group in enumerate(groups):
        if group[0] not in job.parts_done:
            share = _Share(atlas, job.id, place, len(groups))
            _measure(atlas, job, model, repeats, measured, bos, group, answers, share, made_from)
        reporter.advance(1)


def _measure(
    atlas: Atlas,
    job: JobRecord,
    model: AnalysisModel,
    repeats: Repeats,
    measured: Plan,
    bos: int | None,
    group: tuple[ExperimentPart, ...],
    answers: InductionAnswers,
    say: Say,
    made_from: str,
) -> None:
    part = replace(measured, parts=frozenset(group) & measured.parts)
    payloads: list[str] = []
    neurons: dict[str, Array] | None = None
    with refusing_memory_errors(f"Measuring induction on {len(repeats.tokens)} sequences"):
        for result in Experiment(model, repeats, part, bos).steps():
            if isinstance(result, Progress):
                say(result.done / result.of, result.doing)
                continue
            event = answers.event(result)
            if event.kind == "heads" and group[0] != "heads":
                continue  # scored again for the heads that are knocked out: they are the same
            payloads.append(event.model_dump_json())
            if isinstance(result, ActivationChange):
                neurons = _of_neurons(atlas, job, model, result)
    _keep(atlas, job.id, group[0], payloads, made_from, neurons)


def _keep(
    atlas: Atlas,
    job: int,
    part: str,
    payloads: list[str],
    made_from: str,
    neurons: dict[str, Array] | None = None,
) -> None:
    if not atlas.jobs.keep_part(job, part, payloads, made_from, neurons):
        raise JobCancelled(f"Job {job} has been taken up by another worker.")


def _of_neurons(
    atlas: Atlas, job: JobRecord, model: AnalysisModel, change: ActivationChange
) -> dict[str, Array] | None:
    """The change of activation as metrics of the neurons of the job's run; None where it is not of the last layer."""
    if job.run is None or atlas.runs.get(job.run).layer != model.last_layer:
        return None
    return {"induction_change": change.change.mean.numpy(), "induction_change_se": change.change.se.numpy()}


class _Share:
    """Progress of a part as progress of the job; stops a job that was cancelled."""

    def __init__(self, atlas: Atlas, job: int, place: int, groups: int) -> None:
        self._atlas, self._job, self._place, self._groups = atlas, job, place, groups

    def __call__(self, share: float, doing: str) -> None:
        if not self._atlas.jobs.report_progress(self._job, (self._place + min(share, 1.0)) / self._groups, doing):
            raise JobCancelled(f"Job {self._job} was cancelled.")


def _with_corpus(
    spec: RepeatSpec, run: RunRecord | None, cache: Path, model: AnalysisModel, reporter: Reporter
) -> RepeatSpec:
    """The run's whole corpus in place of its sample, where it is at hand and more text is wanted than that holds."""
    if spec.corpus is None or run is None:
        return spec
    needed = spec.sequences * (_SEARCHED if spec.source == "natural" else 1)
    if needed <= len(spec.corpus.tokens):
        return spec
    name, split, field = (str(run.config.get(key) or "") for key in ("dataset", "split", "field"))
    try:
        corpus = open_corpus(name, cache, reporter.say, split=split or "train", field=field or "text")
        tokens = pack(corpus, model, needed, run.seq_len, run.seed, spec.bos(model))
    except SourceError as error:
        reporter.say(f"The corpus of run {run.id} is not at hand ({error}); its stored sample is used.")
        return spec
    return spec if len(tokens) <= len(spec.corpus.tokens) else replace(spec, corpus=CorpusSequences(tokens, name))
