"""`/induction`: what a model does when text repeats, which neurons notice, and which heads tell them.

The browser asks the service itself (static/page_induction_streams.js) and puts each event of the answer into a store as
it arrives; the callbacks here draw what is in the stores.
"""

from typing import Any
from uuid import uuid4

from dash import ALL, Dash, Input, Output, State, clientside_callback, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.asking import choose_run, entropy_neurons
from app.components import pins, run_card
from app.components.layout import aria, dataset, graph
from app.components.states import empty, failure
from app.figures import induction as figures
from app.notation.units import is_head, is_neuron, neuron_name
from app.pages.induction import ids, views
from app.pages.induction.controls import controls
from app.pages.induction.jobs import Opened, opened
from app.pages.induction.jobs import register as register_jobs
from app.pages.induction.state import APART, MOST_HEADS, SPANS, awaited, read
from app.pages.jobs.views import for_writing
from backend.client import ApiError, Sender, calls
from backend.schemas import (
    MAX_INDUCTION_SEQUENCES,
    InductionAttribution,
    InductionChange,
    InductionClip,
    InductionCurves,
    InductionHeads,
    InductionKnockout,
    InductionStart,
    NeuronColumns,
)

Event = dict[str, Any]
MOST_DEFAULTS, MOST_OFFERED = 6, 16
_REQUEST = (
    (ids.MODEL, "value"), (ids.RUN, "value"), (ids.SOURCE, "value"), (ids.TEXT, "value"), (ids.SEQUENCES, "value"),
    (ids.SPAN, "value"), (ids.NEURONS, "value"), (ids.PARTS, "value"), (ids.HEADS, "value"),
    (ids.TOP_HEADS, "value"), (ids.SEED, "value"), (ids.KNOCKED_OUT_AT, "value"),
)  # fmt: skip
"""All that makes a request, in the order in which static/page_induction_request.js takes it."""


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""

    async def page(**address: str) -> Component:
        return layout_of(await opened(client, **address))

    register_page("induction", path="/induction", title="Induction · Calibroscope", layout=page, menu="Induction")
    register_jobs(app, client)
    _register_controls(app, client)
    _register_frame(app)
    _register_neurons(app, client)
    _register_heads(app)
    _register_browser()
    run_card.register(app, client, "induction", ids.RUN, what="Text, classes and reference means from")


def layout(**address: str) -> Component:
    """The page, as an address without a job asks for it."""
    return layout_of(Opened(read(**address)))


def layout_of(opened: Opened) -> Component:
    """The page, with the job that it shows first."""
    asked = opened.asked
    stores = (
        ids.PHASE, ids.START, ids.CURVES, ids.CLIPS, ids.CHANGE, ids.HEAD_SCORES, ids.KNOCKOUTS, ids.ATTRIBUTION,
        ids.DEFAULTS,
    )  # fmt: skip
    results = html.Div(
        [
            html.Div(id=ids.MESSAGE),
            html.Div([] if opened.problem is None else failure(opened.problem)),
            html.Div(id=ids.NOTICE, **aria(live="polite")),
            html.Details([html.Summary("Results in the atlas"), html.Div(id=ids.JOBS)], open=opened.job is None),
            *for_writing(),
            html.Div(id=ids.FAILED),
            html.Div(views.introduction(), id=ids.INTRODUCTION),
            html.Div(id=ids.SUMMARY, **aria(live="polite")),
            *views.panels(),
            html.P(id=ids.REST, className="quiet"),
        ],
        className="page-main",
    )
    return html.Div(
        [
            *(dcc.Store(id=name) for name in stores),
            dcc.Store(id=ids.AUTO, data=asked.go),
            dcc.Store(id=ids.SHOWN, data=opened.shown),
            dcc.Interval(id=ids.OFFER, interval=3_000),
            dcc.Interval(id=ids.JOBS_POLL, interval=3_000, disabled=True),
            html.H1("Induction", className="visually-hidden"),
            run_card.place("induction"),
            html.Div([controls(asked), results], className="columns"),
        ],
        id=ids.ROOT,
        # the browser may keep the element when the page is drawn anew: by this it knows
        **dataset(visit=uuid4().hex, most=str(MAX_INDUCTION_SEQUENCES)),
    )


def _register_controls(app: Dash, client: Sender) -> None:
    @app.callback(
        Output(ids.MODEL, "data"), Output(ids.MODEL, "value"), Output(ids.RUN, "data"), Output(ids.RUN, "value"),
        Output(ids.DEFAULTS, "data"), Output(ids.NEURONS, "value"), Output(ids.OFFER, "disabled"),
        Output(ids.MESSAGE, "children"),
        Input(ids.OFFER, "n_intervals"), Input(ids.MODEL, "value"), Input(ids.RUN, "value"),
        State(ids.NEURONS, "value"), State(ids.DEFAULTS, "data"),
    )  # fmt: skip
    async def offer(
        _: int | None, model: str | None, run: str | None, neurons: list[str] | None, known: Event | None
    ) -> tuple[Any, ...]:
        return await offered(client, model, run, neurons or [], known)

    @app.callback(
        Output(ids.NEURONS, "data"), Input(ids.DEFAULTS, "data"), Input(pins.STORE, "data", allow_optional=True),
        State(ids.MODEL, "value"), State(ids.NEURONS, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def suggest(known: Event | None, kept: Any, model: str | None, chosen: list[str] | None) -> Any:
        return suggested(known, kept, model, chosen or [])

    for name, kind, example in ((ids.NEURONS, "neuron", "29.830"), (ids.HEADS, "head", "L5H1")):
        _register_names(app, name, kind, example)


def _register_names(app: Dash, name: str, kind: str, example: str) -> None:
    @app.callback(
        Output(name, "value", allow_duplicate=True), Output(name, "error"),
        Input(name, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def check(names: list[str] | None) -> tuple[Any, str | None]:
        return checked(names or [], kind, example)


def _register_frame(app: Dash) -> None:
    @app.callback(
        Output({"type": ids.PANEL, "panel": ALL}, "hidden"), Output({"type": ids.WAITING, "panel": ALL}, "children"),
        Output(ids.INTRODUCTION, "hidden"), Output(ids.REST, "children"),
        Input(ids.PHASE, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def frame(phase: Event | None) -> tuple[Any, ...]:
        states = [awaited(phase, panel.part) for panel in views.PANELS]
        rest = views.not_asked(phase["parts"]) if phase else None
        return [hidden for hidden, _ in states], [words for _, words in states], phase is not None, rest

    @app.callback(Output(ids.SUMMARY, "children"), Input(ids.START, "data"), prevent_initial_call=True)
    async def tell(start: Event | None) -> Any:
        return None if start is None else views.summary(InductionStart.model_validate(start))


def _body(panel: str) -> Output:
    return Output({"type": ids.BODY, "panel": panel}, "children")


def _register_neurons(app: Dash, client: Sender) -> None:
    @app.callback(
        _body("curves"), _body("samples"), Input(ids.CURVES, "data"), State(ids.START, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def draw_curves(curves: Event | None, start: Event | None) -> tuple[Any, Any]:
        if curves is None:
            return None, None
        event = InductionCurves.model_validate(curves)
        return views.curves(event, apart=is_apart(start)), views.samples(event.samples)

    @app.callback(
        _body("clip"), Output(ids.POINTS_OF, "data"), Output(ids.POINTS_OF, "value"),
        Input(ids.CLIPS, "data"), State(ids.POINTS_OF, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def draw_clips(events: list[Event] | None, shown: str | None) -> tuple[Any, Any, Any]:
        clips = _clips(events)
        if not clips:
            return None, [], None
        neurons = [clip.neuron for clip in clips]
        return views.clips(clips), neurons, shown if shown in neurons else neurons[0]

    @app.callback(_body("tokens"), Input(ids.CLIPS, "data"), Input(ids.POINTS_OF, "value"), prevent_initial_call=True)
    async def draw_points(events: list[Event] | None, neuron: str | None) -> Any:
        return views.points(_clips(events), neuron)

    @app.callback(
        _body("change"), Input(ids.CHANGE, "data"), Input(ids.AGAINST, "value"), State(ids.PHASE, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def draw_change(change: Event | None, against: str, phase: Event | None) -> Any:
        return await changed(client, change, against, (phase or {}).get("run"))


def _register_heads(app: Dash) -> None:
    @app.callback(
        _body("heads"), Output(ids.HEADS, "data"),
        Input(ids.HEAD_SCORES, "data"), Input(ids.HEADS, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def draw_heads(heads: Event | None, picked: list[str] | None) -> tuple[Any, Any]:
        if heads is None:
            return None, no_update
        event = InductionHeads.model_validate(heads)
        kept_heads = [name for name in picked or [] if is_head(name)]
        return views.heads(event, kept_heads), list(dict.fromkeys([*kept_heads, *views.suggested_heads(event)]))

    @app.callback(
        Output(ids.HEADS, "value", allow_duplicate=True), Input(ids.HEAD_GRAPH, "clickData"),
        State(ids.HEADS, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def pick(clicked: Event | None, picked: list[str] | None) -> Any:
        changed_heads = views.toggled_head(clicked, picked, MOST_HEADS)
        return no_update if changed_heads is None else changed_heads

    @app.callback(
        _body("bos"), _body("mean_output"),
        Input(ids.KNOCKOUTS, "data"), Input(ids.CURVES, "data"), State(ids.START, "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def draw_knockouts(
        knockouts: list[Event] | None, plain: Event | None, start: Event | None
    ) -> tuple[Any, Any]:
        return knocked_out(knockouts, plain, apart=is_apart(start))

    @app.callback(_body("attribution"), Input(ids.ATTRIBUTION, "data"), prevent_initial_call=True)
    async def draw_attribution(attributions: list[Event] | None) -> Any:
        return views.attributions([InductionAttribution.model_validate(one) for one in attributions or []])


def _register_browser() -> None:
    """What happens without Dash: the stream, cancelling it, and the address (page_induction.js)."""
    here = "window.calibroscopeInduction."
    clientside_callback(
        here + "follow", Output(ids.ROOT, "title"), *(Input(name, part) for name, part in _REQUEST),
        State(ids.AUTO, "data"), State(ids.SHOWN, "data"),
    )  # fmt: skip
    clientside_callback(
        here + "run", Output(ids.GO, "title"), Input(ids.GO, "n_clicks"),
        *(State(name, part) for name, part in _REQUEST), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "queue", Output(ids.QUEUE, "title"), Input(ids.QUEUE, "n_clicks"),
        *(State(name, part) for name, part in _REQUEST), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        here + "cancel", Output(ids.CANCEL, "title"), Input(ids.CANCEL, "n_clicks"), prevent_initial_call=True
    )
    clientside_callback(
        here + "copyLink", Output(ids.COPY, "title"), Input(ids.COPY, "n_clicks"), prevent_initial_call=True
    )
    spans = ", ".join(f"{source}: {span}" for source, span in SPANS.items())
    clientside_callback(
        f"(source, span) => window.calibroscopeInduction.sourced(source, span, {{{spans}}})",
        Output(ids.TEXT_BOX, "style"), Output(ids.SPAN, "value"),
        Input(ids.SOURCE, "value"), State(ids.SPAN, "value"), prevent_initial_call=True,
    )  # fmt: skip


async def offered(
    client: Sender, model: str | None, run: str | None, neurons: list[str], known: Event | None
) -> tuple[Any, ...]:
    """Models, the chosen one's runs, and the run's entropy neurons; or why there is nothing to choose from."""
    try:
        chosen = await choose_run(client, model, run)
        if chosen.run is None:
            waiting = empty("No run yet", "Repeats are measured with a run's corpus and its neurons. The first run is "
                            "still loading its model, or none was started; this page goes on by itself.")  # fmt: skip
            return *chosen.selects, None, no_update, False, waiting
        entropy = await entropy_neurons(client, chosen.run.id, MOST_OFFERED)
    except ApiError as error:
        return (*[no_update] * 6, False, failure(error.problem.detail))
    offer = {"layer": chosen.run.layer, "entropy": entropy}
    return *chosen.selects, offer, _chosen_or_default(neurons, offer, known), True, None


def _chosen_or_default(neurons: list[str], offer: Event, known: Event | None) -> Any:
    """A person's neurons where they are of the layer that is measured; else the run's entropy neurons."""
    of_layer = [name for name in neurons if name.startswith(f"{offer['layer']}.")]
    was_default = known is not None and neurons == known["entropy"][:MOST_DEFAULTS]
    if of_layer and not was_default:
        return of_layer if of_layer != neurons else no_update
    return offer["entropy"][:MOST_DEFAULTS]


def suggested(known: Event | None, kept: Any, model: str | None, chosen: list[str]) -> list[Event]:
    """The pinned neurons of the measured layer, the run's entropy neurons, and those that are chosen already.

    The control drops a chosen name that is not among its suggestions whenever these change.
    """
    if known is None:
        return [{"group": "Chosen", "items": chosen}] if chosen else []
    pinned = kept.get(model) if isinstance(kept, dict) else None
    of_layer = [name for name in pinned if is_neuron(name)] if isinstance(pinned, list) else []
    of_layer = [name for name in dict.fromkeys(of_layer) if name.startswith(f"{known['layer']}.")]
    entropy = [name for name in known["entropy"] if name not in of_layer]
    others = [name for name in chosen if name not in of_layer + entropy]
    groups = (("Pinned", of_layer), ("Entropy neurons of the run", entropy), ("Chosen", others))
    return [{"group": group, "items": names} for group, names in groups if names]


def checked(names: list[str], kind: str, example: str) -> tuple[Any, str | None]:
    """What reads as a neuron or a head, and what is wrong with the rest."""
    is_name = is_neuron if kind == "neuron" else is_head
    wrong = [name for name in names if not is_name(name)]
    if not wrong:
        return no_update, None
    return [name for name in names if name not in wrong], f"“{wrong[0][:24]}” is not a {kind}: write it as {example}."


def is_apart(start: Event | None) -> bool:
    """Whether other text lies between the occurrences."""
    return start is not None and start["source"] in APART


def _clips(events: list[Event] | None) -> list[InductionClip]:
    return [InductionClip.model_validate(one) for one in events or []]


async def changed(client: Sender, change: Event | None, against: str, run: int | None) -> Any:
    """Figure 11, with what the run knows of the neurons."""
    if change is None:
        return None
    event = InductionChange.model_validate(change)
    columns = await _columns(client, run, event)
    note = views.change_note(columns, against)
    figure = figures.change_scatter(event, columns, against=against if columns is not None else "index")
    return [*([html.P(note, className="quiet")] if note else []), graph(figure)]


async def _columns(client: Sender, run: int | None, event: InductionChange) -> NeuronColumns | None:
    if run is None:
        return None
    try:
        columns = await client.send(calls.columns(run, ["null_fraction"]))
    except ApiError:
        return None
    names = [neuron_name(event.layer, index, event.experts) for index in range(len(event.change))]
    same = columns.neuron == names
    return columns if same else None


def knocked_out(knockouts: list[Event] | None, plain: Event | None, *, apart: bool) -> tuple[Any, Any]:
    """Figures 5c and 12, and 13."""
    events = [InductionKnockout.model_validate(one) for one in knockouts or []]
    curves = None if plain is None else InductionCurves.model_validate(plain)
    by_how = ([one for one in events if one.how == how] for how in ("bos", "mean_output"))
    shown = [views.knockouts(some, curves, apart=apart) if some else None for some in by_how]
    return shown[0], shown[1]
