"""Jobs: queued here, done by the worker, followed here while they run and after."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend import schemas
from backend.answers import jobs as answers
from backend.atlas.records import JobRecord
from backend.atlas.store import Atlas
from backend.requests.induction import plan, repeat_spec, run_of
from backend.routes import problems
from backend.routes.deps import AtlasDep, Reading, WritableAtlasDep, Writing

router = APIRouter(prefix="/jobs", tags=["jobs"])

_POLL_SECONDS = 0.5


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
    plan(atlas, asked, model.experts, run)
    request = asked.model_dump(mode="json") | {"run": None if run is None else run.id}
    return answers.job_answer(atlas.jobs.add(body.kind, model.slug, None if run is None else run.id, request))


@router.get("", dependencies=[Reading])
def list_jobs(atlas: AtlasDep, limit: Annotated[int, Query(ge=1, le=schemas.MAX_JOBS_LISTED)] = 50) -> schemas.JobList:
    """The newest jobs first."""
    return schemas.JobList(jobs=[answers.job_answer(job) for job in atlas.jobs.newest(limit)])


@router.get("/{job}", dependencies=[Reading])
def read_job(job: JobDep) -> schemas.Job:
    """A job and how far it is."""
    return answers.job_answer(job)


@router.post("/{job}/cancel", dependencies=[Writing])
def cancel_job(job: JobDep, atlas: WritableAtlasDep) -> schemas.Job:
    """Stop a job. What it has found is kept; one that has ended stays as it is."""
    return answers.job_answer(atlas.jobs.cancel(job.id))


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
    sent, reported, reading = 0, ("", -1.0), request.app.state.reading
    try:
        while True:
            async with reading.hold(request):
                record, payloads = await run_in_threadpool(_news, atlas, job.id, sent)
            for payload in payloads:
                sent += 1
                # As it is kept, which is an InductionEvent: FastAPI sends either, and documents the annotation.
                yield ServerSentEvent(raw_data=payload)  # type: ignore[misc]
            if record.status not in ("queued", "running"):
                yield schemas.InductionEvent(answers.ending(record))
                return
            if reported != (record.doing, record.progress):
                reported = (record.doing, record.progress)
                yield schemas.InductionEvent(answers.progress(record))
            await asyncio.sleep(_POLL_SECONDS)
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield schemas.InductionEvent(schemas.InductionProblem(problem=problems.of(error, request.url.path)))


def _news(atlas: Atlas, job: int, sent: int) -> tuple[JobRecord, list[str]]:
    """How far a job is, and its events after those that have been sent."""
    return atlas.jobs.get(job), atlas.jobs.results(job, sent)
