"""Work for the worker: queued over HTTP, its results kept in the atlas."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from backend.schemas.base import Wire
from backend.schemas.induction import InductionRequest

MAX_JOB_SEQUENCES = 2_000
MAX_JOBS_LISTED = 200
JobStatus = Literal["queued", "running", "finished", "failed", "cancelled"]


class InductionJobRequest(InductionRequest):
    """As an interactive one, on more sequences."""

    sequences: Annotated[int, Field(ge=1, le=MAX_JOB_SEQUENCES)] = 100


class JobRequest(Wire):
    kind: Literal["induction"] = "induction"
    model: Annotated[str, Field(min_length=1, max_length=200, examples=["smollm2-135m"])]
    induction: InductionJobRequest


class Job(Wire):
    id: int
    kind: Literal["induction"]
    model: str
    run: int | None
    """The run whose text, classes and means are used."""
    status: JobStatus
    progress: Annotated[float, Field(ge=0, le=1)]
    doing: str
    message: str | None
    """Why it failed."""
    created_at: datetime
    finished_at: datetime | None
    worker_is_alive: bool
    """Whether a running job's worker has been heard of lately. A queued job waits for one: `calibroscope worker`."""
    request: dict[str, Any]
    """What was asked for, of the kind's request."""


class JobList(Wire):
    jobs: list[Job]
    """The newest first."""
