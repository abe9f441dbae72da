"""The Text lab, `/lab`: loss, entropy and activations on a text that a person brings, and what interventions change."""

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.asking import strongest_neurons
from app.components import pins, run_card
from app.components.layout import aria, panel
from app.pages.lab import actions, ids, interventions, views
from app.pages.lab import generate as lab_generate
from app.pages.lab.examples import EXAMPLES
from app.pages.lab.interventions import Rows
from app.pages.lab.traced import Traced
from backend.client import ApiError, Sender, calls
from backend.schemas import ModelSummary


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("lab", path="/lab", title="Text lab · Calibroscope", layout=layout, menu="Text lab")
    _register_inputs(app, client)
    _register_rows(app, client)
    _register_text(app, client)
    _register_results(app, client)
    _register_browser()
    lab_generate.register()
    run_card.register(app, client, "lab", ids.MODEL, what="Reference means and token frequencies from", latest=True)


def _register_inputs(app: Dash, client: Sender) -> None:
    @app.callback(
        Output(ids.MODEL, "data"), Output(ids.MODEL, "value"), Output(ids.NEURON, "value"),
        Output(ids.MODELS, "disabled"),
        Input(ids.MODELS, "n_intervals"), State(ids.MODEL, "value"), State(ids.NEURON, "value"),
    )  # fmt: skip
    async def offer_models(_: int | None, model: str | None, neuron: str | None) -> tuple[Any, Any, Any, Any]:
        try:
            models = (await client.send(calls.models())).models
            chosen = next((m for m in models if m.id == model), models[0] if models else None)
            if chosen is None:
                return [], None, no_update, False
            options = [{"value": m.id, "label": m.name} for m in models]
            run = chosen.latest_run
            strongest = [] if neuron or run is None else await strongest_neurons(client, run, 1)
            return options, chosen.id, neuron or "".join(strongest), True
        except ApiError:
            return no_update, no_update, no_update, False

    @app.callback(Output(ids.TEXT, "value"), Input(ids.EXAMPLE, "value"), prevent_initial_call=True)
    async def take_example(name: str | None) -> Any:
        return EXAMPLES[name].text if name in EXAMPLES else no_update

    @app.callback(Output(ids.WATCH, "children"), Input(ids.TEXT, "value"))
    async def say_what_to_watch(text: str | None) -> str | None:
        return next((example.watch for example in EXAMPLES.values() if example.text == text), None)


def _register_rows(app: Dash, client: Sender) -> None:
    @app.callback(
        Output(ids.CHOSEN, "data"), Output(ids.NEURON, "error"),
        Input(ids.ADD, "n_clicks"), Input(ids.NEURON, "n_submit"),
        Input({"type": ids.REMOVE, "neuron": ALL}, "n_clicks"), Input({"type": ids.KIND, "neuron": ALL}, "value"),
        State({"type": ids.VALUE, "neuron": ALL}, "value"),
        State({"type": ids.KIND, "neuron": ALL}, "id"), State(ids.NEURON, "value"), State(ids.CHOSEN, "data"),
        State(ids.MODEL, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def choose(
        _: Any, __: Any, removed: list[int | None], kinds: list[str], values: list[float | None],
        places: list[dict[str, str]], typed: str | None, chosen: list[dict[str, Any]], model: str | None,
    ) -> tuple[Any, Any]:  # fmt: skip
        by = ctx.triggered_id
        if by in (ids.ADD, ids.NEURON):
            return interventions.added(chosen, typed, await _summary(client, model))
        if isinstance(by, dict) and by["type"] == ids.REMOVE:
            if not any(removed):
                return no_update, no_update
            return [row for row in chosen if row["neuron"] != by["neuron"]], None
        changed = interventions.edited(chosen, places, kinds, values)
        return (changed, None) if changed != chosen else (no_update, no_update)

    @app.callback(Output(ids.ROWS, "children"), Input(ids.SHAPE, "data"), State(ids.TRACED, "data"))
    async def show_rows(chosen: Rows | None, traced: Traced | None) -> list[Component]:
        return await actions.rows_shown(client, traced, chosen)


def _register_text(app: Dash, client: Sender) -> None:
    text = (
        Output(ids.TRACED, "data", allow_duplicate=True), Output(ids.MESSAGE, "children", allow_duplicate=True),
        Output(ids.TOKEN, "data", allow_duplicate=True), Output(ids.STRIPS, "data", allow_duplicate=True),
        Output(ids.NOTES, "children", allow_duplicate=True),
    )  # fmt: skip

    @app.callback(
        *text, Input(ids.ANALYSE, "n_clicks"), State(ids.TEXT, "value"), State(ids.MODEL, "value"),
        running=[(Output(ids.ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def analyse(_: int | None, text: str | None, model: str | None) -> tuple[Any, ...]:
        return await actions.analysed(client, text, model)

    @app.callback(
        *text, Output(ids.CHOSEN, "data", allow_duplicate=True), Output(ids.TEXT, "value", allow_duplicate=True),
        Output(ids.MODEL, "value", allow_duplicate=True),
        Input(ids.RESTORED, "data"), State(ids.TRACED, "data"),
        running=[(Output(ids.ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def restore(asked: dict[str, Any] | None, traced: Traced | None) -> tuple[Any, ...]:
        return await actions.restored(client, asked, traced)


def _register_results(app: Dash, client: Sender) -> None:
    @app.callback(
        Output(ids.CHANGES, "data"), Output(ids.RESULT, "children"), Output(ids.DETAIL, "children"),
        Input(ids.TRACED, "data"), Input(ids.CHOSEN, "data"), State(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def intervene(traced: Traced | None, chosen: Rows, token: int | None) -> tuple[Any, Any, Any]:
        return await actions.intervened(client, traced, chosen, token)

    @app.callback(
        Output(ids.DETAIL, "children", allow_duplicate=True),
        Input(ids.TOKEN, "data"), State(ids.TRACED, "data"), State(ids.CHOSEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def show_token(token: int | None, traced: Traced | None, chosen: Rows) -> Any:
        return await actions.token_chosen(client, traced, chosen, token)

    @app.callback(
        Output(ids.WHO, "children"), Input(ids.TOKEN, "data"), State(ids.TRACED, "data"),
        running=[(Output(ids.WHO, "aria-busy"), "true", "false")], prevent_initial_call=True,
    )  # fmt: skip
    async def show_who(token: int | None, traced: Traced | None) -> Any:
        return await actions.who_matters(client, traced, token)

    @app.callback(
        Output(ids.PINNED, "data"), Output(ids.PINNED_HEAD, "children"),
        Input(ids.TRACED, "data"), Input(pins.STORE, "data", allow_optional=True), prevent_initial_call=True,
    )  # fmt: skip
    async def show_pins(traced: Traced | None, kept: Any) -> tuple[Any, Any]:
        return await actions.pinned(client, traced, kept)


def _register_browser() -> None:
    """What happens without the service: the strips, the address, undo and history, sliders (page_lab*.js)."""
    clientside_callback(
        "window.calibroscopeLab.showPanels", Output(ids.TEXT_PANEL, "style"), Output(ids.GO_ON, "style"),
        Output(ids.INTRODUCTION, "style"), Input(ids.TRACED, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLabStrips.draw", Output(ids.CANVAS, "title"), Input(ids.STRIPS, "data"),
        Input(ids.CHANGES, "data"), Input(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLabStrips.drawPinned", Output(ids.PINNED_CANVAS, "title"), Input(ids.STRIPS, "data"),
        Input(ids.PINNED, "data"), Input(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLab.follow", Output(ids.PAST, "title"),
        Input(ids.MODEL, "value"), Input(ids.CHOSEN, "data"), Input(ids.TRACED, "data"),
    )  # fmt: skip
    clientside_callback("window.calibroscopeLabSliders.shapeOf", Output(ids.SHAPE, "data"), Input(ids.CHOSEN, "data"))
    clientside_callback(
        "window.calibroscopeLabSliders.slide", Output(ids.ROWS, "title"),
        Input({"type": ids.VALUE, "neuron": ALL}, "value"), Input({"type": ids.SLIDER, "neuron": ALL}, "value"),
        State(ids.CHOSEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLabSliders.settled", Output(ids.RESULT, "title"), Input(ids.CHANGES, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLab.undo", Output(ids.UNDO, "title"), Input(ids.UNDO, "n_clicks"), prevent_initial_call=True
    )
    clientside_callback(
        "window.calibroscopeLab.copyLink", Output(ids.STATUS, "title"), Input(ids.COPY, "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip


async def _summary(client: Sender, model: str | None) -> ModelSummary | None:
    try:
        return next((known for known in (await client.send(calls.models())).models if known.id == model), None)
    except ApiError:
        return None


def layout(model: str | None = None, neuron: str | None = None, do: str | None = None, **_: str) -> Component:
    """The page; `neuron`, or the interventions in `do` (`29.830:mean,29.1022:scale:2`), are there from the start."""
    chosen = interventions.read_interventions(do or neuron or "")
    stores = (ids.TRACED, ids.TOKEN, ids.STRIPS, ids.CHANGES, ids.PINNED, ids.SHAPE, ids.RESTORED)
    return html.Div(
        [
            *[dcc.Store(id=name) for name in stores],
            dcc.Store(id=ids.CHOSEN, data=chosen),
            dcc.Interval(id=ids.MODELS, interval=3_000),
            html.H1("Text lab", className="visually-hidden"),
            run_card.place("lab"),
            html.Div([_controls(model, neuron), _results()], className="columns"),
        ]
    )


def _results() -> html.Div:
    return html.Div(
        [
            html.Div(id=ids.MESSAGE),
            html.Div(id=ids.RESULT, **aria(live="polite")),
            html.Div(views.introduction(), id=ids.INTRODUCTION),
            html.Div(
                panel(
                    "Your text",
                    html.Div([html.Div(id=ids.TEXT_CANVAS), html.Div(id=ids.CHANGES_CANVAS)], id=ids.CANVAS),
                    html.Div(id=ids.NOTES),
                    note=views.STRIPS_NOTE,
                ),
                id=ids.TEXT_PANEL, style={"display": "none"},
            ),
            html.Div([html.Div(id=ids.PINNED_HEAD), html.Div(id=ids.PINNED_CANVAS)]),
            html.Div(id=ids.DETAIL),
            html.Div(id=ids.WHO, **aria(live="polite")),
            lab_generate.generate_panel(),
        ],
        className="page-main",
    )  # fmt: skip


def _controls(model: str | None, neuron: str | None) -> html.Aside:
    first = next(iter(EXAMPLES.values())).text
    return html.Aside(
        [
            dmc.Select(id=ids.MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(
                id=ids.EXAMPLE, label="Example", data=list(EXAMPLES), placeholder="Pick a text, or write your own"
            ),
            dmc.Textarea(
                id=ids.TEXT, label="Text", minRows=5, maxRows=14, autosize=True, persistence="lab-text",
                persistence_type="local", value=first,
            ),
            html.P(id=ids.WATCH, className="quiet", **aria(live="polite")),
            dmc.Button("Analyse", id=ids.ANALYSE, fullWidth=True),
            html.H2("Interventions"),
            html.Div(
                [
                    dmc.TextInput(id=ids.NEURON, placeholder="layer.index", value=neuron or "", className="grow",
                                  **aria(label="Neuron or head to intervene on")),
                    dmc.Button("Add", id=ids.ADD, variant="default"),
                ],
                className="add-row",
            ),
            html.Div(id=ids.ROWS),
            html.Div(
                [
                    dmc.Button("Undo", id=ids.UNDO, variant="default", size="xs", disabled=True),
                    dmc.Button("Copy link", id=ids.COPY, variant="default", size="xs"),
                ],
                className="add-row",
            ),
            html.P(id=ids.STATUS, className="quiet", role="status"),
            html.Details([html.Summary("History of this session"), html.Div(id=ids.PAST)]),
        ],
        className="controls", **aria(label="Text and interventions"),
    )  # fmt: skip
