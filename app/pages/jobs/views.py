"""Jobs in words and rows, for the page of all jobs and for those that show their results."""

from collections.abc import Sequence
from datetime import datetime

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component
from pydantic import ValidationError

from app import links
from app.components.layout import aria, dataset
from app.components.states import empty
from app.pages.induction.controls import SOURCE_LABELS
from app.pages.induction.state import PARTS
from backend.schemas import InductionJobRequest, Job

CHANGED, KEY_BOX, KEY, FAILED = "jobs-changed", "service-key-box", "service-key", "jobs-failed"
"""Ids that every page that writes has; static/base_stream.js and page_jobs.js know them."""
OPEN = ("queued", "running")
_WORKER = "calibroscope worker"


def for_writing() -> list[Component]:
    """What a page that writes to the service has: a signal that jobs have changed, errors, and room for the key."""
    key = dmc.PasswordInput(
        id=KEY, label="Service key", description="Sent with what you write. Kept until this tab is closed.", w=320,
        autoComplete="off", visibilityToggleButtonProps={"aria-label": "Show the key"},
    )  # fmt: skip
    return [dcc.Store(id=CHANGED), html.Div(id=FAILED), html.Div(key, id=KEY_BOX, hidden=True, className="key-box")]


def request_of(job: Job) -> InductionJobRequest | None:
    """What was asked for; None where it is of another time and cannot be read."""
    try:
        return InductionJobRequest.model_validate(job.request)
    except ValidationError:
        return None


def what(job: Job) -> str:
    """What a job measures on: `Corpus text, doubled (100 tokens)`."""
    request = request_of(job)
    if request is None:
        return "A request of another version"
    return f"{SOURCE_LABELS[request.source]} ({request.span} tokens)"


def size(job: Job) -> str:
    """`20 sequences, all parts`."""
    request = request_of(job)
    if request is None:
        return "unknown"
    parts = [part.replace("_", " ") for part in PARTS if part in request.parts]
    named = "all parts" if len(parts) == len(PARTS) else ", ".join(parts)
    return f"{request.sequences:,} sequence{'s' * (request.sequences != 1)}, {named}"


def when(moment: datetime) -> str:
    """A moment as people write it, in the service's time."""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def status(job: Job) -> str:
    """Its state, with how far it is while it runs."""
    return f"running, {100 * job.progress:.0f} %" if job.status == "running" else job.status


def hint(job: Job, jobs: Sequence[Job]) -> list[Component | str]:
    """What an open job waits for, and what to do about it; nothing for one that goes on by itself."""
    start: list[Component | str] = ["start ", html.Code(_WORKER), " in a terminal."]
    if job.status == "running" and not job.worker_is_alive:
        return ["Its worker has not been heard of for minutes. To go on where it stopped, ", *start]
    if job.status != "queued":
        return []
    before = next((one.id for one in jobs if one.status == "running" and one.worker_is_alive), None)
    if before is not None:
        return [f"It waits for the worker, which is at job {before}."]
    return ["No worker is at work. To have it done, ", *start]


def bar(job: Job) -> list[Component]:
    """How far an open job is."""
    if job.status not in OPEN:
        return []
    return [dmc.Progress(value=round(100 * job.progress, 1), size="sm", **aria(label=f"Progress of job {job.id}"))]


def canceller(job: Job) -> list[Component]:
    """A button for an open job; page_jobs.js answers to it."""
    if job.status not in OPEN:
        return []
    named = dataset(cancel_job=str(job.id)) | aria(label=f"Cancel job {job.id}")
    return [html.Button("Cancel job", type="button", className="plain", **named)]


def address(job: Job) -> str:
    """Where its results are shown."""
    return links.induction_job(job.id)


def result_list(jobs: Sequence[Job], shown: int | None, most: int = 6) -> Component:
    """A model's jobs in short, each a link to its results; the links load the page, which then fills its controls."""
    if not jobs:
        return html.P("No job of this model yet.", className="quiet")
    rest = len(jobs) - most
    more = [html.P(dcc.Link(f"{rest} more: all jobs", href="/jobs"), className="quiet")] if rest > 0 else []
    return html.Div([html.Ul([_entry(job, shown) for job in jobs[:most]], className="kept"), *more])


def _entry(job: Job, shown: int | None) -> Component:
    current = aria(current="true") if job.id == shown else {}
    facts = f"{size(job)} · {when(job.created_at)} · {status(job)}"
    return html.Li([html.A(f"{job.id} · {what(job)}", href=address(job), **current),
                    html.P(facts, className="quiet"), *bar(job)])  # fmt: skip


def notice(job: Job, jobs: Sequence[Job], *, by_itself: bool) -> Component:
    """Above a job's results: where they come from, or what they wait for."""
    if by_itself:
        first = (
            f"These results were in the atlas already: job {job.id} measured them for run {job.run} on "
            f"{when(job.finished_at or job.created_at)}. Change the controls and press Run for your own."
        )
    else:
        run = "" if job.run is None else f", with run {job.run}"
        first = f"Job {job.id} ({job.status}), asked for on {when(job.created_at)}{run}."
    waits = hint(job, jobs)
    return html.Div(
        [
            html.P(first),
            html.P(f"{what(job)}; {size(job)}.", className="quiet"),
            *([html.P(waits)] if waits else []),
            *([html.P(job.message)] if job.message else []),
            *canceller(job),
        ],
        className="summary",
    )


def table(jobs: Sequence[Job]) -> Component:
    """All jobs, the newest first; what can be done with each at its end."""
    if not jobs:
        return empty(
            "No job yet",
            "A job is work that is done without you: “Run as a job” on the Induction page queues one, and a worker "
            "on the service's machine does it. Its results stay in the atlas. This starts a worker:",
            _WORKER,
        )
    heads = [html.Th(name, scope="col", role="columnheader") for name in ("Job", "What", "Asked for", "Status", "")]
    heads[-1].children = html.Span("What to do", className="visually-hidden")
    # narrow windows stack the cells: with roles it stays a table to who listens to it
    return html.Table(
        [
            html.Thead(html.Tr(heads, role="row"), role="rowgroup"),
            html.Tbody([_row(job, jobs) for job in jobs], role="rowgroup"),
        ],
        className="jobs", role="table", **aria(label="Jobs, the newest first"),
    )  # fmt: skip


def _row(job: Job, jobs: Sequence[Job]) -> Component:
    waits, run = hint(job, jobs), "" if job.run is None else f", run {job.run}"
    word = "Results" if job.status == "finished" else "What there is"
    doing = [html.P(job.doing, className="quiet")] if job.status == "running" else []
    cells: list[list[Component | str]] = [
        [what(job), html.P(f"{size(job)} · {job.model}{run}", className="quiet")],
        [when(job.created_at)],
        [
            html.Span(status(job), className=f"job-status {job.status}"), *bar(job), *doing,
            *([html.P(waits, className="quiet")] if waits else []),
            *([html.P(job.message, className="job-message")] if job.message else []),
        ],
        [dcc.Link([word, html.Span(f" of job {job.id}", className="visually-hidden")], href=address(job)),
         *canceller(job)],
    ]  # fmt: skip
    return html.Tr(
        [html.Th(job.id, scope="row", role="rowheader"), *(html.Td(cell, role="cell") for cell in cells)], role="row"
    )
