"""`/`: all neurons of a run. Pick a figure of the paper or any two metrics, and click a point."""

from typing import Any
from urllib.parse import urlencode

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components import empty, failure, graph
from app.figures.scatter import PRESETS, View, scatter
from app.figures.theme import blank
from app.format import number
from backend.client import ApiError, AsyncClient, calls
from backend.glossary import CLASS_LABELS, METRIC, METRICS
from backend.schemas import NeuronColumns, RunSummary

MODEL, RUN, BANNER, POLL, REVISION = "atlas-model", "atlas-run", "atlas-banner", "atlas-poll", "atlas-revision"
X, Y, COLOUR, LOGS, PRESET = "atlas-x", "atlas-y", "atlas-colour", "atlas-logs", "atlas-preset"
GRAPH, NOTE, STATE, TABLE, MAIN = "atlas-graph", "atlas-note", "atlas-state", "atlas-table", "atlas-main"
JUMP, JUMP_ERROR, GO, ADDRESS, LEGEND = "atlas-jump", "atlas-jump-error", "atlas-go", "atlas-address", "atlas-sentences"
POLL_MS = 2_000
TABLE_METRICS = (
    "total_effect", "direct_effect_ln", "ln_mediated", "null_fraction", "logit_var", "weight_norm", "delta_entropy",
    "abs_delta_entropy", "delta_loss", "prediction_change", "mean_activation",
)  # fmt: skip
_GRID_THEME = (
    "themeQuartz.withParams({backgroundColor: 'var(--paper)', foregroundColor: 'var(--ink)', "
    "headerBackgroundColor: 'var(--panel)', borderColor: 'var(--line)', browserColorScheme: 'inherit', "
    "fontFamily: 'inherit', fontSize: 13, spacing: 5, wrapperBorderRadius: 4})"
)
START = PRESETS[1]
"""Weight metrics are there within seconds of a run's start; the other presets wait for effects."""


def register(app: Dash, client: AsyncClient) -> None:
    """The page and its callbacks."""
    register_page("atlas", path="/", title="Atlas · Calibroscope", layout=layout)

    @app.callback(
        Output(MODEL, "data"), Output(MODEL, "value"), Output(RUN, "data"), Output(RUN, "value"),
        Output(BANNER, "children"), Output(REVISION, "data"), Output(POLL, "disabled"), Output(STATE, "children"),
        Output(MAIN, "hidden"),
        Input(POLL, "n_intervals"), Input(MODEL, "value"), Input(RUN, "value"), State(REVISION, "data"),
    )  # fmt: skip
    async def refresh(_: int | None, model: str | None, run: str | None, seen: str | None) -> tuple[Any, ...]:
        try:
            return await _refreshed(client, model, run, seen, model_changed=ctx.triggered_id == MODEL)
        except ApiError as error:
            return (*[no_update] * 5, no_update, False, failure(error.problem.detail), True)

    @app.callback(
        Output(GRAPH, "figure"), Output(NOTE, "children"), Output(LEGEND, "children"),
        Input(REVISION, "data"), Input(X, "value"), Input(Y, "value"), Input(COLOUR, "value"), Input(LOGS, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def draw(revision: str | None, x: str, y: str, colour: str, logs: list[str]) -> tuple[Any, Any, Any]:
        if not revision or not x or not y:
            return no_update, no_update, no_update
        view = View(x, y, colour or "class", "x" in (logs or []), "y" in (logs or []))
        run = int(revision.split(":")[0])
        try:
            data = await client.send(calls.columns(run, view.columns()))
            summary = await client.send(calls.run(run))
        except ApiError as error:
            return blank(), failure(error.problem.detail), no_update
        return scatter(data, view), _note(data, view, summary), _sentences(view)

    @app.callback(Output(TABLE, "rowData"), Input(REVISION, "data"), prevent_initial_call=True)
    async def fill_table(revision: str | None) -> Any:
        if not revision:
            return no_update
        try:
            return _table_rows(await client.send(calls.columns(int(revision.split(":")[0]), list(TABLE_METRICS))))
        except ApiError:
            return no_update  # the figure's callback says what is wrong

    @app.callback(
        Output(X, "value"), Output(Y, "value"), Output(COLOUR, "value"), Output(LOGS, "value"),
        Input({"type": PRESET, "name": ALL}, "n_clicks"), prevent_initial_call=True,
    )  # fmt: skip
    async def choose_preset(clicks: list[int | None]) -> tuple[Any, ...]:
        if not any(clicks):
            return (no_update,) * 4
        view = next(preset.view for preset in PRESETS if preset.name == ctx.triggered_id["name"])
        return view.x, view.y, view.colour, _logs(view)

    @app.callback(
        Output(GO, "href"), Output(JUMP, "error"),
        Input(GRAPH, "clickData"), Input(TABLE, "cellClicked"), Input(JUMP, "n_submit"),
        State(JUMP, "value"), State(MODEL, "value"), State(RUN, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def leave(
        clicked: dict[str, Any] | None, cell: dict[str, Any] | None, _: int | None, typed: str | None,
        model: str | None, run: str | None,
    ) -> tuple[Any, Any]:  # fmt: skip
        if model is None or run is None:
            return no_update, no_update
        if ctx.triggered_id == JUMP:
            return await _jump(client, model, run, (typed or "").strip())
        name = _clicked_point(clicked) if ctx.triggered_id == GRAPH else (cell or {}).get("rowId")
        return (neuron_address(model, name, run), None) if name else (no_update, no_update)

    clientside_callback(
        "window.calibroscope.remember",
        Output(ADDRESS, "data"),
        Input(MODEL, "value"), Input(RUN, "value"), Input(X, "value"), Input(Y, "value"),
        Input(COLOUR, "value"), Input(LOGS, "value"), prevent_initial_call=True,
    )  # fmt: skip


def neuron_address(model: str, neuron: str, run: str | int) -> str:
    """Where a neuron's page is."""
    layer, index = neuron.split(".")
    return f"/m/{model}/n/{layer}/{index}?{urlencode({'run': run})}"


def layout(
    model: str | None = None,
    run: str | None = None,
    x: str | None = None,
    y: str | None = None,
    colour: str | None = None,
    logs: str | None = None,
    **_: str,
) -> Component:
    """The page, as the address asks for it; unknown values fall back to the starting view."""
    known = set(METRIC)
    view = START.view
    if x in known and y in known:
        view = View(x, y, colour if colour in known else "class", "x" in (logs or ""), "y" in (logs or ""))
    axes = [{"value": metric.name, "label": metric.label} for metric in METRICS]
    return html.Div(
        [
            dcc.Store(id=REVISION),
            dcc.Store(id=ADDRESS),
            dcc.Location(id=GO, refresh="callback-nav"),
            dcc.Interval(id=POLL, interval=POLL_MS),
            html.H1("Atlas", className="visually-hidden"),
            html.Div(
                [_controls(model, run, view, axes), html.Div([html.Div(id=STATE), _main()], className="page-main")],
                className="columns",
            ),
        ],
    )


def _controls(model: str | None, run: str | None, view: View, axes: list[dict[str, str]]) -> html.Aside:
    presets = [
        dmc.Tooltip(
            dmc.Button(preset.label, id={"type": PRESET, "name": preset.name}, variant="default", size="compact-sm"),
            label=preset.subject,
            withArrow=True,
        )
        for preset in PRESETS
    ]
    colours = [{"value": "class", "label": "Class"}, *axes]
    return html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=RUN, label="Run", value=run, data=[run] if run else [], allowDeselect=False),
            html.Div(id=BANNER),
            dmc.TextInput(id=JUMP, label="Go to a neuron", placeholder="29.830", debounce=True),
            html.H2("Figures of the paper"),
            html.Div(presets, className="presets"),
            html.H2("Axes"),
            dmc.Select(id=X, label="Across", value=view.x, data=axes, allowDeselect=False, searchable=True),
            dmc.Select(id=Y, label="Up", value=view.y, data=axes, allowDeselect=False, searchable=True),
            dmc.Select(id=COLOUR, label="Colour", value=view.colour, data=colours, allowDeselect=False),
            dmc.ChipGroup(
                [dmc.Chip("log across", value="x", size="xs"), dmc.Chip("log up", value="y", size="xs")],
                id=LOGS, multiple=True, value=_logs(view),
            ),
        ],
        className="controls", **{"aria-label": "What is shown"},
    )  # fmt: skip


def _main() -> html.Div:
    columns = [{"field": "neuron", "headerName": "Neuron", "pinned": "left", "width": 110, "sortable": False}]
    columns.append({"field": "class", "headerName": "Class", "width": 170, "filter": True})
    formatter = {"function": "calibroscopeNumber(params.value)"}
    columns += [
        {
            "field": name, "headerName": METRIC[name].label, "headerTooltip": METRIC[name].sentence, "width": 150,
            "filter": "agNumberColumnFilter", "valueFormatter": formatter, "type": "rightAligned",
        }
        for name in TABLE_METRICS
    ]  # fmt: skip
    columns[2]["sort"] = "desc"
    return html.Div(
        [
            html.P(id=LEGEND, className="sentences"),
            html.Div(id=NOTE),
            graph(blank(), id=GRAPH, className="big-figure"),
            html.H2("Neurons"),
            dag.AgGrid(
                id=TABLE, columnDefs=columns, rowData=[], getRowId="params.data.neuron",
                className="grid",
                defaultColDef={"sortable": True, "resizable": True},
                dashGridOptions={"theme": {"function": _GRID_THEME}, "tooltipShowDelay": 300, "animateRows": False},
                dangerously_allow_code=False,
            ),
        ],
        id=MAIN, hidden=True,
    )  # fmt: skip


def _logs(view: View) -> list[str]:
    return [name for name, log in (("x", view.x_log), ("y", view.y_log)) if log]


async def _refreshed(
    client: AsyncClient, model: str | None, run: str | None, seen: str | None, *, model_changed: bool
) -> tuple[Any, ...]:
    models = (await client.send(calls.models())).models
    if not models:
        return [], None, [], None, None, None, False, _nothing_yet(), True
    chosen = next((m for m in models if m.id == model), models[0])
    runs = (await client.send(calls.runs(chosen.id))).runs
    if not runs:
        return _options(models), chosen.id, [], None, None, None, False, _nothing_yet(), True
    wanted = None if model_changed else run
    summary = next((r for r in runs if str(r.id) == wanted), None)
    summary = summary or next((r for r in runs if r.id == chosen.latest_run), runs[0])
    columns = await client.send(calls.columns(summary.id, ["weight_norm"]))
    revision = f"{summary.id}:{columns.revision}"
    is_final = summary.status in ("finished", "failed")
    waiting = not columns.neuron
    state = _loading(summary) if waiting else None
    return (
        _options(models), chosen.id, [{"value": str(r.id), "label": _run_label(r)} for r in runs], str(summary.id),
        run_banner(summary), no_update if revision == seen or waiting else revision, is_final, state, waiting,
    )  # fmt: skip


def _options(models: list[Any]) -> list[dict[str, str]]:
    return [{"value": model.id, "label": model.name} for model in models]


def _run_label(run: RunSummary) -> str:
    survey = " · survey" if run.mode == "survey" else ""
    return f"{run.id} · layer {run.layer} · {run.corpus} · {run.sequences} × {run.seq_len}{survey}"


def run_banner(run: RunSummary) -> html.Div:
    """How far a run is, in words and as a bar."""
    words = {
        "running": f"Measuring {run.stage}: {run.tokens_counted:,} of {run.tokens_total:,} tokens",
        "finished": f"Finished: {run.tokens_counted:,} tokens",
        "failed": f"Failed: {run.message}",
        "interrupted": "Interrupted. Run the same command again to resume it.",
    }[run.status]
    parts: list[Component] = [html.Div(words, className="quiet", role="status")]
    if run.status == "running":
        parts.append(dmc.Progress(value=100 * run.progress, size="sm", striped=True, animated=True))
    if run.mean_loss is not None:
        means = f"mean loss {number(run.mean_loss, 'nats')}, entropy {number(run.mean_entropy, 'nats')}"
        parts.append(html.Div(means, className="quiet"))
    if run.mode == "survey":
        bound = f"A survey: each token's change of loss and entropy is within {run.tolerance_nats:g} nats of exact."
        parts.append(html.Div(bound, className="quiet"))
    return html.Div(parts, className="banner")


def _note(data: NeuronColumns, view: View, run: RunSummary) -> Component | None:
    unmeasured = [name for name in view.metrics() if all(value is None for value in data.columns[name])]
    if not unmeasured:
        return None
    names = ", ".join(METRIC[name].label for name in unmeasured)
    if run.status == "running":
        progress = f"{run.tokens_counted:,} of {run.tokens_total:,} tokens so far"
        return empty("Being measured", f"{names}: not measured yet ({progress}). This view fills by itself.")
    return empty("Not measured", f"This run is {run.status} and has no values for: {names}. Run it again to resume it.")


def _sentences(view: View) -> str:
    preset = next((p for p in PRESETS if (p.view.x, p.view.y) == (view.x, view.y)), None)
    if preset is not None:
        return preset.sentences
    return f"{METRIC[view.x].label}: {METRIC[view.x].sentence} {METRIC[view.y].label}: {METRIC[view.y].sentence}"


def _table_rows(data: NeuronColumns) -> list[dict[str, Any]]:
    return [
        {"neuron": neuron, "class": CLASS_LABELS[data.neuron_class[row]]}
        | {name: column[row] for name, column in data.columns.items()}
        for row, neuron in enumerate(data.neuron)
    ]


def _clicked_point(clicked: dict[str, Any] | None) -> str | None:
    points = (clicked or {}).get("points") or []
    name = points[0].get("customdata") if points else None
    return name if isinstance(name, str) else None


async def _jump(client: AsyncClient, model: str, run: str, typed: str) -> tuple[Any, Any]:
    if not typed:
        return no_update, None
    try:
        found = await client.send(calls.neuron(int(run), typed.replace("/", " ")))
    except ApiError as error:
        return no_update, error.problem.detail
    return neuron_address(model, found.row.neuron, run), None


def _nothing_yet() -> html.Div:
    return empty(
        "No neurons yet",
        "The atlas is empty: the first run is loading its model, or none was started. This page fills by itself as "
        "soon as there is something to show. To start a run:",
        "calibroscope precompute --model smollm2-135m",
    )


def _loading(run: RunSummary) -> html.Div:
    return empty(
        "The run has begun", f"Measuring {run.stage} of {run.model}. The first neurons appear in a few seconds."
    )
