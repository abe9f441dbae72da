"""`/lab`: a person's own text. See loss, entropy and activations; intervene on neurons; see what moves, and how."""

from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components import pins, run_card
from app.components.layout import graph, panel
from app.components.states import failure
from app.figures.lab import prediction_bars
from app.pages.lab import generate as lab_generate
from app.pages.lab import ids, interventions, views
from app.pages.lab.examples import EXAMPLES
from backend.client import Answer, ApiError, AsyncClient, Call, calls
from backend.schemas import (
    AblateRequest,
    Ablation,
    InterventionRequest,
    ModelSummary,
    SweepRequest,
    TextTrace,
)

Held = dict[str, Any]
"""A traced text as the page keeps it: the text and its trace."""


def register(app: Dash, client: AsyncClient) -> None:
    """The page and its callbacks."""
    register_page("lab", path="/lab", title="Text lab · Calibroscope", layout=layout)
    _register_inputs(app, client)
    _register_rows(app, client)
    _register_analysis(app, client)
    _register_views(app, client)
    _register_browser()
    lab_generate.register()
    run_card.register(app, client, "lab", ids.MODEL, what="Reference means and token frequencies from", latest=True)


def _register_inputs(app: Dash, client: AsyncClient) -> None:
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
            return options, chosen.id, neuron or await _suggested(client, chosen.latest_run), True
        except ApiError:
            return no_update, no_update, no_update, False

    @app.callback(Output(ids.TEXT, "value"), Input(ids.EXAMPLE, "value"), prevent_initial_call=True)
    async def take_example(name: str | None) -> Any:
        return EXAMPLES[name].text if name in EXAMPLES else no_update

    @app.callback(Output(ids.WATCH, "children"), Input(ids.TEXT, "value"))
    async def say_what_to_watch(text: str | None) -> str | None:
        return next((example.watch for example in EXAMPLES.values() if example.text == text), None)


def _register_rows(app: Dash, client: AsyncClient) -> None:
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

    @app.callback(Output(ids.ROWS, "children"), Input(ids.SHAPE, "data"), State(ids.ABLATION, "data"))
    async def show_rows(chosen: list[dict[str, Any]] | None, ablated: dict[str, Any] | None) -> list[Component]:
        known = (ablated or {}).get("activations_before", {})
        return [interventions.intervention_row(row, known.get(row["neuron"], ())) for row in chosen or []]


def _register_analysis(app: Dash, client: AsyncClient) -> None:
    @app.callback(
        Output(ids.TRACE, "data"), Output(ids.MESSAGE, "children"), Output(ids.TOKEN, "data"),
        Output(ids.DRAWN, "data", allow_duplicate=True),
        Input(ids.ANALYSE, "n_clicks"), State(ids.TEXT, "value"), State(ids.MODEL, "value"),
        running=[(Output(ids.ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def analyse(_: int | None, text: str | None, model: str | None) -> tuple[Any, Any, Any, Any]:
        return await analysed(client, text, model)

    @app.callback(
        Output(ids.TRACE, "data", allow_duplicate=True), Output(ids.MESSAGE, "children", allow_duplicate=True),
        Output(ids.TOKEN, "data", allow_duplicate=True), Output(ids.DRAWN, "data", allow_duplicate=True),
        Output(ids.CHOSEN, "data", allow_duplicate=True), Output(ids.TEXT, "value", allow_duplicate=True),
        Output(ids.MODEL, "value", allow_duplicate=True),
        Input(ids.RESTORED, "data"), State(ids.TRACE, "data"),
        running=[(Output(ids.ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def restore(asked: dict[str, Any] | None, held: Held | None) -> tuple[Any, ...]:
        return await restored(client, asked, held)

    @app.callback(
        Output(ids.ABLATION, "data"), Output(ids.RESULT, "children"), Output(ids.DRAWN, "data"),
        Output(ids.DETAIL, "children"),
        Input(ids.TRACE, "data"), Input(ids.CHOSEN, "data"), State(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def intervene(held: Held | None, chosen: list[dict[str, Any]], token: int | None) -> tuple[Any, ...]:
        return await intervened(client, held, chosen, token)

    @app.callback(
        Output(ids.PINNED, "data"), Output(ids.PINNED_PANEL, "children"),
        Input(ids.TRACE, "data"), Input(pins.STORE, "data", allow_optional=True), prevent_initial_call=True,
    )  # fmt: skip
    async def show_pins(held: Held | None, kept: Any) -> tuple[Any, Any]:
        return await pinned(client, held, kept)


def _register_views(app: Dash, client: AsyncClient) -> None:
    @app.callback(
        Output(ids.STRIPS, "style"), Output(ids.INTRODUCTION, "style"), Output(ids.GO_ON, "style"),
        Output(ids.NOTES, "children"),
        Input(ids.TRACE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def show_panels(held: Held | None) -> Any:
        hidden: dict[str, str] = {"display": "none"}
        if held is None:
            return hidden, {}, hidden, None
        return {}, hidden, {}, views.notes(TextTrace.model_validate(held["trace"]))

    @app.callback(
        Output(ids.DETAIL, "children", allow_duplicate=True),
        Input(ids.TOKEN, "data"), State(ids.TRACE, "data"), State(ids.ABLATION, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def show_token(token: int | None, held: Held | None, ablated: dict[str, Any] | None) -> Any:
        if held is None:
            return None
        ablation = None if ablated is None else Ablation.model_validate(ablated)
        return token_panel(TextTrace.model_validate(held["trace"]), ablation, token)

    @app.callback(
        Output(ids.WHO, "children"), Input(ids.TOKEN, "data"), State(ids.TRACE, "data"),
        running=[(Output(ids.WHO, "aria-busy"), "true", "false")], prevent_initial_call=True,
    )  # fmt: skip
    async def show_who(token: int | None, held: Held | None) -> Any:
        return None if token is None or held is None else await who_matters(client, held, token)


def _register_browser() -> None:
    """What happens without the service: the strips, the address, undo and history, sliders (page_lab.js)."""
    clientside_callback(
        "window.calibroscope.drawStrips", Output(ids.CANVAS, "title"), Input(ids.DRAWN, "data"),
        Input(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscope.drawPinned", Output(ids.PINNED_CANVAS, "title"), Input(ids.PINNED, "data"),
        Input(ids.TOKEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscope.followLab", Output(ids.PAST, "title"),
        Input(ids.MODEL, "value"), Input(ids.CHOSEN, "data"), Input(ids.TRACE, "data"),
    )  # fmt: skip
    clientside_callback("window.calibroscope.shapeOf", Output(ids.SHAPE, "data"), Input(ids.CHOSEN, "data"))
    clientside_callback(
        "window.calibroscope.slide", Output(ids.ROWS, "title"),
        Input({"type": ids.VALUE, "neuron": ALL}, "value"), Input({"type": ids.SLIDER, "neuron": ALL}, "value"),
        State(ids.CHOSEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscope.settled", Output(ids.RESULT, "title"), Input(ids.ABLATION, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscope.undo", Output(ids.UNDO, "title"), Input(ids.UNDO, "n_clicks"), prevent_initial_call=True
    )
    clientside_callback(
        "window.calibroscope.copyLink", Output(ids.SAID, "title"), Input(ids.COPY, "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip


async def analysed(client: AsyncClient, text: str | None, model: str | None) -> tuple[Any, Any, Any, Any]:
    """A text traced: what the page keeps of it, a message, no chosen token, its strips; or only why not."""
    problem = views.refusal(text, model)
    if problem is not None:
        return no_update, failure(problem), no_update, no_update
    try:
        trace = await client.send(calls.trace_text(str(model), str(text)))
    except ApiError as error:
        return no_update, failure(error.problem.detail), no_update, no_update
    cut = f"Only the first {len(trace.tokens)} tokens are shown." if trace.truncated else None
    return {"text": text, "trace": trace.model_dump()}, cut, None, views.strips(trace, None)


async def restored(client: AsyncClient, asked: dict[str, Any] | None, held: Held | None) -> tuple[Any, ...]:
    """A state from a link, the history or undo: as `analysed`, and the interventions, the text and the model."""
    if not isinstance(asked, dict):
        return (no_update,) * 7
    text, model = str(asked.get("text") or ""), str(asked.get("model") or "")
    chosen = interventions.read_interventions(str(asked.get("do") or ""))
    same = held is not None and (held["text"], held["trace"]["model"]) == (text, model)
    if same or not text:
        return no_update, None, no_update, no_update, chosen, text or no_update, model or no_update
    trace, message, token, drawn = await analysed(client, text, model)
    if asked.get("cut"):
        beginning = html.P("The text was too long for a link: this is its beginning.")
        message = beginning if message is None else html.Div([beginning, message])
    return trace, message, token, drawn, chosen, text, model


async def intervened(
    client: AsyncClient, held: Held | None, chosen: list[dict[str, Any]], token: int | None
) -> tuple[Any, Any, Any, Any]:
    """All that an intervention changes on the page, in one answer: a slider asks for it many times a second."""
    if held is None:
        return None, None, no_update, no_update
    trace, ablation, said = TextTrace.model_validate(held["trace"]), None, None
    if chosen:
        try:
            ablation = await _ablated(client, held, chosen)
            said = views.totals(ablation)
        except ApiError as error:
            said = failure(error.problem.detail)
    detail = no_update if token is None else token_panel(trace, ablation, token)
    return None if ablation is None else ablation.model_dump(), said, views.strips(trace, ablation), detail


def token_panel(trace: TextTrace, ablation: Ablation | None, token: int | None) -> Component | None:
    """What the model predicts at a token, before and after."""
    if token is None or not 0 <= token < len(trace.tokens):
        return None
    states, following = views.predictions_at(trace, ablation, token)
    return panel(
        "Predictions at the chosen token",
        views.token_facts(trace, ablation, token),
        graph(prediction_bars(states, following)),
    )


async def pinned(client: AsyncClient, held: Held | None, kept: Any) -> tuple[Any, Any]:
    """The pinned neurons' strips and the title over them, or nothing where none is pinned."""
    if held is None:
        return None, None
    trace = TextTrace.model_validate(held["trace"])
    names = views.pinned_names(kept, trace.model)
    if not names:
        return None, None
    try:
        found = await _again_if_forgotten(client, held, lambda text: calls.activations(text, names))
    except ApiError as error:
        return None, failure(error.problem.detail)
    return views.pinned_strips(trace, found), views.pinned_head()


async def who_matters(client: AsyncClient, held: dict[str, Any], token: int) -> Any:
    """All last-layer neurons ranked at one token, or why not."""
    trace = TextTrace.model_validate(held["trace"])
    if not 0 <= token < len(trace.tokens):
        return None
    is_last = token == len(trace.tokens) - 1
    request = SweepRequest(position=token, sort="abs_delta_entropy" if is_last else "total_effect", limit=10)
    try:
        sweep = await _again_if_forgotten(client, held, lambda text: calls.sweep(text, request))
    except ApiError as error:
        return failure(error.problem.detail)
    return views.who_matters(sweep, trace.model)


async def _ablated(client: AsyncClient, held: dict[str, Any], chosen: list[dict[str, Any]]) -> Ablation:
    request = AblateRequest(interventions=[InterventionRequest(**row) for row in chosen])
    return await _again_if_forgotten(client, held, lambda text: calls.ablate(text, request))


async def _again_if_forgotten(client: AsyncClient, held: dict[str, Any], ask: Callable[[str], Call[Answer]]) -> Answer:
    trace = TextTrace.model_validate(held["trace"])
    try:
        return await client.send(ask(trace.id))
    except ApiError as error:
        if error.problem.status != 404:
            raise
        # The service has restarted or made room: the text is still here, so it is sent again.
        again = await client.send(calls.trace_text(trace.model, held["text"]))
        return await client.send(ask(again.id))


async def _summary(client: AsyncClient, model: str | None) -> ModelSummary | None:
    try:
        return next((known for known in (await client.send(calls.models())).models if known.id == model), None)
    except ApiError:
        return None


async def _suggested(client: AsyncClient, run: int | None) -> str:
    """A neuron to begin with: the run's strongest entropy neuron, else the one with the largest null fraction."""
    if run is None:
        return ""
    for sort, neuron_class in (("-total_effect", "entropy"), ("-null_fraction", None)):
        page = await client.send(calls.neurons(run, sort=sort, neuron_class=neuron_class, limit=1))
        if page.rows:
            return page.rows[0].neuron
    return ""


def layout(model: str | None = None, neuron: str | None = None, do: str | None = None, **_: str) -> Component:
    """The page; `neuron`, or the interventions in `do` (`29.830:mean,29.1022:scale:2`), are there from the start."""
    chosen = interventions.read_interventions(do or neuron or "")
    stores = (ids.TRACE, ids.ABLATION, ids.TOKEN, ids.DRAWN, ids.PINNED, ids.SHAPE, ids.RESTORED)
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
            html.Div(id=ids.RESULT, **{"aria-live": "polite"}),
            html.Div(views.introduction(), id=ids.INTRODUCTION),
            html.Div(
                panel(
                    "Your text",
                    html.Div(id=ids.CANVAS, className="strips"),
                    html.Div(id=ids.NOTES),
                    note=views.STRIPS_NOTE,
                ),
                id=ids.STRIPS, style={"display": "none"},
            ),
            html.Div([html.Div(id=ids.PINNED_PANEL), html.Div(id=ids.PINNED_CANVAS)]),
            html.Div(id=ids.DETAIL),
            html.Div(id=ids.WHO, **{"aria-live": "polite"}),
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
            html.P(id=ids.WATCH, className="quiet", **{"aria-live": "polite"}),
            dmc.Button("Analyse", id=ids.ANALYSE, fullWidth=True),
            html.H2("Interventions"),
            html.Div(
                [
                    dmc.TextInput(id=ids.NEURON, placeholder="29.830", value=neuron or "", className="grow",
                                  **{"aria-label": "Neuron or head to intervene on"}),
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
            html.P(id=ids.SAID, className="quiet", role="status"),
            html.Details([html.Summary("History of this session"), html.Div(id=ids.PAST)]),
        ],
        className="controls", **{"aria-label": "Text and interventions"},
    )  # fmt: skip
