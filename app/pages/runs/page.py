"""`/runs`: every model and run of the atlas: how far it is, when it was made, and what it measured."""

import asyncio
from datetime import datetime
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app import links
from app.components.layout import panel, scrolled
from app.components.states import empty_atlas, failure
from backend.client import ApiError, Sender, calls
from backend.schemas import ModelSummary, RunSummary

BODY, POLL, SEEN = "runs-body", "runs-poll", "runs-seen"
POLL_MS = 5_000
_COLUMNS = ("run", "state", "layer", "corpus", "size", "effects counted", "seed", "begun", "finished", "beside another")


def register(app: Dash, client: Sender) -> None:
    """The page and its callback."""
    register_page("runs", path="/runs", title="Runs · Calibroscope", layout=layout, menu="Runs")

    @app.callback(
        Output(BODY, "children"), Output(SEEN, "data"), Input(POLL, "n_intervals"), State(SEEN, "data")
    )  # fmt: skip
    async def show(_: int | None, seen: str | None) -> tuple[Any, Any]:
        return await shown(client, seen)


def layout(**_: str) -> Component:
    """The page's frame; its tables are fetched."""
    return html.Div(
        [
            dcc.Store(id=SEEN),
            dcc.Interval(id=POLL, interval=POLL_MS),
            html.H1("Runs"),
            html.P(
                "A run measures one layer of a model on a corpus. Once finished, it never changes.",
                className="sentences",
            ),
            html.Div(id=BODY),
        ]
    )


async def shown(client: Sender, seen: str | None) -> tuple[Any, Any]:
    """A table a model, where they differ from what is seen already."""
    try:
        models = (await client.send(calls.models())).models
        lists = await asyncio.gather(*(client.send(calls.runs(model.id)) for model in models))
    except ApiError as error:
        return failure(error.problem.detail), None
    runs = [(model, answer.runs) for model, answer in zip(models, lists, strict=True)]
    state = ";".join(f"{run.id} {run.status} {run.tokens_counted}" for _, of_model in runs for run in of_model)
    if seen is not None and state == seen:
        return no_update, no_update
    return [model_table(model, of_model) for model, of_model in runs] or empty_atlas(), state


def model_table(model: ModelSummary, runs: list[RunSummary]) -> Component:
    """A model and its runs, each with the way to the atlas page of it."""
    size = f"{model.family}, {model.n_layers} layers of {model.d_mlp:,} neurons, width {model.d_model:,}, {model.norm}."
    if not runs:
        return panel(model.name, html.P("No run of it yet.", className="quiet"), note=size)
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in _COLUMNS]))
    table = html.Table([head, html.Tbody([_row(run) for run in runs])], className="totals")
    return panel(model.name, scrolled(table, f"Runs of {model.name}"), note=size)


def _row(run: RunSummary) -> html.Tr:
    cells = (
        _state(run),
        str(run.layer),
        run.corpus + (" (survey)" if run.mode == "survey" else ""),
        f"{run.sequences:,} × {run.seq_len:,} tokens",
        f"{run.tokens_counted:,} of {run.tokens_total:,}",
        str(run.seed),
        _day(run.created_at),
        "—" if run.finished_at is None else _day(run.finished_at),
    )
    link = dcc.Link(f"Run {run.id}", href=links.atlas(run.model, run.id))
    beside = dcc.Link("Compare", href=links.compare(run.model, run.id), title=f"Compare run {run.id} with another one")
    return html.Tr([html.Th(link, scope="row"), *(html.Td(cell) for cell in cells), html.Td(beside)])


def _state(run: RunSummary) -> str:
    return f"running: {run.stage}, {100 * run.progress:.0f} %" if run.status == "running" else run.status


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
