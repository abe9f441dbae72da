"""`/jobs`: all work that is done without anybody waiting, how far it is, and where its results are."""

import asyncio
from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components.layout import panel
from app.components.run_card import run_card
from app.components.states import failure
from app.pages.jobs.views import CHANGED, OPEN, for_writing, table
from backend.client import ApiError, Sender, calls
from backend.schemas import MAX_JOBS_LISTED, Job, RunSummary

BODY, POLL, SEEN = "jobs-body", "jobs-poll", "jobs-seen"
WHILE_OPEN_MS, AT_REST_MS = 1_500, 15_000
_MOST_CARDS = 20


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("jobs", path="/jobs", title="Jobs · Calibroscope", layout=layout, menu="Jobs")

    @app.callback(
        Output(BODY, "children"), Output(SEEN, "data"), Output(POLL, "interval"),
        Input(POLL, "n_intervals"), Input(CHANGED, "data"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(_: int | None, __: Any, seen: str | None) -> tuple[Any, ...]:
        return await shown(client, seen)


def layout(**_: str) -> Component:
    """The page's frame; the table is fetched."""
    return html.Div(
        [
            dcc.Store(id=SEEN),
            dcc.Interval(id=POLL, interval=WHILE_OPEN_MS),
            html.H1("Jobs"),
            html.P(
                [
                    "Work that a worker on the service's machine does, one job after another. It is queued on the ",
                    dcc.Link("Induction", href="/induction"), " page; what is found stays in the atlas.",
                ],
                className="sentences",
            ),
            *for_writing(),
            html.Div(id=BODY),
        ],
        className="jobs-page",
    )  # fmt: skip


async def shown(client: Sender, seen: str | None) -> tuple[Any, Any, int]:
    """The table, where it differs from what is seen already, and how soon to ask again."""
    try:
        jobs = (await client.send(calls.jobs(MAX_JOBS_LISTED))).jobs
    except ApiError as error:
        return failure(error.problem.detail), None, AT_REST_MS
    pause = WHILE_OPEN_MS if any(job.status in OPEN for job in jobs) else AT_REST_MS
    state = ";".join(_state(job) for job in jobs)
    if state == seen:
        return no_update, no_update, pause
    return [table(jobs), *await _cards(client, jobs)], state, pause


async def _cards(client: Sender, jobs: Sequence[Job]) -> list[Component]:
    """What the runs measured whose text and classes the jobs use."""
    numbers = list(dict.fromkeys(job.run for job in jobs if job.run is not None))[:_MOST_CARDS]
    runs = await asyncio.gather(*(client.send(calls.run(number)) for number in numbers), return_exceptions=True)
    cards = [run_card(run, "Text, classes and reference means from") for run in runs if isinstance(run, RunSummary)]
    return [panel("Runs that the jobs use", *cards)] if cards else []


def _state(job: Job) -> str:
    return f"{job.id} {job.status} {job.progress:.3f} {job.worker_is_alive} {job.doing}"
