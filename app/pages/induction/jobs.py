"""Jobs on the induction page: which one an address shows, the results that the atlas has, and what a job waits for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from app.components.states import failure
from app.pages.induction import ids
from app.pages.induction.state import InductionSettings, read, read_job
from app.pages.jobs.views import CHANGED, OPEN, notice, request_of, result_list
from backend.client import ApiError, Sender, calls
from backend.schemas import MAX_JOBS_LISTED, Job

_REQUESTS = ("source", "sequences", "span", "neurons", "parts", "heads", "top", "seed", "go")
"""Parameters of an address that ask for something; `model` and `run` only say of what."""
_LONGEST_NUMBER = 10


@dataclass(frozen=True)
class Opened:
    """What the page begins with."""

    asked: InductionSettings
    job: Job | None = None
    by_itself: bool = False
    """The job is shown because the address asks for nothing, and not because somebody asked for it."""
    problem: str | None = None

    @property
    def shown(self) -> dict[str, Any] | None:
        """For the browser."""
        return None if self.job is None else {"job": self.job.id, "by_itself": self.by_itself}


def register(app: Dash, client: Sender) -> None:
    """The list of results, and the words above those that are shown."""

    @app.callback(
        Output(ids.JOBS, "children"), Output(ids.NOTICE, "children"), Output(ids.JOBS_POLL, "disabled"),
        Input(ids.JOBS_POLL, "n_intervals"), Input(ids.MODEL, "value"), Input(ids.SHOWN, "data"),
        Input(CHANGED, "data"), State(ids.JOBS_POLL, "disabled"),
    )  # fmt: skip
    async def list_jobs(_: int | None, model: str | None, shown: dict[str, Any] | None, *__: Any) -> tuple[Any, ...]:
        return await listed(client, model, shown)


async def opened(client: Sender, **address: str) -> Opened:
    """The job that the address names; without any request in it the run's results, where the atlas has some."""
    asked, number = read(**address), address.get("job") or ""
    try:
        if number.isdecimal() and len(number) <= _LONGEST_NUMBER:
            job = await client.send(calls.job(int(number)))
            return Opened(read_job(job), job)
        if any(address.get(name) for name in _REQUESTS):
            return Opened(asked)
        result = await _results(client, asked)
    except ApiError as error:
        return Opened(asked, problem=error.problem.detail)
    return Opened(asked) if result is None else Opened(read_job(result), result, by_itself=True)


async def _results(client: Sender, asked: InductionSettings) -> Job | None:
    """The run's finished job with the most parts, of several the newest."""
    models = (await client.send(calls.models())).models
    chosen = next((one for one in models if one.id == asked.model), models[0] if models else None)
    if chosen is None:
        return None
    run = asked.run or str(chosen.latest_run)
    jobs = (await client.send(calls.jobs(MAX_JOBS_LISTED))).jobs
    finished = [job for job in jobs if job.status == "finished" and job.model == chosen.id and str(job.run) == run]
    return max(finished, key=lambda job: (_parts(job), job.id), default=None)


def _parts(job: Job) -> int:
    request = request_of(job)
    return 0 if request is None else len(set(request.parts))


async def listed(client: Sender, model: str | None, shown: dict[str, Any] | None) -> tuple[Any, Any, bool]:
    """The model's jobs, what to say of the one that is shown, and whether nothing here will change by itself."""
    number = None if shown is None else int(shown["job"])
    try:
        jobs = (await client.send(calls.jobs(MAX_JOBS_LISTED))).jobs
        of_model = [job for job in jobs if job.model == model]
        return result_list(of_model, number), await _notice(client, number, jobs, shown), _at_rest(jobs)
    except ApiError as error:
        # A service that has gone may come back: asked again.
        return html.P(error.problem.detail, className="quiet"), None, False


async def _notice(
    client: Sender, number: int | None, jobs: Sequence[Job], shown: dict[str, Any] | None
) -> Component | None:
    if number is None or shown is None:
        return None
    job = next((one for one in jobs if one.id == number), None)
    try:
        job = job or await client.send(calls.job(number))
    except ApiError as error:
        return failure(error.problem.detail)
    return notice(job, jobs, by_itself=bool(shown.get("by_itself")))


def _at_rest(jobs: Sequence[Job]) -> bool:
    return not any(job.status in OPEN for job in jobs)
