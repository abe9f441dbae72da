"""What the induction page shows, as functions from the service's events to components."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from app.components import plus_minus
from app.components.layout import aria, graph, scrolled
from app.components.states import empty
from app.components.token_strip import Strip, token_strip
from app.figures import induction as figures
from app.figures import induction_heads as head_figures
from app.figures.repeats import BEHIND
from app.figures.theme import ENTROPY_COLOUR, LOSS_COLOUR
from app.notation.numbers import estimate, number, signed
from app.notation.units import layer_and_number
from app.pages.induction import ids
from app.pages.induction.state import PARTS
from backend.schemas import (
    Estimate,
    InductionAttribution,
    InductionClip,
    InductionCurves,
    InductionHeads,
    InductionKnockout,
    InductionPart,
    InductionStart,
    KnockoutPositions,
    NeuronColumns,
    OverOccurrence,
    RepeatedText,
)

PART_LABELS: dict[InductionPart, str] = {
    "curves": "Curves along the repeat (5a)",
    "clip": "Clip the neurons (5b, 10c)",
    "change": "Change of all last-layer neurons (11)",
    "heads": "Who the induction heads are",
    "bos": "Knock heads out: look at the first token (5c, 12)",
    "mean_output": "Heads write their mean (13)",
    "attribution": "What components write (14)",
}
KNOCKED_OUT_AT_LABELS: dict[KnockoutPositions, str] = {
    "every": "at every position",
    "measured": "at the measured position alone",
}
MOST_SAMPLES = 3
_PREDICTED = ("loss", "entropy")
_READS = {"in": "", "gate": ": into its gate", "up": ": into what is gated (up)"}
_MOST_SUGGESTED_HEADS = 12
_AFTER = (
    "B follows the first occurrence and X the second (hollow): the text need not go on alike, and where it ends there "
    "they count nowhere."
)


@dataclass(frozen=True)
class Panel:
    """A place for results: its title, and in two sentences what to look for."""

    key: str
    part: InductionPart
    """Its event's kind; it is filled when that has arrived."""
    title: str
    note: str


PANELS: tuple[Panel, ...] = (
    Panel("curves", "curves", "Along the repeat (Figures 5a, 9a, 10a)",
          "Loss and entropy (solid), of the prediction made at a position, should fall where the second occurrence "
          "begins: the model copies. Look for neurons (dotted, axis at the right) that step up or down there."),
    Panel("samples", "curves", "Some of the text",
          "Tokens are coloured by their own loss; the first occurrence is underlined by dots, the second by a line. "
          "Look how cheap the second one is."),
    Panel("clip", "clip", "The neurons clipped (Figures 5b, 9b, 10b)",
          "On the second occurrence a neuron is not let above a mean (the text at the top says which). Where the "
          "entropy then drops, the neuron was holding the model's confidence down."),
    Panel("tokens", "clip", "Token by token (Figures 9c, 10c)",
          "Each point is a token that a second occurrence predicts. A hedging neuron, once clipped, helps tokens with "
          "a low loss a little (below 0) and makes those with a high loss worse (above 0)."),
    Panel("change", "change", "Who answers to repetition (Figure 11)",
          "How much more each last-layer neuron fires on the second occurrence than on the first. Look for entropy "
          "neurons far from 0, above all those that write into the null space."),
    Panel("heads", "heads", "Induction heads (prefix-matching scores)",
          "How much each head attends to the token after an earlier occurrence of the present one. Few heads stand "
          "out: click a cell to choose the head for the next run's knock-outs."),
    Panel("bos", "bos", "Heads knocked out (Figures 5c, 12)",
          "Heads are made to look at the first token only, alone and together. Where a coloured line falls from the "
          "dotted one towards the first occurrence's level, the neuron listens to that head; grey ones should not."),
    Panel("mean_output", "mean_output", "Heads write their mean (Figure 13)",
          "Heads keep writing what they write on average during induction, whatever the token. Lines that stay near "
          "the dotted one say that the neuron hears “induction is happening”, not which token is copied."),
    Panel("attribution", "attribution", "Who writes to the neuron (Figure 14)",
          "How much more each component adds to the neuron's input on the repeat than after another first half. Look "
          "whether the brightest heads write to it themselves, or later heads and MLPs do."),
)  # fmt: skip


def introduction() -> html.Div:
    """What to do on a fresh page."""
    return empty(
        "Watch a model meet the same text twice",
        "Choose what repeats and press Run. The second time the model can copy, so loss and entropy fall: the panels "
        "show which neurons notice, what they do to its confidence, and which heads tell them.",
    )


def panels() -> list[Component]:
    """All panels, hidden until a run asks for them."""
    return [_panel(one) for one in PANELS]


def _panel(one: Panel) -> html.Section:
    parts: list[Component] = [
        html.H2(one.title),
        html.P(one.note, className="sentences"),
        html.P(id={"type": ids.WAITING, "panel": one.key}, className="quiet"),
    ]
    if one.key == "tokens":
        parts.append(dmc.Select(id=ids.POINTS_OF, label="Neuron", size="xs", w=160, allowDeselect=False))
    if one.key == "change":
        choices = [{"value": "index", "label": "By index"}, {"value": "null_fraction", "label": "By null space"}]
        parts.append(
            dmc.SegmentedControl(id=ids.AGAINST, value="index", size="xs", data=choices,
                                 **aria(label="What stands across"))
        )  # fmt: skip
    parts.append(html.Div(id={"type": ids.BODY, "panel": one.key}))
    return html.Section(parts, id={"type": ids.PANEL, "panel": one.key}, className="panel", hidden=True)


def summary(start: InductionStart) -> Component:
    """What was found and is measured."""
    pairs = f"{start.repeats:,} repeat{'s' * (start.repeats != 1)} of {start.span} tokens"
    where = f"{start.sequences:,} sequence{'s' * (start.sequences != 1)}"
    neurons = ", ".join(start.neurons) or "no neuron"
    return html.Div(
        [
            html.P(start.summary),
            html.P(f"{pairs} in {where}; {neurons}.", className="quiet"),
            plus_minus.note(plus_minus.of_induction(start)),
        ],
        className="summary",
    )


def not_asked(parts: Sequence[str]) -> str | None:
    """Which parts a run leaves out."""
    left = [label for part, label in PART_LABELS.items() if part not in parts]
    return f"Not asked for: {'; '.join(left)}. Tick them and run again." if left else None


def curves(event: InductionCurves, *, apart: bool) -> list[Component]:
    """The curves, and the means that clipping brings the neurons down to."""
    means = ", ".join(f"{neuron} {number(mean)}" for neuron, mean in event.reference_means.items())
    notes = [f"Clipping would bring them down to: {means}."] if means else []
    if event.after is not None:
        notes.insert(0, _AFTER)
    return [graph(figures.curves(event, apart=apart)), *(html.P(note, className="quiet") for note in notes)]


def samples(texts: Sequence[RepeatedText]) -> list[Component]:
    """A few sequences with their repeats underlined."""
    if not texts:
        return [html.P("The service sent no sequence to look at.", className="quiet")]
    shown = [_sample(text, place) for place, text in enumerate(texts[:MOST_SAMPLES], 1)]
    rest = shown[1:]
    more = [html.Details([html.Summary(f"{len(rest)} more"), *rest])] if rest else []
    return [shown[0], *more]


def _sample(text: RepeatedText, place: int) -> Component:
    older = text.loss[:1] != [None]  # results that were kept before a token's loss stood at the token
    losses = [None, *text.loss[:-1]] if older else text.loss
    ranges = [
        (start, end, style)
        for style, spans in (("first-time", text.first), ("second-time", text.second))
        for start, end in spans
    ]
    return token_strip(Strip(f"Loss in sequence {place}", text.tokens, losses, "nats", unscaled=1, underlined=ranges))


def clips(events: Sequence[InductionClip]) -> list[Component]:
    """All neurons in one figure, in a table, and each alone."""
    heads = ("neuron", "clipped at", "entropy", "clipped", "change", "largest", "loss", "clipped", "change")
    table = html.Table(
        [html.Thead(html.Tr([html.Th(head) for head in heads])), html.Tbody([_clip_row(clip) for clip in events])],
        className="totals",
    )
    alone = [
        html.Div([html.H3(f"{clip.neuron} clipped at {number(clip.reference)}"), graph(figures.clip_curves(clip))])
        for clip in events
    ]
    means = "Means over the second occurrence in nats; “largest” is the position where the entropy changes most."
    if any(clip.after is not None for clip in events):
        means += " X (hollow), the position that follows it, is in neither."
    return [
        graph(figures.clip_overview(events)),
        scrolled(table, "Clipped neurons"),
        html.P(means, className="quiet"),
        _lines(
            [(f"{name} {when}", {"color": colour, "dash": dash, "width": 2})
             for name, colour in (("loss", LOSS_COLOUR), ("entropy", ENTROPY_COLOUR))
             for when, dash in (("before", "dash"), ("clipped", "solid"))]
        ),
        html.Div(alone, className="panels"),
    ]  # fmt: skip


def _clip_row(clip: InductionClip) -> html.Tr:
    totals, largest = figures.clip_totals(clip), figures.largest_change(clip)
    cells = (
        number(clip.reference), estimate(totals.entropy_before), estimate(totals.entropy),
        _percent(totals.percent_entropy), _percent(largest), estimate(totals.loss_before), estimate(totals.loss),
        _percent(totals.percent_loss),
    )  # fmt: skip
    return html.Tr([html.Th(clip.neuron, scope="row", className="mono"), *(html.Td(cell) for cell in cells)])


def _percent(share: Estimate) -> str:
    if share.value is None or share.se is None:
        return "—" if share.value is None else f"{share.value:+.1f} %".replace("-", "−")
    return signed(share.value, "%", share.se)


def points(events: Sequence[InductionClip], neuron: str | None) -> list[Component]:
    """The tokens of one clipped neuron."""
    clip = next((one for one in events if one.neuron == neuron), None)
    if clip is None:
        return []
    if not clip.points:
        return [html.P(f"No token of a second occurrence was kept for {clip.neuron}.", className="quiet")]
    return [graph(figures.clip_scatter(clip)), html.P(f"{len(clip.points):,} tokens.", className="quiet")]


def change_note(columns: NeuronColumns | None, against: str) -> str | None:
    """What is missing from the figure of all neurons."""
    if columns is None:
        return "The run measured another layer or cannot be read, so classes and null-space fractions are not shown."
    if against != "index" and all(value is None for value in columns.columns[against]):
        return "The run has no null-space fractions yet."
    return None


def heads(event: InductionHeads, picked: Sequence[str]) -> list[Component]:
    """The map, and in words who was chosen."""
    scores = f"Means over {event.sequences:,} doubled random sequences."
    baselines = f" Baselines: {', '.join(event.baselines)}." if event.baselines else " No head serves as a baseline."
    chosen = f" Knocked out: {_with_scores(event)}." if event.chosen else " No head was chosen."
    again = [] if not picked or list(picked) == event.chosen else [
        html.P(f"Chosen for the next run: {', '.join(picked)}. Press Run to knock them out.", className="sentences")
    ]  # fmt: skip
    return [
        graph(head_figures.head_map(event, picked), id=ids.HEAD_GRAPH),
        html.P(scores + chosen + baselines, className="quiet"),
        *again,
    ]


def _with_scores(event: InductionHeads) -> str:
    scored = []
    for name in event.chosen:
        layer, head = layer_and_number(name)
        score = event.prefix_matching[layer][head]
        error = None if event.prefix_matching_se is None else event.prefix_matching_se[layer][head]
        scored.append(f"{name} ({number(score, error=error)})")
    return ", ".join(scored)


def suggested_heads(event: InductionHeads) -> list[str]:
    """The heads with the highest scores, to choose from."""
    scored = [
        (score, f"L{layer}H{head}") for layer, row in enumerate(event.prefix_matching) for head, score in enumerate(row)
    ]
    return [name for _, name in sorted(scored, reverse=True)[:_MOST_SUGGESTED_HEADS]]


def toggled_head(clicked: dict[str, Any] | None, picked: Sequence[str] | None, most: int) -> list[str] | None:
    """The picked heads with the clicked one more or less; None where nothing was clicked or there is no room."""
    points = (clicked or {}).get("points") or []
    if not points or not all(isinstance(points[0].get(axis), int) for axis in ("x", "y")):
        return None
    name, now = f"L{points[0]['y']}H{points[0]['x']}", list(picked or [])
    if name in now:
        return [one for one in now if one != name]
    return [*now, name] if len(now) < most else None


def knockouts(
    events: Sequence[InductionKnockout], unchanged: InductionCurves | None, *, apart: bool
) -> list[Component]:
    """A figure a neuron, one legend for all, and the numbers in a table."""
    neurons = list(dict.fromkeys(name for one in events for name in one.activations))
    known = {} if unchanged is None else unchanged.activations
    alone = [
        html.Div([html.H3(name), graph(head_figures.knockout_curves(name, events, known.get(name), apart=apart))])
        for name in neurons
    ]
    window = head_figures.smoothing(_span(events))
    where = dict.fromkeys(KNOCKED_OUT_AT_LABELS[one.knocked_out_at] for one in events)
    note = f"Heads are changed {' and '.join(where)}. "
    note += f"Lines are running means over {window} positions, without errors. " if window > 1 else ""
    note += "In the table: mean activation, loss and entropy over the second occurrence, and how much they differ from "
    note += "those with every head in place."
    if unchanged is None:
        note += " Run the curves too to see the activations with all heads in place."
    table = _knockout_table(events, neurons, unchanged)
    return [
        _legend(events, with_unchanged=unchanged is not None),
        html.Div(alone, className="panels"),
        html.P(note, className="quiet"),
        scrolled(table, "Mean activations with heads knocked out"),
    ]


def _span(events: Sequence[InductionKnockout]) -> int:
    return len(events[0].entropy.mean) // 2 if events else 0


def _legend(events: Sequence[InductionKnockout], *, with_unchanged: bool) -> html.Ul:
    styles = head_figures.knockout_style(events)
    entries = [
        (" + ".join(one.heads), style) for one, style in zip(events, styles, strict=True) if one.role == "induction"
    ]
    if with_unchanged:
        entries.insert(0, ("all heads in place", {"color": head_figures.UNCHANGED_COLOUR, "dash": "dot", "width": 3}))
    if any(one.role == "baseline" for one in events):
        entries.append(("baseline heads", {"color": BEHIND, "dash": "solid", "width": 1}))
    return _lines(entries)


def _lines(entries: Sequence[tuple[str, dict[str, Any]]]) -> html.Ul:
    css = {"solid": "solid", "dot": "dotted", "dash": "dashed"}
    return html.Ul(
        [
            html.Li([html.Span(className="line", style={
                "borderTop": f"{max(2, style['width'])}px {css[style['dash']]} {style['color']}"}), words])
            for words, style in entries
        ],
        className="lines", **aria(label="Which line is which"),
    )  # fmt: skip


def _knockout_table(
    events: Sequence[InductionKnockout], neurons: Sequence[str], unchanged: InductionCurves | None
) -> html.Table:
    before: dict[str, Estimate] = {}
    rows = []
    if unchanged is not None:
        before = _second_means(unchanged)
        cells = [html.Td(estimate(before[name]) if name in before else "—") for name in (*neurons, *_PREDICTED)]
        rows.append(html.Tr([html.Th("all heads in place", scope="row"), *cells]))
    for one in events:
        after, changes = _second_means(one), _differences(one, before)
        cells = [_knockout_cell(after.get(name), changes.get(name)) for name in (*neurons, *_PREDICTED)]
        words = " + ".join(one.heads) + (" (baseline)" if one.role == "baseline" else "")
        rows.append(html.Tr([html.Th(words, scope="row"), *cells]))
    head = html.Tr([html.Th("heads out"), *(html.Th(name) for name in (*neurons, *_PREDICTED))])
    return html.Table([html.Thead(head), html.Tbody(rows)], className="totals")


def _second_means(event: InductionCurves | InductionKnockout) -> dict[str, Estimate]:
    if event.second is not None:
        return _by_name(event.second)
    curves = {**event.activations, "loss": event.loss, "entropy": event.entropy}
    return {name: Estimate(value=head_figures.second_mean(curve), se=None) for name, curve in curves.items()}


def _by_name(means: OverOccurrence) -> dict[str, Estimate]:
    return {**means.activations, "loss": means.loss, "entropy": means.entropy}


def _differences(event: InductionKnockout, before: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """From the means with every head in place; without errors in results from before these were taken."""
    if event.difference is not None:
        return _by_name(event.difference)
    pairs = {name: (after.value, before[name].value) for name, after in _second_means(event).items() if name in before}
    return {
        name: Estimate(value=after - was, se=None)
        for name, (after, was) in pairs.items()
        if after is not None and was is not None
    }


def _knockout_cell(after: Estimate | None, change: Estimate | None) -> html.Td:
    if after is None or after.value is None:
        return html.Td("—")
    if change is None or change.value is None:
        return html.Td(estimate(after))
    return html.Td([estimate(after), html.Span(f" ({signed(change.value, error=change.se)})", className="quiet")])


def attributions(events: Sequence[InductionAttribution]) -> list[Component]:
    """A figure a neuron, and for a gated one's two input directions one each."""
    if events and not events[0].induction:
        return [html.P("No neuron was asked for.", className="quiet")]
    alone = [
        html.Div([html.H3(name + _READS[event.reads]), graph(head_figures.attribution(event, name))])
        for name in (events[0].induction if events else ())
        for event in events
    ]
    gated = any(event.reads != "in" for event in events)
    note = [html.P("A gated neuron's activation is act(gate) · up: what is written to either counts.",
                   className="quiet")] if gated else []  # fmt: skip
    return [*note, html.Div(alone, className="panels")]


def part_choices() -> list[Component]:
    """A checkbox a part."""
    return [dmc.Checkbox(label=PART_LABELS[part], value=part, size="xs") for part in PARTS]
