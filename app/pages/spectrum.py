"""`/spectrum`: the unembedding's singular values, of one run or of two beside each other, and who writes where."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components import class_chip, empty, failure, graph, panel, scrolled
from app.figures.spectrum import cosines, singular_values
from app.format import number
from app.pages.atlas import neuron_address
from app.pages.atlas_views import nothing_yet, options, run_label
from backend.client import ApiError, AsyncClient, calls
from backend.schemas import ModelSummary, NeuronDetail, RunSummary, Spectrum

MODEL, RUN, BESIDE, NEURONS = "spectrum-model", "spectrum-run", "spectrum-beside", "spectrum-neurons"
CLOSE = "spectrum-close"
BODY, POLL, SEEN = "spectrum-body", "spectrum-poll", "spectrum-seen"
POLL_MS = 5_000
MOST_NEURONS = 6
_STRONGEST = 2
_MOST_CHARS = 200
_ALONE = "none"
"""The value of "nothing beside it"."""


@dataclass(frozen=True)
class Asked:
    """What the controls say."""

    model: str | None
    run: str | None
    beside: str | None
    neurons: str | None
    """Names with commas; None for the run's strongest entropy neurons."""
    close: bool = False
    """Whether the null space is looked at closely."""


@dataclass(frozen=True)
class Writer:
    """A neuron, and where it writes."""

    detail: NeuronDetail
    spectrum: Spectrum


def register(app: Dash, client: AsyncClient) -> None:
    """The page and its callbacks."""
    register_page("spectrum", path="/spectrum", title="Spectrum · Calibroscope", layout=layout)

    @app.callback(
        Output(MODEL, "data"), Output(MODEL, "value"), Output(RUN, "data"), Output(RUN, "value"),
        Output(BESIDE, "data"), Output(BESIDE, "value"), Output(NEURONS, "value"),
        Output(BODY, "children"), Output(SEEN, "data"), Output(POLL, "disabled"),
        Input(POLL, "n_intervals"), Input(MODEL, "value"), Input(RUN, "value"), Input(BESIDE, "value"),
        Input(NEURONS, "value"), Input(CLOSE, "checked"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(
        _: int | None, model: str | None, run: str | None, beside: str | None, neurons: str | None,
        close: bool | None, seen: str | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        other = ctx.triggered_id == MODEL
        asked = Asked(model, None if other else run, beside, None if other else neurons, bool(close))
        try:
            return await shown(client, asked, seen)
        except ApiError as error:
            return (*[no_update] * 7, failure(error.problem.detail), None, False)

    clientside_callback(
        "window.calibroscopeSpectrum.remember", Output(BODY, "title"), Input(MODEL, "value"), Input(RUN, "value"),
        Input(BESIDE, "value"), Input(NEURONS, "value"), Input(CLOSE, "checked"), prevent_initial_call=True,
    )  # fmt: skip


def layout(
    model: str | None = None, run: str | None = None, beside: str | None = None, neurons: str | None = None,
    close: str | None = None, **_: str,
) -> Component:  # fmt: skip
    """The page's frame; what it shows is fetched."""
    chosen = run if run and run.isdecimal() else None
    other = beside if beside and beside.isdecimal() else _ALONE
    controls = html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=RUN, label="Run", value=chosen, data=[chosen] if chosen else [], allowDeselect=False),
            dmc.Select(id=BESIDE, label="Beside it", value=other, data=[other], allowDeselect=False),
            dmc.TextInput(
                id=NEURONS, label="Neurons", value=None if neurons is None else neurons[:_MOST_CHARS], debounce=True,
                placeholder="29.830, 29.1022", description=f"Of the run's layer, with commas; {MOST_NEURONS} at most.",
            ),
            dmc.Switch(id=CLOSE, label="The null space from close by", checked=close == "1"),
        ],
        className="controls", **{"aria-label": "Which runs and neurons"},
    )  # fmt: skip
    return html.Div(
        [
            dcc.Store(id=SEEN),
            dcc.Interval(id=POLL, interval=POLL_MS),
            html.H1("Spectrum of the unembedding", className="visually-hidden"),
            html.Div(
                [controls, dcc.Loading(html.Div(id=BODY, className="page-main"), delay_show=400)], className="columns"
            ),
        ]
    )


async def shown(client: AsyncClient, asked: Asked, seen: str | None) -> tuple[Any, ...]:
    """All that the page shows; an unknown model or run falls back to the one that pages show first."""
    models = (await client.send(calls.models())).models
    if not models:
        return [], None, [], None, [], _ALONE, no_update, nothing_yet(), None, False
    chosen = next((m for m in models if m.id == asked.model), models[0])
    runs = {m.id: (await client.send(calls.runs(m.id))).runs for m in models}
    own = runs[chosen.id]
    if not own:
        return options(models), chosen.id, [], None, [], _ALONE, no_update, nothing_yet(), None, False
    summary = next((r for r in own if str(r.id) == asked.run), None)
    summary = summary or next((r for r in own if r.id == chosen.latest_run), own[0])
    others = {str(r.id): (m, r) for m in models for r in runs[m.id] if r.id != summary.id}
    beside = asked.beside if asked.beside in others else _ALONE
    names, left = neuron_names(asked.neurons) if asked.neurons is not None else (await _strongest(client, summary), [])
    written = asked.neurons if asked.neurons is not None else ", ".join(names)
    state = f"{summary.id}:{summary.status}:{beside}:{written}:{asked.close}"
    controls = (
        options(models), chosen.id, [{"value": str(r.id), "label": run_label(r)} for r in own], str(summary.id),
        [{"value": _ALONE, "label": "nothing"}, *({"value": i, "label": _named(*one)} for i, one in others.items())],
        beside, written,
    )  # fmt: skip
    if state == seen:
        return *controls, no_update, no_update, summary.status != "running"
    found = await _spectra(client, chosen, summary, others.get(beside))
    writers = await asyncio.gather(*(_writer(client, summary.id, name) for name in names))
    return *controls, body(summary, found, list(writers), left, close=asked.close), state, summary.status != "running"


def neuron_names(written: str) -> tuple[list[str], list[str]]:
    """The names that read as a neuron's, each once, and what was left out."""
    parts = list(dict.fromkeys(part for part in re.split(r"[\s,;]+", written[:_MOST_CHARS]) if part))
    names = [part for part in parts if re.fullmatch(r"\d{1,4}\.\d{1,6}", part)]
    return names[:MOST_NEURONS], [part for part in parts if part not in names[:MOST_NEURONS]]


async def _strongest(client: AsyncClient, run: RunSummary) -> list[str]:
    """The run's entropy neurons with the largest effect, else those that write most into the null space."""
    for sort, neuron_class in (("-total_effect", "entropy"), ("-null_fraction", None)):
        page = await client.send(calls.neurons(run.id, sort=sort, neuron_class=neuron_class, limit=_STRONGEST))
        if page.rows:
            return [row.neuron for row in page.rows]
    return []


async def _spectra(
    client: AsyncClient, model: ModelSummary, run: RunSummary, beside: tuple[ModelSummary, RunSummary] | None
) -> dict[str, Spectrum]:
    pairs = [(model, run), *([] if beside is None else [beside])]
    twice = len({m.name for m, _ in pairs}) < len(pairs)
    found = await asyncio.gather(*(client.send(calls.spectrum(one.id)) for _, one in pairs))
    return {f"{m.name}, run {one.id}" if twice else m.name: data for (m, one), data in zip(pairs, found, strict=True)}


async def _writer(client: AsyncClient, run: int, name: str) -> Writer | ApiError:
    try:
        found = await asyncio.gather(client.send(calls.neuron(run, name)), client.send(calls.spectrum(run, name)))
    except ApiError as error:
        return error
    return Writer(*found)


def _named(model: ModelSummary, run: RunSummary) -> str:
    return f"{model.name} · {run_label(run)}"


def body(
    run: RunSummary, found: dict[str, Spectrum], writers: list[Writer | ApiError], left: list[str], *, close: bool
) -> list[Component]:
    """Figure 2d with the neurons in numbers, and Figure 6."""
    return [_who_writes(run, next(iter(found.values())), writers, left, close), _side_by_side(found)]


def _who_writes(
    run: RunSummary, plain: Spectrum, writers: list[Writer | ApiError], left: list[str], close: bool
) -> Component:
    known = [writer for writer in writers if isinstance(writer, Writer)]
    problems = [failure(writer.problem.detail) for writer in writers if isinstance(writer, ApiError)]
    if left:
        said = f"Left out: {', '.join(left)}. Write layer.index, as in {run.layer}.0; {MOST_NEURONS} neurons at most."
        problems.append(failure(said))
    note = (
        f"Figure 2d: the singular values of the centred W_U of run {run.id}, and each neuron's |cosine| with every "
        f"direction. The shaded null space are the {plain.null_dim} directions that the unembedding reads least: what "
        "is written there moves the final norm's scale, and hardly a logit."
    )
    drawn = graph(cosines([writer.spectrum for writer in known] or [plain], close=close), className="big-figure")
    table = _table(run, known) if known else empty("No neuron is chosen", "Write some to see where they write.")
    return panel("Who writes where", *problems, drawn, table, note=note)


def _table(run: RunSummary, writers: list[Writer]) -> Component:
    head = html.Tr([html.Th(word) for word in ("neuron", "class", "null-space fraction", "writes most along", "|cos|")])
    rows = []
    for writer in writers:
        row, values = writer.detail.row, writer.spectrum.cosines or [0.0]
        most = max(range(len(values)), key=values.__getitem__)
        rows.append(
            html.Tr(
                [
                    html.Th(dcc.Link(row.neuron, href=neuron_address(run.model, row.neuron, run.id)), scope="row"),
                    html.Td(class_chip(row.neuron_class)),
                    html.Td(number(row.metrics["null_fraction"])),
                    html.Td(f"direction {most:,} of 0 to {len(values) - 1:,}"),
                    html.Td(number(values[most])),
                ]
            )
        )
    return scrolled(html.Table([html.Thead(head), html.Tbody(rows)], className="totals"), "Where the neurons write")


def _side_by_side(found: dict[str, Spectrum]) -> Component:
    head = ("", "directions", "largest", "last before the null space", "first in it", "smallest")
    rows = []
    for name, data in found.items():
        values, start = data.singular_values, len(data.singular_values) - data.null_dim
        ends = (values[0], values[max(start - 1, 0)], values[min(start, len(values) - 1)], values[-1])
        cells = [html.Td(f"{len(values):,}"), *(html.Td(number(value)) for value in ends)]
        rows.append(html.Tr([html.Th(name, scope="row"), *cells]))
    table = html.Table([html.Thead(html.Tr([html.Th(word) for word in head])), html.Tbody(rows)], className="totals")
    note = (
        "Figure 6: two models beside each other, so across the whole of their widths. The paper's pair is Pythia 160M "
        "trained with and without dropout; any two runs of the atlas can be put here."
    )
    parts = (graph(singular_values(found), className="big-figure"), scrolled(table, "Singular values in numbers"))
    return panel("Singular values", *parts, note=note)
