"""`/m/{model}/n/{layer}/{index}`: all that a run knows of one neuron."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app.components import Strip, class_chip, empty, graph, metric_card, panel, token_strip
from app.figures import neuron as figures
from app.format import number
from app.pages.atlas import neuron_address, run_banner
from backend.client import ApiError, AsyncClient, Call, calls
from backend.glossary import METRICS
from backend.schemas import (
    ContextList,
    ContextStrip,
    Histogram,
    NeuronDetail,
    NeuronLogits,
    Problem,
    Spectrum,
    TokenEffects,
)

WHERE, BODY, POLL, SEEN = "neuron-where", "neuron-body", "neuron-poll", "neuron-seen"
POLL_MS = 10_000
_BUCKETS = {
    "max": "Loudest contexts",
    "min": "Lowest contexts",
    "q75": "Contexts at the 75th percentile of peaks",
    "median": "Median contexts",
    "random": "Random contexts",
}
_STAGES = {"effects": "Effects of ablating it", "weights": "Weights", "activations": "Activations"}


def register(app: Dash, client: AsyncClient) -> None:
    """The page and its callbacks."""
    register_page(
        "neuron",
        path_template="/m/<model>/n/<layer>/<index>",
        title=lambda model=None, layer=None, index=None, **_: f"{layer}.{index} · {model} · Calibroscope",
        layout=layout,
    )

    @app.callback(
        Output(BODY, "children"), Output(POLL, "disabled"), Output(SEEN, "data"),
        Input(WHERE, "data"), Input(POLL, "n_intervals"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(where: dict[str, str], _: int | None, seen: int | None) -> tuple[Any, Any, Any]:
        try:
            run = int(where["run"]) if where["run"] else await _latest_run(client, where["model"])
            detail = await client.send(calls.neuron(run, where["neuron"]))
        except ApiError as error:
            return _not_found(error.problem.detail), True, None
        is_final = detail.run.status != "running"
        if seen == detail.run.tokens_counted and seen is not None and not is_final:
            return no_update, no_update, no_update
        return await _body(client, detail), is_final, detail.run.tokens_counted


def layout(model: str = "", layer: str = "", index: str = "", run: str | None = None, **_: str) -> Component:
    """The page's frame; its body is fetched."""
    where = {"model": model, "neuron": f"{layer}.{index}", "run": run if run and run.isdecimal() else None}
    return html.Div(
        [
            dcc.Store(id=WHERE, data=where),
            dcc.Store(id=SEEN),
            dcc.Interval(id=POLL, interval=POLL_MS),
            dcc.Loading(html.Div(id=BODY, className="neuron-body"), delay_show=400, show_initially=True),
        ]
    )


async def _latest_run(client: AsyncClient, model: str) -> int:
    found = next((m for m in (await client.send(calls.models())).models if m.id == model), None)
    if found is not None and found.latest_run is not None:
        return found.latest_run
    detail = f"The atlas has no run of a model {model[:80]!r}."
    raise ApiError(Problem(title="Not in the atlas", status=404, detail=detail))


async def _body(client: AsyncClient, detail: NeuronDetail) -> list[Component]:
    run, name = detail.run.id, detail.row.neuron
    wanted: list[Call[Any]] = [
        calls.effects(run, name),
        calls.histogram(run, name),
        calls.spectrum(run, name),
        calls.logits(run, name),
        calls.contexts(run, name),
    ]
    effects, histogram, spectrum, logits, contexts = await asyncio.gather(*(_try(client, call) for call in wanted))
    return [
        _head(detail),
        html.Div(_cards(detail), className="cards"),
        html.Div(
            [
                _figure_panel("Total against direct effect", effects, figures.effect_boxes, _effects_note),
                _figure_panel("Activations", histogram, figures.histogram, _histogram_note),
                _figure_panel("Where it writes", spectrum, figures.spectrum, _spectrum_note),
                _figure_panel("Tokens it moves directly", logits, figures.token_bars, _logits_note),
            ],
            className="panels",
        ),
        _contexts_panel(contexts),
    ]


async def _try(client: AsyncClient, call: Call[Any]) -> Any:
    try:
        return await client.send(call)
    except ApiError as error:
        return error


def _head(detail: NeuronDetail) -> html.Div:
    row, run = detail.row, detail.run
    lab = f"/lab?{urlencode({'model': run.model, 'neuron': row.neuron})}"
    steps = [
        dcc.Link(text, href=neuron_address(run.model, name, run.id), className="step")
        for text, name in (("← " + (detail.previous or ""), detail.previous), ((detail.next or "") + " →", detail.next))
        if name is not None
    ]
    return html.Div(
        [
            html.Div(
                [html.H1(f"Neuron {row.neuron}"), class_chip(row.neuron_class), html.Span(className="grow"), *steps],
                className="head-row",
            ),
            html.P(detail.class_reason, className="sentences"),
            html.Div(
                [
                    dcc.Link(dmc.Button("Try it in the Text lab", size="compact-md"), href=lab),
                    dcc.Link("Back to the atlas", href=f"/?{urlencode({'model': run.model, 'run': run.id})}"),
                    html.Span(f"{run.model} · run {run.id} · {run.corpus}", className="quiet"),
                ],
                className="head-row",
            ),
            run_banner(run) if run.status != "finished" else None,
        ],
        className="neuron-head",
    )


def _cards(detail: NeuronDetail) -> list[Component]:
    metrics, groups = detail.row.metrics, []
    for stage, title in _STAGES.items():
        cards = [
            metric_card(m.name, metrics[m.name], metrics.get(f"{m.name}_se"), detail.percentiles[m.name])
            for m in METRICS
            if m.stage == stage
        ]
        over = f" · mean over {detail.row.effect_tokens:,} tokens" if stage == "effects" else ""
        groups.append(html.Section([html.H2(title + over), html.Div(cards, className="card-grid")]))
    return groups


def _figure_panel(title: str, found: Any, draw: Callable[[Any], Any], note: Callable[[Any], str]) -> Component:
    if isinstance(found, ApiError):
        return panel(title, html.P(found.problem.detail, className="quiet"))
    return panel(title, graph(draw(found)), note=note(found))


def _effects_note(effects: TokenEffects) -> str:
    return f"Figure 2c, at {len(effects.tokens)} sampled tokens. What only the total shows went through the final norm."


def _histogram_note(_: Histogram) -> str:
    return "Over all positions of the sample, on a log scale. Mean ablation sets the activation to the line."


def _spectrum_note(spectrum: Spectrum) -> str:
    return (
        f"Figure 2d. An entropy neuron writes into the shaded null space: the {spectrum.null_dim} directions that the "
        "unembedding reads least."
    )


def _logits_note(_: NeuronLogits) -> str:
    return "Raised above, lowered below, when the activation is positive; the reverse when it is negative."


def _contexts_panel(found: ContextList | ApiError) -> Component:
    if isinstance(found, ApiError):
        return panel("Contexts", html.P(found.problem.detail, className="quiet"))
    groups: list[Component] = []
    for bucket, title in _BUCKETS.items():
        strips = [_context(context) for context in found.contexts if context.bucket == bucket]
        if strips:
            groups.append(html.Details([html.Summary(title), *strips], open=bucket in ("max", "min")))
    return panel("Contexts", *groups, note="Windows of the sample, coloured by the neuron's activation.")


def _context(context: ContextStrip) -> html.Div:
    details = [
        f"loss {number(loss, 'nats')}, entropy {number(entropy, 'nats')}, rank {rank or '—'}"
        for loss, entropy, rank in zip(context.loss, context.entropy, context.rank, strict=True)
    ]
    title = f"peak {number(context.peak)}"
    return token_strip(Strip(title, context.tokens, context.activations, details=details, marked=context.peak_position))


def _not_found(sentence: str) -> html.Div:
    return html.Div([empty("There is no such neuron here", sentence), dcc.Link("To the atlas", href="/")])
