"""What the Text lab shows, as functions from what the service answered to components."""

from dataclasses import replace
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from app import links
from app.components import pasted_text
from app.components.layout import panel
from app.components.shares import through_norm
from app.components.states import empty
from app.components.token_strip import Strip, strip_colours, strip_data
from app.notation.numbers import number, percent, signed
from app.notation.tokens import visible
from app.notation.units import is_neuron
from backend.schemas import (
    Ablation,
    ActivationList,
    Prediction,
    Sweep,
    TextTrace,
    TokenValues,
)

MOST_PINS = 24
STRIPS_NOTE = (
    "A token's loss and rank are of predicting it. Its entropy and KL are of the prediction made after it: how "
    "open the next one is. Click a token."
)


def refusal(text: str | None, model: str | None) -> str | None:
    """Why a text cannot be analysed before it is even sent, or None."""
    if not model:
        return (
            "There is no model to analyse it with yet: the first run is still loading one, or none was started "
            "(calibroscope precompute). Your text stays here."
        )
    return pasted_text.refusal(text)


def notes(trace: TextTrace) -> list[html.P]:
    """What there is to know of the strips: how the text begins, and where token frequencies come from."""
    sentences = [beginning_note(trace), frequency_note(trace)]
    return [html.P(sentence, className="quiet") for sentence in sentences if sentence is not None]


def beginning_note(trace: TextTrace) -> str | None:
    """Whether a BOS stands before the text and why; None where the service does not say."""
    beginning = trace.beginning
    if beginning is None:
        return None
    if beginning.token is not None:
        return f"{visible(beginning.token)} stands before the text, {beginning.reason}."
    return (
        f"No BOS stands before the text, {beginning.reason}. The first token, which can attend to nothing else, often "
        "has extreme activations; it does not stretch the strips' colours."
    )


def frequency_note(trace: TextTrace) -> str:
    """Where the token frequencies behind the strip come from, or why there is none."""
    if trace.frequencies is None:
        return (
            "There is no strip of the distance from token frequencies: no run of this model has kept how often tokens "
            "occur. A new run keeps it."
        )
    return f"KL is D_KL(P_freq‖P), the distance of a prediction from how often tokens occur: {trace.frequencies}."


def introduction() -> html.Div:
    """What to do on a fresh page."""
    return empty(
        "See what a neuron does to your text",
        "Pick an example or paste a text, then press Analyse: every token is coloured by the model's loss and entropy. "
        "Add a neuron to see where it fires and what the model would predict without it.",
    )


def text_strips(trace: TextTrace) -> dict[str, Any]:
    """The text, strip under strip, as what the model did at its tokens colours it; the browser draws it."""
    shown = [
        Strip("Loss", trace.tokens, trace.values.loss, "nats"),
        Strip("Entropy", trace.tokens, trace.values.entropy, "nats"),
        Strip("Rank of the token", trace.tokens, trace.values.rank, log=True),
    ]
    if trace.values.kl is not None:
        shown.append(Strip("KL from token frequencies", trace.tokens, trace.values.kl, "nats"))
    details = _details(trace.values, trace)  # once for all: they are the same on every strip
    return {"text": trace.id, **strip_data([replace(strip, details=details, unscaled=1) for strip in shown])}


def change_strips(text: str, ablation: Ablation | None) -> dict[str, Any]:
    """What the intervened units did, and what the interventions change, over tokens that the page has drawn.

    Args:
        text: the text's id, by which the browser sees that it has the tokens.
    """
    shown = [] if ablation is None else [replace(strip, unscaled=1) for strip in _changes(ablation)]
    return {"text": text, **strip_colours(shown)}


def _changes(ablation: Ablation) -> list[Strip]:
    before, total, frozen = ablation.before, ablation.total.values, ablation.frozen.values
    entropies = _change(before.entropy, total.entropy), _change(before.entropy, frozen.entropy)
    losses = _change(before.loss, total.loss), _change(before.loss, frozen.loss)
    activations = [
        Strip(f"{'Activation' if is_neuron(name) else 'Output norm'} of {name}", (), values)
        for name, values in ablation.activations_before.items()
    ]
    changed = [("entropy", entropies), ("loss", losses)]
    if before.kl is not None and total.kl is not None and frozen.kl is not None:
        changed.append(("KL from token frequencies", (_change(before.kl, total.kl), _change(before.kl, frozen.kl))))
    changes = [
        Strip(f"Change of {what}{part}", (), pair[place], "nats", "change", scale_with=pair[1 - place])
        for what, pair in changed
        for place, part in enumerate(("", ", direct part (norm frozen)"))
    ]
    return activations + changes


def _details(values: TokenValues, trace: TextTrace) -> list[str]:
    rows = zip(values.loss, values.entropy, values.rank, trace.predictions, strict=True)
    return [
        f"this token: loss {number(loss, 'nats')}, rank {'—' if rank is None else rank}\n"
        f"after it: entropy {number(entropy, 'nats')}, "
        f"next: {', '.join(f'{visible(p.token)} {percent(p.probability)}' for p in top[:3])}"
        for loss, entropy, rank, top in rows
    ]


def _change(before: list[Any], after: list[Any]) -> list[float | None]:
    pairs = zip(before, after, strict=True)
    return [None if b is None or a is None else a - b for b, a in pairs]


def totals(ablation: Ablation) -> html.Section:
    """Before, after, and the direct part alone, over the whole text."""
    before, total, frozen = ablation.before_totals, ablation.total, ablation.frozen
    rows = [
        ("Mean loss", "nats", before.mean_loss, total.totals.mean_loss, frozen.totals.mean_loss),
        ("Mean entropy", "nats", before.mean_entropy, total.totals.mean_entropy, frozen.totals.mean_entropy),
        ("Perplexity", "", before.perplexity, total.totals.perplexity, frozen.totals.perplexity),
    ]
    if before.mean_kl is not None:
        means = before.mean_kl, total.totals.mean_kl, frozen.totals.mean_kl
        rows.append(("Mean KL from token frequencies", "nats", *means))
    body = [
        html.Tr([html.Th(name, scope="row"), html.Td(number(was, unit)), _changed(was, now), _changed(was, direct)])
        for name, unit, was, now, direct in rows
    ]
    sizes = total.mean_abs_delta_loss, frozen.mean_abs_delta_loss
    body += [
        _effects_row("Mean |Δ loss|", *(number(size, "nats") for size in sizes)),
        _effects_row("Changed predictions", percent(total.changed_predictions), percent(frozen.changed_predictions)),
    ]
    head = html.Tr([html.Th(""), html.Th("before"), html.Th("after"), html.Th("direct part (norm frozen)")])
    table = html.Table([html.Thead(head), html.Tbody(body)], className="totals")
    share = html.P(through_norm(*sizes, ablation.tokens), className="sentences")
    note = f"Means over {ablation.tokens:,} tokens of this text. Reference: {ablation.reference}."
    return panel("What the intervention does", table, share, note=note)


def _effects_row(name: str, total: str, frozen: str) -> html.Tr:
    """What only a change has: nothing stands before it."""
    return html.Tr([html.Th(name, scope="row"), html.Td("—"), html.Td(total), html.Td(frozen)])


def _changed(was: float | None, now: float | None) -> html.Td:
    change = None if was is None or now is None else now - was
    return html.Td([number(now), html.Span(f" ({signed(change)})", className="quiet")])


def predictions_at(
    trace: TextTrace, ablation: Ablation | None, token: int
) -> tuple[dict[str, list[Prediction]], str | None]:
    """The predictions made at a token in every state, and the token that really came next.

    Args:
        trace, ablation: with the predictions at this token alone.
    """
    states = {"before": trace.predictions[0]}
    if ablation is not None:
        states["after"] = ablation.total.predictions[0]
        states["direct part only"] = ablation.frozen.predictions[0]
    following = trace.tokens[token + 1] if token + 1 < len(trace.tokens) else None
    return states, following


def pinned_names(pins: Any, model: str) -> list[str]:
    """The neurons of a model that were pinned last in this browser; what does not read as a neuron is left out."""
    names = pins.get(model) if isinstance(pins, dict) else None
    neurons = [name for name in names if is_neuron(name)] if isinstance(names, list) else []
    return list(dict.fromkeys(neurons))[-MOST_PINS:]


def pinned_strips(text: str, activations: ActivationList) -> dict[str, Any]:
    """The activations of pinned neurons on the same tokens, each on its own scale; the browser draws them.

    Args:
        text: the text's id, by which the browser sees that it has the tokens.
    """
    strips = [Strip(strip.neuron, (), strip.activations, unscaled=1) for strip in activations.strips]
    return {"text": text, **strip_colours(strips)}


def pinned_head() -> html.Div:
    """The title over the strips of pinned neurons."""
    return html.Div(
        [
            html.H2("Pinned neurons"),
            html.P(
                f"Activations on the same tokens, each neuron on its own scale, of at most the {MOST_PINS} pinned "
                "last. Click a token.",
                className="quiet",
            ),
        ]
    )


def token_facts(trace: TextTrace, ablation: Ablation | None, token: int) -> html.Div:
    """Where the token is; entropy, residual norm and the final norm's scale there, before and after."""
    before, after = trace.values, None if ablation is None else ablation.total.values
    kl, kl_after = before.kl, None if after is None else after.kl
    rows = [
        _fact("Entropy", before.entropy, None if after is None else after.entropy, token, "nats"),
        *([_fact("KL from token frequencies", kl, kl_after, token, "nats")] if kl else []),
        _fact(
            "Norm of the residual stream", before.residual_norm, None if after is None else after.residual_norm, token
        ),
        _fact("Scale of the final norm", before.norm_scale, None if after is None else after.norm_scale, token),
    ]
    heads = ["", "before"] if after is None else ["", "before", "after"]
    table = html.Table([html.Thead(html.Tr([html.Th(head) for head in heads])), html.Tbody(rows)], className="totals")
    where: list[Component | str] = ["After ", html.Code(visible(trace.tokens[token])), f" (position {token}):"]
    return html.Div([html.P(where, className="sentences"), table])


def _fact(name: str, before: list[float], after: list[float] | None, token: int, unit: str = "") -> html.Tr:
    cells = [html.Th(name, scope="row"), html.Td(number(before[token], unit))]
    return html.Tr(cells if after is None else [*cells, _changed(before[token], after[token])])


def who_matters(sweep: Sweep, model: str) -> html.Section:
    """The neurons whose ablation moves one token most, each with a link to its page."""
    head = html.Tr([html.Th(name) for name in ("neuron", "activation", "Δ loss", "|Δ loss|, direct part", "Δ entropy")])
    rows = [
        html.Tr(
            [
                html.Td(dcc.Link(row.neuron, href=links.neuron(model, row.neuron), className="mono")),
                html.Td(number(row.activation)),
                html.Td(signed(row.delta_loss)),
                html.Td(number(row.direct_effect_ln)),
                html.Td(signed(row.delta_entropy)),
            ]
        )
        for row in sweep.rows
    ]
    table = html.Table([html.Thead(head), html.Tbody(rows)], className="totals")
    note = (
        "Every last-layer neuron ablated alone at this token; the strongest, in nats. Loss is that of the token that "
        f"follows, entropy that of the prediction of it. Reference: {sweep.reference}."
    )
    return panel("Who matters here", table, note=note)
