"""Jobs and how far they are."""

from datetime import UTC, datetime, timedelta

from backend import schemas
from backend.atlas import damage
from backend.atlas.records import JobRecord

_ALIVE = timedelta(minutes=2)


@damage.reading("a job")
def job_answer(job: JobRecord) -> schemas.Job:
    """A job, and whether somebody is at it."""
    fields = {name: getattr(job, name) for name in schemas.Job.model_fields if name != "worker_is_alive"}
    alive = job.status == "running" and datetime.now(UTC) - job.heartbeat < _ALIVE
    return schemas.Job(**fields, worker_is_alive=alive)


def progress(job: JobRecord) -> schemas.InductionProgress:
    """How far a job is, as an event of its stream."""
    doing = "waiting for a worker (calibroscope worker)" if job.status == "queued" else job.doing
    return schemas.InductionProgress(done=round(1000 * job.progress), of=1000, doing=doing)


def ending(job: JobRecord) -> schemas.InductionEnd | schemas.InductionProblem:
    """The last event of the stream of a job that has ended."""
    if job.status == "finished" and job.finished_at is not None:
        return schemas.InductionEnd(seconds=max((job.finished_at - job.created_at).total_seconds(), 0))
    detail = "The job was cancelled." if job.status == "cancelled" else job.message or "The job failed."
    return schemas.InductionProblem(problem=schemas.Problem(title=f"Job {job.status}", status=409, detail=detail))
