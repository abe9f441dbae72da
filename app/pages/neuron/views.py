"""What the neuron page shows, as functions from what the service answered to components."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from app import links
from app.components import pins, plus_minus
from app.components.layout import aria, graph, panel
from app.components.metric_card import metric_card
from app.components.neuron_class import class_chip
from app.components.run_banner import run_banner
from app.components.run_card import run_card
from app.components.shares import mean, mean_size, through_norm
from app.components.states import failure
from app.components.token_strip import Strip, token_strip
from app.figures import neuron as figures
from app.figures.scales import zero_values
from app.notation.numbers import number, signed
from backend.client import ApiError
from backend.glossary import INTERVENTION, METRICS, ROUTING_METRICS, ContextKind
from backend.schemas import (
    ContextAblation,
    ContextList,
    ContextStrip,
    Histogram,
    NeuronDetail,
    NeuronLogits,
    SimilarNeuron,
    SimilarNeurons,
    Spectrum,
    TokenEffects,
)

SHOWN, OVERVIEW, MEASURED = "neuron-shown", "neuron-overview", "neuron-measured"
HISTOGRAM, COUNTS, THRESHOLD, SHARE = "neuron-histogram", "neuron-counts", "neuron-threshold", "neuron-share"
KIND, ABLATE, ABLATED = "neuron-ablation-kind", "neuron-context-ablate", "neuron-context-ablated"

KINDS: dict[ContextKind, str] = {kind: INTERVENTION[kind].on_neurons or kind for kind in get_args(ContextKind)}
_BUCKETS = {
    "max": "Loudest contexts",
    "min": "Lowest contexts",
    "q75": "Contexts at the 75th percentile of peaks",
    "median": "Median contexts",
    "random": "Random contexts",
}
_STAGES = {
    "effects": "Effects of ablating it",
    "weights": "Weights",
    "activations": "Activations",
    "induction": "On repeated text",
}
_ACROSS = 0.05
"""A cosine with the token-frequency direction below which its sign says nothing."""
_FAR = "A dash: w_out is not among the ten nearest."
_CHANGED_WEIGHTS = 0.01
"""Nats between the run's losses and the live model's that rounding does not explain."""


def head(detail: NeuronDetail) -> html.Div:
    """The neuron, its class and why, and the ways from here."""
    row, run = detail.row, detail.run
    errors = plus_minus.of_run(run)
    lab = links.lab(run.model, row.neuron)
    ways = (("neuron-previous", "← ", detail.previous, ""), ("neuron-next", "", detail.next, " →"))
    steps = [
        dcc.Link(
            before + name + after, id=place, href=links.neuron(run.model, name, run.id), className="step",
            title="Key " + ("← or [" if before else "→ or ]"),
        )
        for place, before, name, after in ways
        if name is not None
    ]  # fmt: skip
    return html.Div(
        [
            run_card(run),
            html.Div(
                [html.H1(f"Neuron {row.neuron}"), class_chip(row.neuron_class), html.Span(className="grow"), *steps],
                className="head-row",
            ),
            html.P([detail.class_reason, *_routing(detail)], className="sentences"),
            None if errors is None else plus_minus.note(errors),
            html.Div(
                [
                    dcc.Link(dmc.Button("Try it in the Text lab", size="compact-md"), href=lab),
                    pins.button(run.model, row.neuron),
                    dcc.Link("Back to the atlas", href=links.atlas(run.model, run.id)),
                    html.A(
                        "JSON as on Neuronpedia",
                        href=links.feature_api(run.model, row.layer, row.index),
                        target="_blank",
                        title="Of the newest run of this layer",
                    ),
                ],
                className="head-row",
            ),
            run_banner(run) if run.status != "finished" else None,
        ],
        className="neuron-head",
    )


def _routing(detail: NeuronDetail) -> list[str]:
    """How often the neuron's expert is chosen, in words; nothing in a model without experts."""
    expert, experts = detail.row.expert, detail.run.experts
    if experts is None:
        return []
    if expert is None:
        return [" It is in the shared expert, which every token passes."]
    share, error = (detail.row.metrics.get(name) for name in ("routed_share", "routed_share_se"))
    if share is None:
        return [f" It is in expert {expert} of {experts.count}."]
    percent = number(100 * share, "%", None if error is None else 100 * error)
    return [f" It is in expert {expert} of {experts.count}, which the router chooses at {percent} of positions."]


def cards(detail: NeuronDetail) -> html.Div:
    """Every metric with its percentile, by the stage of the run that measures it."""
    metrics, groups = detail.row.metrics, []
    without = ROUTING_METRICS if detail.run.experts is None else frozenset()
    for stage, title in _STAGES.items():
        stage_cards = [
            metric_card(m.name, metrics[m.name], metrics.get(f"{m.name}_se"), detail.percentiles[m.name])
            for m in METRICS
            if m.stage == stage and m.name not in without
        ]
        over = f" · over {detail.row.effect_tokens:,} tokens" if stage == "effects" else ""
        groups.append(html.Section([html.H2(title + over), html.Div(stage_cards, className="card-grid")]))
    return html.Div(groups, className="cards")


def figure_panels(
    detail: NeuronDetail,
    effects: TokenEffects | ApiError,
    counts: Histogram | ApiError,
    spectrum: Spectrum | ApiError,
    logits: NeuronLogits | ApiError,
    similar: SimilarNeurons | ApiError,
) -> html.Div:
    """The figures, two beside each other where there is room."""
    return html.Div(
        [
            html.Div(measured_panels(detail, effects), id=MEASURED, className="contents"),
            _histogram(counts),
            _figure("Where it writes", spectrum, figures.spectrum, _spectrum_note, _beside_others(detail)),
            _figure("Tokens it moves directly", logits, figures.token_bars, _logits_note),
            *_similar_panels(similar, detail.run.model, detail.run.id),
        ],
        className="panels",
    )


def measured_panels(detail: NeuronDetail, effects: TokenEffects | ApiError) -> list[Component]:
    """The figures of single tokens: they grow with the run, the others stay."""
    return [
        _figure("Total against direct effect", effects, figures.effect_boxes, _effects_note),
        _figure("Loss against its change", effects, figures.loss_scatter, _scatter_note),
        _frequency_boxes(detail, effects),
        _frequency(effects),
    ]


def _figure(
    title: str, answer: Any, draw: Callable[[Any], Any], note: Callable[[Any], str], *more: Component
) -> Component:
    if isinstance(answer, ApiError):
        return panel(title, html.P(answer.problem.detail, className="quiet"))
    return panel(title, graph(draw(answer)), *more, note=note(answer))


def _effects_note(effects: TokenEffects) -> str:
    return f"Figure 2c, at {len(effects.tokens)} sampled tokens. What only the total shows went through the final norm."


def _scatter_note(effects: TokenEffects) -> str:
    tokens = len(effects.tokens)
    if effects.clip_delta_loss is None:
        return (
            f"As figure 4a, at {tokens} sampled tokens, but under mean ablation: clip ablation of a neuron before the "
            "last layer cannot be told from it, and no run keeps it."
        )
    touched = sum(change != 0 for change in effects.clip_delta_loss)
    return (
        f"Figure 4a, at {tokens} sampled tokens, under clip ablation: activations above the mean are lowered to it. "
        f"{touched} tokens are above; the others do not change."
    )


def _histogram(histogram: Histogram | ApiError) -> Component:
    title = "Activations"
    if isinstance(histogram, ApiError):
        return panel(title, html.P(histogram.problem.detail, className="quiet"))
    place = starting_threshold(histogram.counts)
    slider = dmc.Slider(
        id=THRESHOLD, min=0, max=len(histogram.counts), step=1, value=place, label=None, updatemode="drag", size="sm",
        thumbLabel="Threshold of the activation", className="threshold",
    )  # fmt: skip
    note = (
        "Over all positions of the sample, on a log scale, where no bar stands for no position. Mean ablation sets the "
        "activation to the line."
    )
    return panel(
        title,
        graph(figures.histogram(histogram, place), id=HISTOGRAM),
        slider,
        html.P(id=SHARE, className="quiet", **aria(live="polite")),
        dcc.Store(id=COUNTS, data={"edges": histogram.edges, "counts": histogram.counts}),
        note=note,
    )


def starting_threshold(counts: Sequence[int]) -> int:
    """The first edge with at most a twentieth of the positions at or above it."""
    above, allowed = sum(counts), sum(counts) / 20
    for place, count in enumerate(counts):
        if above <= allowed:
            return place
        above -= count
    return len(counts)


def _beside_others(detail: NeuronDetail) -> Component:
    address = links.spectrum(detail.run.model, detail.run.id, detail.row.neuron)
    return html.P(dcc.Link("Beside other neurons, or another model", href=address), className="quiet")


def _spectrum_note(spectrum: Spectrum) -> str:
    return (
        f"Figure 2d. An entropy neuron writes into the shaded null space: the {spectrum.null_dim} directions that the "
        f"unembedding reads least.{zero_values(spectrum.singular_values)}"
    )


def _logits_note(_: NeuronLogits) -> str:
    return "Before the norm. Raised above, lowered below, when the activation is positive; else the reverse."


def _frequency(effects: TokenEffects | ApiError) -> Component:
    title = "Entropy against token frequency"
    if isinstance(effects, ApiError):
        return panel(title, html.P(effects.problem.detail, className="quiet"))
    if effects.delta_kl is None:
        sentence = (
            "This run has no frequency metrics: figure 4c shows the change of entropy against the change of distance "
            "to the token-frequency distribution, which the run did not measure."
        )
        return panel(title, html.P(sentence, className="quiet"))
    note = f"Figure 4c, at {len(effects.tokens)} sampled tokens, under mean ablation: below 0 the prediction comes "
    return panel(title, graph(figures.frequency_scatter(effects)), note=note + "closer to how often tokens occur.")


def _frequency_boxes(detail: NeuronDetail, effects: TokenEffects | ApiError) -> Component:
    title = "Total effect against effect without token frequency"
    if isinstance(effects, ApiError):
        return panel(title, html.P(effects.problem.detail, className="quiet"))
    if effects.delta_loss_freq is None or effects.background_freq is None:
        sentence = (
            "This run has no frequency metrics: figure 3c shows what is left of the effect when the logits are held "
            "along the token-frequency direction, which the run did not measure."
        )
        return panel(title, html.P(sentence, className="quiet"))
    source = detail.run.config.get("frequency_source")
    words = frequency_words(detail.row.metrics.get("freq_alignment"))
    where = dcc.Link("Token frequencies", href=links.frequency(detail.run.model, detail.run.id))
    note = (
        f"Figure 3c, at {len(effects.tokens)} sampled tokens. What only the total shows went along the token-frequency "
        "direction of the logits."
    )
    return panel(
        title,
        *([html.P(words, className="sentences")] if words else []),
        graph(figures.frequency_boxes(effects)),
        html.P([where, f": {source}."], className="quiet") if source else html.P(where, className="quiet"),
        note=note,
    )


def frequency_words(cosine: float | None) -> str | None:
    """Which way along the token-frequency direction a neuron writes, in words and with its number."""
    if cosine is None:
        return None
    if abs(cosine) < _ACROSS:
        return (
            "It hardly tells common tokens from rare ones: the cosine of its direct effect on the logits with the "
            f"token-frequency direction is {signed(cosine)}."
        )
    does = (
        "promotes common tokens and suppresses rare ones"
        if cosine > 0
        else ("suppresses common tokens and promotes rare ones")
    )
    return (
        f"It {does} while its activation is positive, and the reverse while it is negative: the cosine of its direct "
        f"effect on the logits with the token-frequency direction is {signed(cosine)}."
    )


def _similar_panels(similar: SimilarNeurons | ApiError, model: str, run: int) -> list[Component]:
    if isinstance(similar, ApiError):
        return [panel("Similar neurons", html.P(similar.problem.detail, className="quiet"))]
    fire = f"Neurons of this layer that fire together with it, at {similar.positions} sampled positions. {_FAR}"
    write = "Neurons of this layer whose output weights point most in the same direction."
    sides = (
        ("Similar in what they write", similar.by_weights, similar.weights_missing, write),
        ("Similar in when they fire", similar.by_activations, similar.activations_missing, fire),
    )
    return [
        panel(title, _similar_table(rows, model, run), note=note)
        if rows
        else panel(title, html.P(missing or "There are none.", className="quiet"))
        for title, rows, missing, note in sides
    ]


def _similar_table(rows: list[SimilarNeuron], model: str, run: int) -> html.Table:
    names = ("neuron", "class", "cosine of w_out", "correlation in firing")
    body = [
        html.Tr(
            [
                html.Td(dcc.Link(row.neuron, href=links.neuron(model, row.neuron, run), className="mono")),
                html.Td(class_chip(row.neuron_class)),
                html.Td(number(row.weight_cosine)),
                html.Td(number(row.activation_correlation)),
            ]
        )
        for row in rows
    ]
    return html.Table(
        [html.Thead(html.Tr([html.Th(name) for name in names])), html.Tbody(body)], className="totals similar"
    )


def contexts_panel(contexts: ContextList | ApiError) -> Component:
    """Windows of the sample by bucket; each can be shown without the neuron."""
    if isinstance(contexts, ApiError):
        return panel("Contexts", html.P(contexts.problem.detail, className="quiet"))
    groups: list[Component] = []
    for bucket, title in _BUCKETS.items():
        strips = [_context(context, contexts.expert) for context in contexts.contexts if context.bucket == bucket]
        if strips:
            groups.append(html.Details([html.Summary(title), *strips], open=bucket in ("max", "min")))
    kinds = [{"value": kind, "label": label} for kind, label in KINDS.items()]
    control = html.Div(
        [
            html.Span("Without the neuron means", className="quiet"),
            dmc.SegmentedControl(id=KIND, data=kinds, value="mean", size="xs", **aria(label="Kind of ablation")),
        ],
        className="head-row",
    )
    note = (
        "Windows of the sample, coloured by its activation. A window's peak leaves out the first token of a sequence, "
        "BOS, EOS and what separates documents, where activations are often extreme: the highest activation of all may "
        "be of one of these. “Without the neuron” asks the model (figure 4b). A token's loss and rank are of "
        "predicting it; its entropy is of the prediction made after it."
    )
    if contexts.expert is not None:
        note += (
            f" The router chooses expert {contexts.expert} for some tokens only: at the others the activation is 0, "
            "which a token's tooltip says. Windows without such a token are not shown."
        )
    return panel("Contexts", control, *groups, note=note)


def _context(context: ContextStrip, expert: int | None) -> html.Div:
    details = [
        f"this token: loss {number(loss, 'nats')}, rank {rank or '—'}; after it: entropy {number(entropy, 'nats')}"
        for loss, entropy, rank in zip(context.loss, context.entropy, context.rank, strict=True)
    ]
    if expert is not None:
        routed = (value != 0 for value in context.activations)
        details = [
            words if is_routed else f"not routed to expert {expert}; {words}"
            for words, is_routed in zip(details, routed, strict=True)
        ]
    title = f"activation, peak {number(context.peak)}"
    strip = Strip(title, context.tokens, context.activations, details=details, marked=context.peak_position)
    button = dmc.Button(
        "Without the neuron", id={"type": ABLATE, "context": context.id}, size="compact-xs", variant="default"
    )
    place = html.Div(id={"type": ABLATED, "context": context.id}, **aria(live="polite"))
    return html.Div([token_strip(strip), button, place], className="context")


def ablated_context(ablation: ContextAblation) -> list[Component]:
    """Figure 4b: a context's losses with and without the neuron, and the change of each token."""
    change = _changes(ablation.loss_before, ablation.loss_after)
    direct = _changes(ablation.loss_before, ablation.loss_frozen)
    details = [
        f"activation {number(before)} → {number(after)}, direct part of the change {signed(part, 'nats')}"
        for before, after, part in zip(ablation.activations_before, ablation.activations_after, direct, strict=True)
    ]
    entropy = [b - a for a, b in zip(ablation.entropy_before, ablation.entropy_after, strict=True)]
    strips = [
        Strip("Loss with the neuron", ablation.tokens, ablation.loss_before, "nats", details=details,
              scale_with=ablation.loss_after),
        Strip("Loss without it", ablation.tokens, ablation.loss_after, "nats", details=details,
              scale_with=ablation.loss_before),
        Strip("Change of loss, without − with", ablation.tokens, change, "nats", "change", details=details),
        Strip("Change of entropy, without − with", ablation.tokens, entropy, "nats", "change", details=details),
    ]  # fmt: skip
    parts: list[Component] = [html.P(_summary(ablation, change, direct), className="quiet")]
    if ablation.disagreement > _CHANGED_WEIGHTS:
        apart = number(ablation.disagreement, "nats")
        parts.append(failure(f"The model's losses are up to {apart} from the run's: its weights have changed since."))
    return [*parts, *(token_strip(strip) for strip in strips)]


def _changes(before: Sequence[float | None], after: Sequence[float | None]) -> list[float | None]:
    return [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]


def _summary(ablation: ContextAblation, change: Sequence[float | None], direct: Sequence[float | None]) -> str:
    known, direct_values = ([value for value in values if value is not None] for values in (change, direct))
    pairs = zip(ablation.activations_before, ablation.activations_after, strict=True)
    touched = sum(before != after for before, after in pairs)
    size, direct_size = (mean_size(values) for values in (known, direct_values))
    return (
        f"{ablation.neuron} {KINDS[ablation.kind]}: {touched} of {len(ablation.tokens)} activations change. Over the "
        f"{len(known)} tokens that were predicted: mean change of loss {signed(mean(known), 'nats')}, direct part "
        f"{signed(mean(direct_values), 'nats')}; mean |change| {number(size, 'nats')}, "
        f"direct part {number(direct_size, 'nats')}. "
        f"{through_norm(size, direct_size, len(known))} Reference: {ablation.reference}."
    )
