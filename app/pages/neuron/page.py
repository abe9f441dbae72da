"""`/m/{model}/n/{layer}/{index}`, in a mixture of experts `…/{layer}/{expert}/{index}`: all that a run knows of one
neuron."""

import asyncio
from typing import Any

from dash import MATCH, Dash, Input, Output, State, clientside_callback, dcc, html, no_update, register_page, set_props
from dash.development.base_component import Component

from app.asking import answer_or_refusal
from app.components.states import empty, failure
from app.pages.neuron import views
from backend.client import ApiError, Call, Sender, calls
from backend.glossary import ContextKind
from backend.schemas import ContextAblateRequest, NeuronDetail, Problem

WHERE, BODY, POLL, SEEN = "neuron-where", "neuron-body", "neuron-poll", "neuron-seen"
POLL_MS = 10_000


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page(
        "neuron",
        path_template="/m/<model>/n/<neuron>",  # its name, with a slash for each full stop
        title=lambda model=None, neuron="", **_: f"{_name(neuron)} · {model} · Calibroscope",
        layout=layout,
    )

    @app.callback(
        Output(BODY, "children"), Output(POLL, "disabled"), Output(SEEN, "data"),
        Input(WHERE, "data"), Input(POLL, "n_intervals"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(where: dict[str, str], _: int | None, seen: int | None) -> tuple[Any, Any, Any]:
        try:
            run = int(where["run"]) if where["run"] else await _run_of(client, where["model"], where["neuron"])
            detail = await client.send(calls.neuron(run, where["neuron"]))
        except ApiError as error:
            return _no_such_neuron(error.problem.detail), True, None
        is_final = detail.run.status != "running"
        counted = detail.run.tokens_counted
        if not seen:  # what the run has not measured yet is asked for again, until its effects come
            return await _body(client, detail), is_final, counted
        if seen != counted or is_final:
            effects = await answer_or_refusal(client, calls.effects(run, where["neuron"]))
            # Contexts that a reader has opened, and the threshold, stay as they are.
            set_props(views.OVERVIEW, {"children": [views.head(detail), views.cards(detail)]})
            set_props(views.MEASURED, {"children": views.measured_panels(detail, effects)})
        return no_update, is_final, counted

    @app.callback(
        Output({"type": views.ABLATED, "context": MATCH}, "children"),
        Input({"type": views.ABLATE, "context": MATCH}, "n_clicks"), Input(views.KIND, "value"),
        State({"type": views.ABLATE, "context": MATCH}, "id"), State(views.SHOWN, "data"),
        running=[(Output({"type": views.ABLATE, "context": MATCH}, "loading"), True, False)],
        prevent_initial_call=True,
    )  # fmt: skip
    async def without(clicks: int | None, kind: ContextKind, place: dict[str, Any], shown: dict[str, Any]) -> Any:
        return await _without(client, clicks, kind, place["context"], shown)

    clientside_callback(
        "window.calibroscopeNeuron.threshold",
        Output(views.HISTOGRAM, "figure"), Output(views.SHARE, "children"),
        Input(views.THRESHOLD, "value"), State(views.COUNTS, "data"), State(views.HISTOGRAM, "figure"),
    )  # fmt: skip


def layout(model: str = "", neuron: str = "", run: str | None = None, **_: str) -> Component:
    """The page's frame; its body is fetched."""
    where = {"model": model, "neuron": _name(neuron), "run": run if run and run.isdecimal() else None}
    return html.Div(
        [
            dcc.Store(id=WHERE, data=where),
            dcc.Store(id=SEEN),
            dcc.Interval(id=POLL, interval=POLL_MS),
            dcc.Loading(
                html.Div(id=BODY, className="neuron-body"),
                delay_show=400,
                show_initially=True,
                # Only the body itself: an answer for one context must not hide the page while the model is loaded.
                target_components={BODY: "children"},  # type: ignore[arg-type]  # the stub has no place for ids
            ),
        ]
    )


def _name(path: str) -> str:
    return path.replace("/", ".")


async def _run_of(client: Sender, model: str, neuron: str) -> int:
    """The newest run of the neuron's layer, a finished one first; else the model's, which tells what it measures."""
    runs = (await client.send(calls.runs(model))).runs
    of_layer = [run for run in runs if str(run.layer) == neuron.split(".")[0]] or runs
    if of_layer:
        return next((run for run in of_layer if run.status == "finished"), of_layer[0]).id
    detail = f"The atlas has no run of a model {model[:80]!r}."
    raise ApiError(Problem(title="Not in the atlas", status=404, detail=detail))


async def _body(client: Sender, detail: NeuronDetail) -> list[Component]:
    run, name = detail.run.id, detail.row.neuron
    wanted: list[Call[Any]] = [
        calls.effects(run, name),
        calls.histogram(run, name),
        calls.spectrum(run, name),
        calls.logits(run, name),
        calls.contexts(run, name),
        calls.similar(run, name),
    ]
    answers = await asyncio.gather(*(answer_or_refusal(client, call) for call in wanted))
    effects, histogram, spectrum, logits, contexts, similar = answers
    return [
        dcc.Store(id=views.SHOWN, data={"run": run, "neuron": name}),
        html.Div([views.head(detail), views.cards(detail)], id=views.OVERVIEW),
        views.figure_panels(detail, effects, histogram, spectrum, logits, similar),
        views.contexts_panel(contexts),
    ]


async def _without(client: Sender, clicks: int | None, kind: ContextKind, context: int, shown: dict[str, Any]) -> Any:
    """A context without the neuron: a second click takes it away again, another kind asks again where it is open."""
    if not clicks:
        return no_update
    if clicks % 2 == 0:
        return None
    request = ContextAblateRequest(kind=kind)
    try:
        answers = await client.send(calls.ablate_context(shown["run"], shown["neuron"], context, request))
    except ApiError as error:
        return failure(error.problem.detail)
    return views.ablated_context(answers)


def _no_such_neuron(sentence: str) -> html.Div:
    return html.Div([empty("There is no such neuron here", sentence), dcc.Link("To the atlas", href="/")])
