"""What the Text lab shows, as functions from what the service answered to components."""

from dataclasses import replace
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html, no_update
from pydantic import TypeAdapter, ValidationError

from app.components import Strip, empty, panel, strip_data
from app.format import number, percent, signed
from app.text import visible
from backend.schemas import (
    MAX_INTERVENTIONS,
    MAX_TEXT_CHARS,
    Ablation,
    Prediction,
    Sweep,
    TextTrace,
    TokenValues,
    UnitName,
)

_KINDS = {
    "mean": "set to mean",
    "zero": "set to 0",
    "clip": "clip at mean",
    "scale": "multiply by",
    "value": "set to",
}
_STARTING_VALUE = {"scale": 2.0, "value": 0.0}
_LARGEST_VALUE = 1e4
_HEAD_KINDS = ("mean", "zero", "scale")
_NAME = TypeAdapter(UnitName)

STRIPS_NOTE = (
    "A token's loss is how surprised the model was by it; its entropy is how open the next one is. Click a token."
)

Rows = list[dict[str, Any]]


def is_unit(name: str) -> bool:
    """Whether a text reads as the name of a neuron or of an attention head."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def read_interventions(written: str) -> Rows:
    """Interventions from an address, `29.830:mean,29.1022:scale:2`; what cannot be read is left out."""
    rows: Rows = []
    for part in written.split(",")[:MAX_INTERVENTIONS]:
        name, _, rest = part.partition(":")
        kind, _, value = rest.partition(":")
        kind = kind or "mean"
        if is_unit(name) and kind in _kinds(name) and all(row["neuron"] != name for row in rows):
            rows.append({"neuron": name, "kind": kind, "value": _read_value(kind, value)})
    return rows


def _kinds(name: str) -> dict[str, str]:
    """What can be done to a neuron, or to a head."""
    return {kind: words for kind, words in _KINDS.items() if "." in name or kind in _HEAD_KINDS}


def _read_value(kind: str, written: str) -> float | None:
    if kind not in _STARTING_VALUE:
        return None
    try:
        value = float(written)
    except ValueError:
        return _STARTING_VALUE[kind]
    return value if abs(value) <= _LARGEST_VALUE else _STARTING_VALUE[kind]


def added(chosen: Rows, typed: str | None) -> tuple[Any, str | None]:
    """The interventions with one more, and what is wrong with the name if it cannot be added."""
    name = (typed or "").strip()
    if not is_unit(name):
        return no_update, "Write layer.index, as in 29.830, or a head, as in L5H1."
    if any(row["neuron"] == name for row in chosen):
        return no_update, f"{name} is in the list already."
    if len(chosen) >= MAX_INTERVENTIONS:
        return no_update, f"At most {MAX_INTERVENTIONS} interventions at once."
    return [*chosen, {"neuron": name, "kind": "mean", "value": None}], None


def edited(chosen: Rows, ids: list[dict[str, str]], kinds: list[str], values: list[float | None]) -> Rows:
    """The interventions as their controls stand; a kind that needs a number starts with a sensible one."""
    stand = {place["neuron"]: (kind, value) for place, kind, value in zip(ids, kinds, values, strict=False)}
    rows = []
    for row in chosen:
        kind, value = stand.get(row["neuron"], (row["kind"], row["value"]))
        if kind not in _STARTING_VALUE:
            value = None
        elif kind != row["kind"] or not isinstance(value, int | float):
            value = _STARTING_VALUE[kind]
        else:
            value = min(_LARGEST_VALUE, max(-_LARGEST_VALUE, value))
        rows.append({"neuron": row["neuron"], "kind": kind, "value": value})
    return rows


def intervention_row(row: dict[str, Any]) -> html.Div:
    """One intervention: the neuron, what happens to it, and how to take it out again."""
    name, kind = row["neuron"], row["kind"]
    place = {"neuron": name}
    options = [{"value": value, "label": label} for value, label in _kinds(name).items()]
    number_input = dmc.NumberInput(
        id={"type": "lab-value", **place}, value=row["value"] if row["value"] is not None else "",
        step=0.5, size="xs", w=68, debounce=300, min=-_LARGEST_VALUE, max=_LARGEST_VALUE,
        **{"aria-label": f"Number for {name}"},
        style={} if kind in _STARTING_VALUE else {"display": "none"},
    )  # fmt: skip
    return html.Div(
        [
            html.Strong(name, className="mono"),
            dmc.Select(
                id={"type": "lab-kind", **place}, value=kind, data=options, size="xs", allowDeselect=False,
                className="grow", **{"aria-label": f"What happens to {name}"},
            ),
            number_input,
            dmc.ActionIcon("×", id={"type": "lab-remove", **place}, variant="subtle", size="sm",
                           **{"aria-label": f"Remove {name}"}),
        ],
        className="intervention",
    )  # fmt: skip


def refusal(text: str | None, model: str | None) -> str | None:
    """Why a text cannot be analysed before it is even sent, or None."""
    if not model:
        return "There is no model to analyse it with yet: the first run is still loading one. Your text stays here."
    if not (text or "").strip():
        return "Write or pick a text first."
    if len(str(text)) > MAX_TEXT_CHARS:
        return (
            f"The text has {len(str(text)):,} characters; at most {MAX_TEXT_CHARS:,} can be analysed at once. Shorten "
            "it: all of it is still here."
        )
    return None


def introduction() -> html.Div:
    """What to do on a fresh page."""
    return empty(
        "See what a neuron does to your text",
        "Pick an example or paste a text, then press Analyse: every token is coloured by the model's loss and entropy. "
        "Add a neuron to see where it fires and what the model would predict without it.",
    )


def strips(trace: TextTrace, ablation: Ablation | None) -> dict[str, Any]:
    """The text, strip under strip: what the model did, what the neurons did, and what the intervention changed."""
    shown = [
        Strip("Loss", trace.tokens, _shifted(trace.values.loss), "nats"),
        Strip("Entropy", trace.tokens, trace.values.entropy, "nats"),
        Strip("Rank of the token", trace.tokens, _shifted(trace.values.rank), log=True),
    ]
    if ablation is not None:
        shown += _changes(trace, ablation)
    return strip_data([replace(strip, details=_details(trace.values, trace), unscaled=1) for strip in shown])


def _changes(trace: TextTrace, ablation: Ablation) -> list[Strip]:
    before, total, frozen = ablation.before, ablation.total.values, ablation.frozen.values
    entropies = _change(before.entropy, total.entropy), _change(before.entropy, frozen.entropy)
    losses = _shifted(_change(before.loss, total.loss)), _shifted(_change(before.loss, frozen.loss))
    activations = [
        Strip(f"{'Activation' if '.' in name else 'Output norm'} of {name}", trace.tokens, values)
        for name, values in ablation.activations_before.items()
    ]
    changes = [
        Strip(f"Change of {what}{part}", trace.tokens, pair[place], "nats", "change", scale_with=pair[1 - place])
        for what, pair in (("entropy", entropies), ("loss", losses))
        for place, part in enumerate(("", ", direct part (norm frozen)"))
    ]
    return activations + changes


def _details(values: TokenValues, trace: TextTrace) -> list[str]:
    rows = zip(_shifted(values.loss), values.entropy, _shifted(values.rank), trace.predictions, strict=True)
    return [
        f"loss {number(loss, 'nats')}, rank {'—' if rank is None else rank}, entropy {number(entropy, 'nats')}\n"
        f"next: {', '.join(f'{visible(p.token)} {percent(p.probability)}' for p in top[:3])}"
        for loss, entropy, rank, top in rows
    ]


def _shifted(values: list[Any]) -> list[Any]:
    """From the position that predicts to the token that is predicted: the first token has none."""
    return [None, *values[:-1]]


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
    body = [
        html.Tr([html.Th(name, scope="row"), html.Td(number(was, unit)), _changed(was, now), _changed(was, held)])
        for name, unit, was, now, held in rows
    ]
    body.append(
        html.Tr(
            [
                html.Th("Changed predictions", scope="row"),
                html.Td("—"),
                html.Td(percent(total.changed_predictions)),
                html.Td(percent(frozen.changed_predictions)),
            ]
        )
    )
    head = html.Tr([html.Th(""), html.Th("before"), html.Th("after"), html.Th("direct part (norm frozen)")])
    share = ablation.ln_mediated
    through = "" if share is None else f" {percent(share)} of the effect on the loss goes through the final norm."
    table = html.Table([html.Thead(head), html.Tbody(body)], className="totals")
    return panel("What the intervention does", table, note=f"Reference: {ablation.reference}.{through}")


def _changed(was: float | None, now: float | None) -> html.Td:
    change = None if was is None or now is None else now - was
    return html.Td([number(now), html.Span(f" ({signed(change)})", className="quiet")])


def predictions_at(
    trace: TextTrace, ablation: Ablation | None, token: int
) -> tuple[dict[str, list[Prediction]], str | None]:
    """The predictions made at a token in every state, and the token that really came next."""
    states = {"before": trace.predictions[token]}
    if ablation is not None and ablation.text == trace.id:
        states["after"] = ablation.total.predictions[token]
        states["direct part only"] = ablation.frozen.predictions[token]
    following = trace.tokens[token + 1] if token + 1 < len(trace.tokens) else None
    return states, following


def token_facts(trace: TextTrace, ablation: Ablation | None, token: int) -> html.P:
    """One line: where the token is, and the final norm's scale before and after."""
    scale = f"norm scale {number(trace.values.norm_scale[token])}"
    if ablation is not None and ablation.text == trace.id:
        scale += f" → {number(ablation.total.values.norm_scale[token])}"
    entropy = number(trace.values.entropy[token], "nats")
    return html.P(
        ["After ", html.Code(visible(trace.tokens[token])), f" (position {token}): entropy {entropy}, {scale}."],
        className="sentences",
    )


def who_matters(sweep: Sweep, model: str) -> html.Section:
    """The neurons whose ablation moves one token most, each with a link to its page."""
    head = html.Tr(
        [html.Th(name) for name in ("neuron", "activation", "Δ loss", "direct part of |Δ loss|", "Δ entropy")]
    )
    rows = [
        html.Tr(
            [
                html.Td(dcc.Link(row.neuron, href=f"/m/{model}/n/{row.neuron.replace('.', '/')}", className="mono")),
                html.Td(number(row.activation)),
                html.Td(signed(row.delta_loss)),
                html.Td(number(row.direct_effect_ln)),
                html.Td(signed(row.delta_entropy)),
            ]
        )
        for row in sweep.rows
    ]
    table = html.Table([html.Thead(head), html.Tbody(rows)], className="totals")
    note = f"Every last-layer neuron ablated alone at this token; the strongest, in nats. Reference: {sweep.reference}."
    return panel("Who matters here", table, note=note)
