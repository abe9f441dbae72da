"""`/`: all neurons of a run. Pick a figure of the paper or any two metrics, select points, and click one.

The service is asked for a run's columns once. All views are drawn from them in the browser, and what then happens to a
view (hiding classes, selecting, marking, the table) happens there too: static/page_atlas*.js.
"""

from typing import Any
from urllib.parse import urlsplit

from dash import ALL, Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app import links
from app.asking import choose_run
from app.components import pins, run_card
from app.components.run_banner import run_banner
from app.components.states import empty_atlas, failure, missing_run_notice
from app.figures.presets import PRESET as PRESETS_BY_NAME
from app.figures.presets import PRESETS
from app.figures.scales import Scale
from app.figures.scatter import View, kit, limits
from app.pages.atlas import classes as atlas_classes
from app.pages.atlas import search as atlas_search
from app.pages.atlas import views
from app.pages.atlas.recipe import Scene, recipe
from app.pages.atlas.state import read
from app.pages.atlas.table import (
    ABOUT,
    CHOOSER,
    CLEAR,
    DEFAULT_METRICS,
    ERRORS,
    EXPORT,
    PICKED_BAR,
    PIN_TICKED,
    TABLE,
    columns_data,
    section,
)
from app.pages.atlas.views import (
    BANNER,
    COLOUR,
    DRAG,
    GRAPH,
    JUMP,
    MAIN,
    MODEL,
    NOTE,
    PRESET,
    PYTHON,
    PYTHON_MODAL,
    PYTHON_TEXT,
    RUN,
    SAVE,
    SENTENCES,
    SHOWN,
    SIZE,
    STATE,
    X_SCALE,
    Y_SCALE,
    X,
    Y,
)
from backend.client import ApiError, Sender, calls
from backend.glossary import METRIC_COLUMNS
from backend.schemas import RunSummary

POLL, REVISION, GO, DONE = "atlas-poll", "atlas-revision", "atlas-go", "atlas-done"
COLUMNS, PICKED = "atlas-data", "atlas-picked"
CHOSEN, PRESET_TABLE, KIT = "atlas-chosen", "atlas-presets", "atlas-kit"
POLL_MS = 2_000


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("atlas", path="/", title="Atlas · Calibroscope", layout=layout, menu="Atlas")
    _register_service(app, client)
    _register_python(app, client)
    _register_browser()
    atlas_search.register(app, client)
    atlas_classes.register(app, client, REVISION)
    run_card.register(app, client, "atlas", RUN, POLL)


def _register_service(app: Dash, client: Sender) -> None:
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
        Output(COLUMNS, "data"), Output(STATE, "children", allow_duplicate=True),
        Input(REVISION, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def fetch(revision: str | None) -> tuple[Any, Any]:
        if not revision:
            return no_update, no_update
        try:
            run = int(revision.split(":")[0])
            data = await client.send(calls.columns(run, list(METRIC_COLUMNS)))
            summary = await client.send(calls.run(run))
        except ApiError as error:
            return no_update, failure(error.problem.detail)
        return columns_data(data, limits(summary)), no_update

    @app.callback(
        Output(NOTE, "children"), Output(SENTENCES, "children"),
        Input(REVISION, "data"), Input(X, "value"), Input(Y, "value"), Input(COLOUR, "value"), Input(SIZE, "value"),
        Input(CHOSEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def explain(
        revision: str | None, x: str, y: str, colour: str, size: str | None, preset: str | None
    ) -> tuple[Any, Any]:
        if not revision or not x or not y:
            return no_update, no_update
        return await _explained(client, int(revision.split(":")[0]), View(x, y, colour, size=size or ""), preset)

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
        name = _clicked_point(clicked) if ctx.triggered_id == GRAPH else _clicked_row(cell)
        return (links.neuron(model, name, run), None) if name else (no_update, no_update)


def _register_python(app: Dash, client: Sender) -> None:
    @app.callback(
        Output(PYTHON_TEXT, "children"), Output(PYTHON_MODAL, "opened"),
        Input(PYTHON, "n_clicks"),
        State("_pages_location", "href"), State(MODEL, "value"), State(RUN, "value"), State(X, "value"),
        State(Y, "value"), State(COLOUR, "value"), State(SIZE, "value"), State(X_SCALE, "value"),
        State(Y_SCALE, "value"), State(SHOWN, "value"), State(PICKED, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def as_python(
        clicks: int | None, href: str | None, model: str | None, run: str | None, x: str, y: str, colour: str,
        size: str | None, x_scale: Scale, y_scale: Scale, shown: list[str], picked: list[str] | None,
    ) -> tuple[Any, Any]:  # fmt: skip
        if not clicks or not href or model is None or run is None:
            return no_update, no_update
        where = urlsplit(href)
        view = View(x, y, colour or "class", x_scale, y_scale, size or "")
        try:
            measured = run_card.line(await client.send(calls.run(int(run))))
        except ApiError as error:
            return error.problem.detail, True
        scene = Scene(model, int(run), view, shown or [], picked or [], measured)
        return recipe(scene, f"{where.scheme}://{where.netloc}"), True


def _register_browser() -> None:
    here, table, address = (f"window.calibroscopeAtlas{part}." for part in ("", "Table", "Address"))
    clientside_callback(table + "aboutRun", Output(ABOUT, "href"), Output(ABOUT, "download"), Input(RUN, "value"))
    clientside_callback(
        here + "figure",
        Output(GRAPH, "figure"),
        Input(COLUMNS, "data"), Input(X, "value"), Input(Y, "value"), Input(COLOUR, "value"), Input(SIZE, "value"),
        Input(X_SCALE, "value"), Input(Y_SCALE, "value"), Input(SHOWN, "value"), Input(PICKED, "data"),
        Input(TABLE, "selectedRows"), Input(atlas_search.MARKS, "data"), Input(pins.STORE, "data"),
        Input(DRAG, "value"), State(MODEL, "value"), State(KIT, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        table + "rows", Output(TABLE, "rowData"), Input(COLUMNS, "data"), prevent_initial_call=True
    )  # fmt: skip
    clientside_callback(
        table + "filter",
        Output(PICKED_BAR, "hidden"), Output(f"{PICKED_BAR}-words", "children"),
        Input(COLUMNS, "data"), Input(SHOWN, "value"), Input(PICKED, "data"), Input(TABLE, "selectedRows"),
    )  # fmt: skip
    clientside_callback(
        here + "pick",
        Output(PICKED, "data"), Output(GRAPH, "selectedData"), Output(TABLE, "selectedRows"),
        Input(GRAPH, "selectedData"), Input(CLEAR, "n_clicks"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "choosePreset",
        Output(X, "value"), Output(Y, "value"), Output(COLOUR, "value"), Output(SIZE, "value"),
        Output(X_SCALE, "value"), Output(Y_SCALE, "value"), Output(CHOSEN, "data"),
        Input({"type": PRESET, "name": ALL}, "n_clicks"), State(PRESET_TABLE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "freeAxes",
        Output(CHOSEN, "data", allow_duplicate=True),
        Input(X, "value"), Input(Y, "value"), State(CHOSEN, "data"), State(PRESET_TABLE, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "markPreset", Output({"type": PRESET, "name": ALL}, "aria-pressed"),
        Input(CHOSEN, "data"), Input(X, "value"), Input(Y, "value"),
        State(PRESET_TABLE, "data"), State({"type": PRESET, "name": ALL}, "id"),
    )  # fmt: skip
    clientside_callback(
        table + "chooseColumns", Output(DONE, "data"), Input(CHOOSER, "value"), prevent_initial_call=True
    )
    clientside_callback(
        table + "showErrors", Output(DONE, "data", allow_duplicate=True), Input(ERRORS, "checked"),
        Input(TABLE, "rowData"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        table + "exportRows", Output(DONE, "data", allow_duplicate=True), Input(EXPORT, "n_clicks"),
        State(MODEL, "value"), State(RUN, "value"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        table + "pinRows", Output(pins.STORE, "data", allow_duplicate=True),
        Input(PIN_TICKED, "n_clicks"), Input(TABLE, "cellClicked"),
        State(TABLE, "selectedRows"), State(MODEL, "value"), State(pins.STORE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        table + "showPins", Output(DONE, "data", allow_duplicate=True), Input(pins.STORE, "data"),
        Input(MODEL, "value"), Input(TABLE, "rowData"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "save", Output(DONE, "data", allow_duplicate=True), Input({"type": SAVE, "format": ALL}, "n_clicks"),
        State(MODEL, "value"), State(RUN, "value"), State(X, "value"), State(Y, "value"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        address + "remember", Output(DONE, "data", allow_duplicate=True),
        Input(MODEL, "value"), Input(RUN, "value"), Input(CHOSEN, "data"), Input(X, "value"), Input(Y, "value"),
        Input(COLOUR, "value"), Input(SIZE, "value"), Input(X_SCALE, "value"), Input(Y_SCALE, "value"),
        Input(SHOWN, "value"),
        Input(PICKED, "data"), Input(TABLE, "columnState"), Input(CHOOSER, "value"), Input(atlas_search.TOKEN, "data"),
        Input(ERRORS, "checked"), State(KIT, "data"), prevent_initial_call=True,
    )  # fmt: skip


def layout(**address: str) -> Component:
    """The page, as the address asks for it; unknown values fall back to the starting view."""
    asked = read(**address)
    presets = [
        {"name": p.name, "x": p.view.x, "y": p.view.y, "colour": p.view.colour, "size": p.view.size,
         "xscale": p.view.x_scale, "yscale": p.view.y_scale}
        for p in PRESETS
    ]  # fmt: skip
    main = html.Div(
        [*views.figure_area(asked), section(asked.sort, asked.columns, errors=asked.errors)], id=MAIN, hidden=True
    )
    return html.Div(
        [
            *(dcc.Store(id=name) for name in (REVISION, DONE, COLUMNS)),
            dcc.Store(id=PICKED, data=asked.picked),
            dcc.Store(id=CHOSEN, data=asked.preset),
            dcc.Store(id=PRESET_TABLE, data=presets),
            dcc.Store(id=KIT, data={**kit(), "columns": DEFAULT_METRICS}),
            dcc.Location(id=GO, refresh="callback-nav"),
            dcc.Interval(id=POLL, interval=POLL_MS),
            html.H1("Atlas", className="visually-hidden"),
            run_card.place("atlas"),
            html.Div(
                [
                    views.controls(asked, atlas_search.section(asked.token)),
                    html.Div([html.Div(id=STATE), main], className="page-main"),
                ],
                className="columns",
            ),
        ],
    )


async def _explained(client: Sender, run: int, view: View, name: str | None) -> tuple[Any, Any]:
    """What to look for, and above the figure what keeps it from being drawn."""
    preset = PRESETS_BY_NAME.get(name or "")
    try:
        data = await client.send(calls.columns(run, view.metrics()))
        note = views.note(data, view, await client.send(calls.run(run)))
    except ApiError as error:
        return failure(error.problem.detail), no_update
    return note, views.sentences(view, preset)


async def _notice(client: Sender) -> str | None:
    try:
        return (await client.send(calls.health())).notice
    except ApiError:
        return None


async def _refreshed(
    client: Sender, model: str | None, run: str | None, seen: str | None, *, model_changed: bool
) -> tuple[Any, ...]:
    chosen = await choose_run(client, model, None if model_changed else run)
    summary = chosen.run
    if summary is None:
        notice = None if chosen.models else await _notice(client)
        return *chosen.selects, None, None, False, empty_atlas(notice), True
    revision = f"{summary.id}:{_revision(summary)}"
    is_final = summary.status in ("finished", "failed")
    waiting = summary.stage == "queued"  # the stage that ends when the neurons' first metrics are published
    replaced = None if chosen.missing is None else missing_run_notice(chosen.missing, summary)
    return (
        *chosen.selects, run_banner(summary), no_update if revision == seen or waiting else revision, is_final,
        views.loading(summary) if waiting else replaced, waiting,
    )  # fmt: skip


def _revision(run: RunSummary) -> str:
    """Changes when columns are worth fetching again: while a run grows, at most once a hundredth of it."""
    if run.status != "running":
        return run.revision
    return f"{run.stage}-{run.tokens_sampled}-{run.progress:.2f}"


def _clicked_point(clicked: dict[str, Any] | None) -> str | None:
    points = (clicked or {}).get("points") or []
    name = points[0].get("customdata") if points else None
    return name if isinstance(name, str) else None


def _clicked_row(cell: dict[str, Any] | None) -> str | None:
    """The neuron whose name was clicked; other cells are for ticking, pinning and reading."""
    name = (cell or {}).get("rowId")
    return name if isinstance(name, str) and (cell or {}).get("colId") == "neuron" else None


async def _jump(client: Sender, model: str, run: str, typed: str) -> tuple[Any, Any]:
    if not typed:
        return no_update, None
    try:
        neuron = await client.send(calls.neuron(int(run), typed.replace("/", ".")[:40]))
    except ApiError as error:
        return no_update, error.problem.detail
    return links.neuron(model, neuron.row.neuron, run), None
