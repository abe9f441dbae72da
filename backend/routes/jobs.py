"""Jobs: queued here, done by the worker, followed here while they run and after."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend import schemas
from backend.answers.induction_request import plan, repeat_spec, run_of
from backend.atlas import damage
from backend.atlas.records import JobRecord
from backend.atlas.store import Atlas
from backend.routes import problems
from backend.routes.deps import AtlasDep, Reading, WritableAtlasDep, Writing

router = APIRouter(prefix="/jobs", tags=["jobs"])

_POLL_SECONDS = 0.5
_ALIVE = timedelta(minutes=2)


def _job(atlas: AtlasDep, job: Annotated[schemas.Id, Path()]) -> JobRecord:
    return atlas.jobs.get(job)


JobDep = Annotated[JobRecord, Depends(_job)]


@router.post("", status_code=201, dependencies=[Writing])
def add_job(body: schemas.JobRequest, atlas: WritableAtlasDep) -> schemas.Job:
    """Queue a job for the worker (`calibroscope worker`). The same request that still waits is not queued twice."""
    model = atlas.models.get(body.model)
    asked = body.induction
    run = run_of(atlas, model, asked.run)
    repeat_spec(atlas, asked, run)  # refuses now what the worker would refuse
    plan(atlas, asked, run)
    request = asked.model_dump(mode="json") | {"run": None if run is None else run.id}
    return _answer(atlas.jobs.add(body.kind, model.slug, None if run is None else run.id, request))


@router.get("", dependencies=[Reading])
def list_jobs(atlas: AtlasDep, limit: Annotated[int, Query(ge=1, le=schemas.MAX_JOBS_LISTED)] = 50) -> schemas.JobList:
    """The newest jobs first."""
    return schemas.JobList(jobs=[_answer(job) for job in atlas.jobs.newest(limit)])


@router.get("/{job}", dependencies=[Reading])
def read_job(job: JobDep) -> schemas.Job:
    """A job and how far it is."""
    return _answer(job)


@router.post("/{job}/cancel", dependencies=[Writing])
def cancel_job(job: JobDep, atlas: WritableAtlasDep) -> schemas.Job:
    """Stop a job. What it has found is kept; one that has ended stays as it is."""
    return _answer(atlas.jobs.cancel(job.id))


async def _followed(request: Request) -> AsyncIterator[None]:
    """A place among the streams of jobs' events: each asks the atlas again and again.

    Raises:
        LaneFull: as many are open as may be.
    """
    with request.app.state.followers.place():
        yield


@router.get("/{job}/events", response_class=EventSourceResponse, dependencies=[Depends(_followed)])
async def follow_job(job: JobDep, atlas: AtlasDep, request: Request) -> AsyncIterator[schemas.InductionEvent]:
    """A job's results as they come, as server-sent events; those that are there already come at once. An end or a
    problem closes the stream."""
    sent, told, reading = 0, ("", -1.0), request.app.state.reading
    try:
        while True:
            async with reading.hold(request):
                found, payloads = await run_in_threadpool(_news, atlas, job.id, sent)
            for payload in payloads:
                sent += 1
                yield ServerSentEvent(raw_data=payload)  # as it is kept, which is an InductionEvent
            if found.status not in ("queued", "running"):
                yield schemas.InductionEvent(_ending(found))
                return
            if told != (found.doing, found.progress):
                told = (found.doing, found.progress)
                yield schemas.InductionEvent(_progress(found))
            await asyncio.sleep(_POLL_SECONDS)
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield schemas.InductionEvent(schemas.InductionProblem(problem=problems.of(error, request.url.path)))


def _news(atlas: Atlas, job: int, sent: int) -> tuple[JobRecord, list[str]]:
    """How far a job is, and its events after those that have been sent."""
    return atlas.jobs.get(job), atlas.jobs.results(job, sent)


def _progress(job: JobRecord) -> schemas.InductionProgress:
    doing = "waiting for a worker (calibroscope worker)" if job.status == "queued" else job.doing
    return schemas.InductionProgress(done=round(1000 * job.progress), of=1000, doing=doing)


def _ending(job: JobRecord) -> schemas.InductionEnd | schemas.InductionProblem:
    if job.status == "finished" and job.finished_at is not None:
        return schemas.InductionEnd(seconds=max((job.finished_at - job.created_at).total_seconds(), 0))
    detail = "The job was cancelled." if job.status == "cancelled" else job.message or "The job failed."
    return schemas.InductionProblem(problem=schemas.Problem(title=f"Job {job.status}", status=409, detail=detail))


@damage.reading("a job")
def _answer(job: JobRecord) -> schemas.Job:
    fields = {name: getattr(job, name) for name in schemas.Job.model_fields if name != "worker_is_alive"}
    alive = job.status == "running" and datetime.now(UTC) - job.heartbeat < _ALIVE
    return schemas.Job(**fields, worker_is_alive=alive)
