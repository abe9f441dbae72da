"""The worker: takes jobs from the atlas, one after another, and tells how far they are."""

import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch

from backend import schemas
from backend.atlas.records import JobRecord
from backend.atlas.store import Atlas
from backend.core.errors import CalibroscopeError, SourceError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.devices import choose_device
from backend.core.models.dtypes import AUTO
from backend.core.models.sources import ReadFiles, find_model
from backend.core.models.trust import KnownSources
from precompute import induction
from precompute.progress import Reporter

log = structlog.get_logger(__name__)
POLL_SECONDS = 2.0
_RECENT = 200


class Worker:
    """Does jobs; keeps the last model that it used in memory."""

    def __init__(
        self,
        atlas: Atlas,
        cache: Path,
        reporter: Reporter,
        device: str = "auto",
        known: KnownSources | None = None,
    ) -> None:
        """known: which sources models may be loaded from; None trusts whatever the atlas names."""
        self._known = known
        self._atlas, self._cache, self._reporter, self._device = atlas, cache, reporter, device
        self._model: _Loaded | None = None

    def work(self, *, once: bool = False) -> int:
        """Take jobs as they come; with `once`, until none is waiting. Returns how many were taken."""
        taken = 0
        while True:
            job = self._atlas.jobs.take()
            if job is not None:
                taken += 1
                self.do(job)
            elif once:
                return taken
            else:
                time.sleep(POLL_SECONDS)

    def do(self, job: JobRecord) -> None:
        """Carry out one job and tell the atlas how it ended. A job whose worker is interrupted waits again."""
        self._reporter.say(f"Job {job.id}: {job.kind} of {job.model}.")
        try:
            with torch.inference_mode():
                loaded = self._loaded(job)
                made_by = induction.made_by(loaded.read, loaded.model.device)
                induction.carry_out(job, self._atlas, loaded.model, made_by, self._cache, self._reporter)
        except induction.JobCancelled as error:
            self._reporter.say(str(error))
        except (KeyboardInterrupt, SystemExit):
            self._atlas.jobs.requeue(job.id)
            raise
        except CalibroscopeError as error:
            self._failed(job, str(error))
        except Exception as error:  # the worker goes on with other jobs
            log.exception("job failed", job=job.id)
            self._failed(job, f"{type(error).__name__}: {error}")
        else:
            self._atlas.jobs.end(job.id, "finished")
            self._reporter.say(f"Job {job.id} is finished.")

    def _failed(self, job: JobRecord, sentence: str) -> None:
        self._atlas.jobs.end(job.id, "failed", sentence)
        self._reporter.say(f"Job {job.id} failed: {sentence}")

    def _loaded(self, job: JobRecord) -> "_Loaded":
        """The job's model, as its files are now.

        Raises:
            SourceError: they are not those that the job's run measured.
        """
        source = self._atlas.models.get(job.model).source
        dtype = AUTO if job.run is None else str(self._atlas.runs.get(job.run).config.get("dtype", "float32"))
        if self._model is None or self._model.asked != (source, dtype) or not self._model.read.are_as_read():
            self._model = None  # makes room first
            self._atlas.jobs.report_progress(job.id, 0.0, "loading the model")
            if self._known is not None:
                self._known.require(source)
            files = find_model(source, self._cache, self._reporter.say)
            state = files.state()
            model = AnalysisModel.load(files, self._device, dtype)
            self._model = _Loaded((source, dtype), model, ReadFiles.of(files, state))
        if job.run is not None and self._atlas.runs.get(job.run).weights_hash != self._model.read.weights_hash:
            raise SourceError(
                f"The weights that are now at {source} are not those that run {job.run} measured. Put those back, or "
                f"measure these: calibroscope precompute --model {source}."
            )
        return self._model


@dataclass(frozen=True)
class _Loaded:
    asked: tuple[str, str]
    """Source and type of the weights."""
    model: AnalysisModel
    read: ReadFiles


def measure_induction(
    run: int, sequences: int, atlas: Atlas, cache: Path, reporter: Reporter, device: str = "auto"
) -> None:
    """Every figure of the induction lab on a run's corpus, unless it is there already or the run has no last layer.

    What keeps it from being measured (no neuron of note, a model without heads to read) is said and does not fail
    the run, which is finished.
    """
    record = atlas.runs.get(run)
    model = atlas.models.get(record.model)
    if record.layer != model.n_layers - 1:
        return
    request = schemas.InductionJobRequest(
        source="synthetic",
        sequences=sequences,
        span=min(100, record.seq_len - 1),
        parts=[part for group in induction.GROUPS for part in group],
        run=run,
    ).model_dump(mode="json")
    files = find_model(model.source, cache, reporter.say)
    made_by = induction.made_by(ReadFiles.of(files, files.state()), choose_device(device))
    finished = (job for job in atlas.jobs.newest(_RECENT) if job.run == run and job.status == "finished")
    if any(job.request == request and (atlas.jobs.made_from(job.id) or "").startswith(made_by) for job in finished):
        return
    job = atlas.jobs.add("induction", model.slug, run, request)
    Worker(atlas, cache, reporter, device).do(atlas.jobs.begin(job.id))
