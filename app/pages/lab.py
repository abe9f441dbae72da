"""`/lab`: a person's own text. See loss, entropy and activations; intervene on neurons; see what moves, and how."""

from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components import failure, graph, panel
from app.examples import EXAMPLES
from app.figures.lab import prediction_bars
from app.pages import lab_views as views
from backend.client import Answer, ApiError, AsyncClient, Call, calls
from backend.schemas import (
    AblateRequest,
    Ablation,
    InterventionRequest,
    SweepRequest,
    TextTrace,
)

MODEL, TEXT, EXAMPLE, ANALYSE, MESSAGE = "lab-model", "lab-text", "lab-example", "lab-analyse", "lab-message"
TRACE, ABLATION, TOKEN, STRIPS, DETAIL = "lab-trace", "lab-ablation", "lab-token", "lab-strips", "lab-detail"
NEURON, ADD, ROWS, CHOSEN, RESULT = "lab-neuron", "lab-add", "lab-rows", "lab-chosen", "lab-result"
KIND, VALUE, REMOVE, MODELS = "lab-kind", "lab-value", "lab-remove", "lab-models"
ADDRESS, DRAWN, CANVAS, INTRODUCTION = "lab-address", "lab-drawn", "lab-canvas", "lab-introduction"
WHO = "lab-who"


def register(app: Dash, client: AsyncClient) -> None:
    """The page and its callbacks."""
    register_page("lab", path="/lab", title="Text lab · Calibroscope", layout=layout)
    _register_inputs(app, client)
    _register_views(app, client)


def _register_inputs(app: Dash, client: AsyncClient) -> None:
    @app.callback(
        Output(MODEL, "data"), Output(MODEL, "value"), Output(NEURON, "value"), Output(MODELS, "disabled"),
        Input(MODELS, "n_intervals"), State(MODEL, "value"), State(NEURON, "value"),
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

    @app.callback(Output(TEXT, "value"), Input(EXAMPLE, "value"), prevent_initial_call=True)
    async def take_example(name: str | None) -> Any:
        return EXAMPLES.get(name or "", no_update)

    @app.callback(
        Output(CHOSEN, "data"), Output(NEURON, "error"),
        Input(ADD, "n_clicks"), Input(NEURON, "n_submit"),
        Input({"type": REMOVE, "neuron": ALL}, "n_clicks"),
        Input({"type": KIND, "neuron": ALL}, "value"), Input({"type": VALUE, "neuron": ALL}, "value"),
        State({"type": KIND, "neuron": ALL}, "id"), State(NEURON, "value"), State(CHOSEN, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def choose(
        _: Any, __: Any, removed: list[int | None], kinds: list[str], values: list[float | None],
        ids: list[dict[str, str]], typed: str | None, chosen: list[dict[str, Any]],
    ) -> tuple[Any, Any]:  # fmt: skip
        by = ctx.triggered_id
        if by in (ADD, NEURON):
            return views.added(chosen, typed)
        if isinstance(by, dict) and by["type"] == REMOVE:
            if not any(removed):
                return no_update, no_update
            return [row for row in chosen if row["neuron"] != by["neuron"]], None
        changed = views.edited(chosen, ids, kinds, values)
        return (changed, None) if changed != chosen else (no_update, no_update)

    @app.callback(Output(ROWS, "children"), Input(CHOSEN, "data"), State(ROWS, "children"))
    async def show_rows(chosen: list[dict[str, Any]], _: Any) -> list[Component]:
        return [views.intervention_row(row) for row in chosen]


def _register_views(app: Dash, client: AsyncClient) -> None:
    @app.callback(
        Output(TRACE, "data"), Output(MESSAGE, "children"), Output(TOKEN, "data"),
        Input(ANALYSE, "n_clicks"), State(TEXT, "value"), State(MODEL, "value"),
        running=[(Output(ANALYSE, "loading"), True, False)], prevent_initial_call=True,
    )  # fmt: skip
    async def analyse(_: int | None, text: str | None, model: str | None) -> tuple[Any, Any, Any]:
        problem = views.refusal(text, model)
        if problem is not None:
            return no_update, failure(problem), no_update
        try:
            trace = await client.send(calls.trace_text(str(model), str(text)))
        except ApiError as error:
            return no_update, failure(error.problem.detail), no_update
        cut = f"Only the first {len(trace.tokens)} tokens are shown." if trace.truncated else None
        return {"text": text, "trace": trace.model_dump()}, cut, None

    @app.callback(
        Output(ABLATION, "data"), Output(RESULT, "children"),
        Input(TRACE, "data"), Input(CHOSEN, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def intervene(held: dict[str, Any] | None, chosen: list[dict[str, Any]]) -> tuple[Any, Any]:
        if held is None or not chosen:
            return None, None
        try:
            ablation = await _ablated(client, held, chosen)
        except ApiError as error:
            return None, failure(error.problem.detail)
        return ablation.model_dump(), views.totals(ablation)

    @app.callback(
        Output(DRAWN, "data"), Output(STRIPS, "style"), Output(INTRODUCTION, "style"),
        Input(TRACE, "data"), Input(ABLATION, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def show_strips(held: dict[str, Any] | None, ablated: dict[str, Any] | None) -> Any:
        if held is None:
            return no_update, no_update, no_update
        trace = TextTrace.model_validate(held["trace"])
        ablation = None if ablated is None else Ablation.model_validate(ablated)
        if ablation is not None and ablation.text != trace.id:
            ablation = None  # of the text before; the right one is on its way
        return views.strips(trace, ablation), {}, {"display": "none"}

    @app.callback(
        Output(DETAIL, "children"), Input(TOKEN, "data"), Input(ABLATION, "data"), State(TRACE, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def show_token(token: int | None, ablated: dict[str, Any] | None, held: dict[str, Any] | None) -> Any:
        if token is None or held is None:
            return None
        trace = TextTrace.model_validate(held["trace"])
        if not 0 <= token < len(trace.tokens):
            return None
        ablation = None if ablated is None else Ablation.model_validate(ablated)
        states, following = views.predictions_at(trace, ablation, token)
        return panel(
            "Predictions at the chosen token",
            views.token_facts(trace, ablation, token),
            graph(prediction_bars(states, following)),
        )

    @app.callback(
        Output(WHO, "children"), Input(TOKEN, "data"), State(TRACE, "data"),
        running=[(Output(WHO, "aria-busy"), "true", "false")], prevent_initial_call=True,
    )  # fmt: skip
    async def show_who(token: int | None, held: dict[str, Any] | None) -> Any:
        return None if token is None or held is None else await who_matters(client, held, token)

    clientside_callback(
        "window.calibroscope.drawStrips", Output(CANVAS, "title"), Input(DRAWN, "data"), Input(TOKEN, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscope.rememberLab", Output(ADDRESS, "data"), Input(MODEL, "value"), Input(CHOSEN, "data")
    )


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
    chosen = views.read_interventions(do or neuron or "")
    return html.Div(
        [
            dcc.Store(id=TRACE), dcc.Store(id=ABLATION), dcc.Store(id=TOKEN), dcc.Store(id=CHOSEN, data=chosen),
            dcc.Store(id=ADDRESS), dcc.Store(id=DRAWN),
            dcc.Interval(id=MODELS, interval=3_000),
            html.H1("Text lab", className="visually-hidden"),
            html.Div(
                [
                    _controls(model, neuron),
                    html.Div(
                        [
                            html.Div(id=MESSAGE),
                            html.Div(id=RESULT, **{"aria-live": "polite"}),
                            html.Div(views.introduction(), id=INTRODUCTION),
                            html.Div(
                                panel("Your text", html.Div(id=CANVAS, className="strips"), note=views.STRIPS_NOTE),
                                id=STRIPS, style={"display": "none"},
                            ),
                            html.Div(id=DETAIL),
                            html.Div(id=WHO, **{"aria-live": "polite"}),
                        ],
                        className="page-main",
                    ),
                ],
                className="columns",
            ),
        ]
    )  # fmt: skip


def _controls(model: str | None, neuron: str | None) -> html.Aside:
    return html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=EXAMPLE, label="Example", data=list(EXAMPLES), placeholder="Pick a text, or write your own"),
            dmc.Textarea(
                id=TEXT, label="Text", minRows=5, maxRows=14, autosize=True, persistence="lab-text",
                persistence_type="local", value=next(iter(EXAMPLES.values())),
            ),
            dmc.Button("Analyse", id=ANALYSE, fullWidth=True),
            html.H2("Interventions"),
            html.Div(
                [
                    dmc.TextInput(id=NEURON, placeholder="29.830", value=neuron or "", className="grow",
                                  **{"aria-label": "Neuron or head to intervene on"}),
                    dmc.Button("Add", id=ADD, variant="default"),
                ],
                className="add-row",
            ),
            html.Div(id=ROWS),
        ],
        className="controls", **{"aria-label": "Text and interventions"},
    )  # fmt: skip
