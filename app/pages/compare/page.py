"""`/compare`: any two runs side by side, neuron by neuron where these correspond, and one text through both models."""

import asyncio
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.asking import answer_or_refusal
from app.components import run_card
from app.components.layout import aria, panel
from app.components.states import empty, empty_atlas, failure, missing_run_notice
from app.figures.scales import SCALES
from app.pages.compare import ids, texts, views
from app.pages.compare.state import (
    DEFAULT_METRIC,
    MOST_CHARS,
    MOST_NEURONS,
    USUAL,
    CompareSettings,
    RunPair,
    choose_pair,
    with_clicked,
)
from backend.client import ApiError, Sender, calls
from backend.glossary import METRIC, METRICS
from backend.schemas import RunSummary

POLL_MS = 5_000
_FIRST_TEXT = (
    "The lamp in the hall is lit. The lamp in the kitchen is not, since nobody has been there all day. Whoever comes "
    "home first will see to it."
)
_HIDDEN: dict[str, str] = {"display": "none"}
_NAMES = ("model", "run", "other_model", "other", "metric", "scale", "neurons", "bars")
"""Of the address, in the order of the controls."""


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("compare", path="/compare", title="Compare · Calibroscope", layout=layout, menu="Compare")
    controls = (ids.MODEL, ids.RUN, ids.OTHER_MODEL, ids.OTHER)

    @app.callback(
        *(Output(name, part) for name in controls for part in ("data", "value")),
        Output(ids.BODY, "children"), Output(ids.TEXT_PART, "style"), Output(ids.SEEN, "data"),
        Output(ids.POLL, "disabled"),
        Input(ids.POLL, "n_intervals"), *(Input(name, "value") for name in controls), Input(ids.METRIC, "value"),
        Input(ids.SCALE, "value"), Input(ids.NEURONS, "value"), Input(ids.BARS, "checked"), State(ids.SEEN, "data"),
    )  # fmt: skip
    async def show(
        _: int | None, model: str | None, run: str | None, other_model: str | None, other: str | None,
        metric: str | None, scale: str | None, neurons: str | None, bars: bool | None, seen: str | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        changed = ctx.triggered_id
        asked = CompareSettings(
            model, None if changed == ids.MODEL else run, other_model, None if changed == ids.OTHER_MODEL else other,
            metric, scale, neurons, bool(bars),
        )  # fmt: skip
        try:
            return await shown(client, asked, seen)
        except ApiError as error:
            return (*[no_update] * 8, failure(error.problem.detail), _HIDDEN, None, False)

    @app.callback(
        Output(ids.NEURONS, "value", allow_duplicate=True), Input(ids.FIGURE, "clickData"),
        State(ids.NEURONS, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def choose(clicked: Any, neurons: str | None) -> Any:
        written = with_clicked(neurons, clicked_neuron(clicked))
        return no_update if written is None else written

    @app.callback(
        Output(ids.STRIPS, "data"), Output(ids.TEXT_RESULT, "children"), Output(ids.READ_BY, "data"),
        Input(ids.ANALYSE, "n_clicks"), State(ids.TEXT, "value"), State(ids.MODEL, "value"),
        State(ids.OTHER_MODEL, "value"),
        running=[(Output(ids.ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def read(_: int | None, text: str | None, first: str | None, second: str | None) -> tuple[Any, ...]:
        return *await texts.through_both(client, text, first, second), [first, second]

    @app.callback(
        Output(ids.STRIPS, "data", allow_duplicate=True), Output(ids.TEXT_RESULT, "children", allow_duplicate=True),
        Input(ids.MODEL, "value"), Input(ids.OTHER_MODEL, "value"), State(ids.READ_BY, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def forget(first: str | None, second: str | None, read_by: list[str | None] | None) -> tuple[Any, Any]:
        """Take away what was read by other models than those that are chosen now."""
        return (no_update, no_update) if read_by in (None, [first, second]) else (None, None)

    run_card.register(app, client, "compare-first", ids.RUN, ids.POLL, what="First")
    run_card.register(app, client, "compare-second", ids.OTHER, ids.POLL, what="Second")
    clientside_callback(
        "window.calibroscopeCompare.draw", Output(ids.CANVAS, "title"), Input(ids.STRIPS, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        f'(...values) => window.calibroscopeAddress.follow("/compare", {list(_NAMES)}, values, '
        f'{{metric: "{DEFAULT_METRIC}", scale: "{USUAL}"}})',
        Output(ids.BODY, "title"), *(Input(name, "value") for name in controls), Input(ids.METRIC, "value"),
        Input(ids.SCALE, "value"), Input(ids.NEURONS, "value"), Input(ids.BARS, "checked"),
        prevent_initial_call=True,
    )  # fmt: skip


def clicked_neuron(clicked: Any) -> Any:
    """The neuron of a clicked point, as Plotly tells of it; None for anything else."""
    points = clicked.get("points") if isinstance(clicked, dict) else None
    first = points[0] if isinstance(points, list) and points else None
    return first.get("customdata") if isinstance(first, dict) else None


def layout(
    model: str | None = None, run: str | None = None, other_model: str | None = None, other: str | None = None,
    metric: str | None = None, scale: str | None = None, neurons: str | None = None, bars: str | None = None, **_: str,
) -> Component:  # fmt: skip
    """The page's frame; what it shows is fetched."""
    asked = CompareSettings(model, run, other_model, other, metric, scale, neurons, bars == "1")
    stores = (dcc.Store(id=ids.SEEN), dcc.Store(id=ids.STRIPS), dcc.Store(id=ids.READ_BY),
              dcc.Interval(id=ids.POLL, interval=POLL_MS))  # fmt: skip
    cards = (run_card.place("compare-first"), run_card.place("compare-second"))
    main = html.Div(
        [dcc.Loading(html.Div(id=ids.BODY), delay_show=400), html.Div(_text_part(), id=ids.TEXT_PART, style=_HIDDEN)],
        className="page-main",
    )
    columns = html.Div([_controls(asked), main], className="columns")
    return html.Div([html.H1("Compare two runs", className="visually-hidden"), *stores, *cards, columns])


def _controls(asked: CompareSettings) -> html.Aside:
    run, other = (value if value and value.isdecimal() else None for value in (asked.run, asked.other))
    scales = [{"value": USUAL, "label": "as usual for it"}, *({"value": n, "label": w} for n, w in SCALES.items())]
    return html.Aside(
        [
            _select(ids.MODEL, "First model", asked.model),
            _select(ids.RUN, "First run", run),
            _select(ids.OTHER_MODEL, "Second model", asked.other_model),
            _select(ids.OTHER, "Second run", other),
            html.H2("What to compare"),
            dmc.Select(
                id=ids.METRIC, label="Metric", value=asked.shown_metric, allowDeselect=False, searchable=True,
                data=[{"value": one.name, "label": METRIC[one.name].label} for one in METRICS],
            ),
            dmc.Select(
                id=ids.SCALE, label="Scale", value=asked.scale if asked.scale in SCALES else USUAL, data=scales,
                allowDeselect=False,
            ),
            dmc.TextInput(
                id=ids.NEURONS, label="Neurons", value=(asked.neurons or "")[:MOST_CHARS], debounce=True,
                placeholder="layer.index, …",
                description=f"Chosen by a click or written here, with commas; {MOST_NEURONS} at most.",
            ),
            dmc.Switch(id=ids.BARS, label="Errors of all neurons", checked=asked.bars),
        ],
        className="controls", **aria(label="Which runs, and what of them"),
    )  # fmt: skip


def _select(name: str, label: str, value: str | None) -> dmc.Select:
    return dmc.Select(id=name, label=label, value=value, data=[value] if value else [], allowDeselect=False)


def _text_part() -> Component:
    return panel(
        "One text through both models",
        dmc.Textarea(
            id=ids.TEXT, label="Text", minRows=3, maxRows=10, autosize=True, persistence="compare-text",
            persistence_type="local", value=_FIRST_TEXT,
        ),
        dmc.Button("Read with both", id=ids.ANALYSE, mt=8),
        html.Div(id=ids.TEXT_RESULT, **aria(live="polite")),
        html.Div(id=ids.CANVAS),
        note=f"{texts.STRIPS_NOTE} Models are loaded one after the other, which takes a while the first time.",
    )  # fmt: skip


async def shown(client: Sender, asked: CompareSettings, seen: str | None) -> tuple[Any, ...]:
    """All that the page shows of two runs; unknown models and runs fall back to those that pages show first."""
    pair = await choose_pair(client, asked)
    first, second = pair.first.run, pair.second.run
    if first is None:
        return *pair.selects, empty_atlas(), _HIDDEN, None, False
    if second is None:
        return *pair.selects, views.one_run_only(first), _HIDDEN, None, False
    is_final = {first.status, second.status} == {"finished"}
    state = _state(first, second, asked)
    if state == seen:
        return *pair.selects, no_update, no_update, no_update, is_final
    answered = await _answers(client, first, second, asked)
    panels = [_refused(answered)] if isinstance(answered, ApiError) else views.body(answered, asked)
    return *pair.selects, [*_notices(pair), *panels], {}, state, is_final


def _refused(error: ApiError) -> Component:
    """Why two runs cannot be compared: mostly that one is at its beginning."""
    is_early = error.problem.status == 404
    return empty("Not to be compared yet", error.problem.detail) if is_early else failure(error.problem.detail)


def _state(first: RunSummary, second: RunSummary, asked: CompareSettings) -> str:
    runs = ":".join(f"{run.id}:{run.status}:{run.revision}" for run in (first, second))
    return f"{runs}:{asked.shown_metric}:{asked.shown_scale}:{asked.neurons}:{asked.bars}"


async def _answers(
    client: Sender, first: RunSummary, second: RunSummary, asked: CompareSettings
) -> views.ComparedAnswers | ApiError:
    metric = asked.shown_metric
    names = [metric, f"{metric}_se"] if METRIC[metric].has_se else [metric]
    compared, columns_a, columns_b, spectrum_a, spectrum_b = await asyncio.gather(
        answer_or_refusal(client, calls.compare(first.id, second.id, metric=metric)),
        answer_or_refusal(client, calls.columns(first.id, names)),
        answer_or_refusal(client, calls.columns(second.id, names)),
        answer_or_refusal(client, calls.spectrum(first.id)),
        answer_or_refusal(client, calls.spectrum(second.id)),
    )
    if isinstance(compared, ApiError):
        return compared
    return views.ComparedAnswers(compared, (columns_a, columns_b), (spectrum_a, spectrum_b))


def _notices(pair: RunPair) -> list[Component]:
    """What the address asks for and the atlas does not have."""
    return [
        missing_run_notice(choice.missing, choice.run)
        for choice in (pair.first, pair.second)
        if choice.missing is not None and choice.run is not None
    ]
