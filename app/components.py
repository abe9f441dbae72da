"""What all pages are made of: the token strip, chips, metric cards, and what to show when there is nothing to show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component
from plotly.colors import sample_colorscale

from app.figures.theme import CHANGE_SCALE, CLASS_COLOURS, GRAPH_CONFIG, MAGNITUDE_SCALE
from app.format import number, signed
from app.text import visible
from backend.glossary import CLASS_LABELS, FORMULAS, METRIC, TERMS, NeuronClass

_SHADES = 33


@dataclass(frozen=True)
class Strip:
    """Tokens, and one value for each that colours it. None leaves a token uncoloured."""

    title: str
    tokens: Sequence[str]
    values: Sequence[float | None]
    unit: str = ""
    kind: Literal["magnitude", "change"] = "magnitude"
    details: Sequence[str] | None = None
    """More of each token, for its tooltip."""
    marked: int | None = None
    unscaled: int = 0
    """Tokens at the start that do not stretch the scale: at the first, BOS or not, activations are often extreme."""
    log: bool = False
    """Colour by the logarithm of the values, which are positive: ranks."""
    scale_with: Sequence[float | None] = ()
    """Further values that share the scale, so that two strips can be compared."""
    underlined: Sequence[tuple[int, int, str]] = ()
    """Half-open ranges of tokens with a stylesheet class each."""


def token_strip(strip: Strip) -> html.Div:
    """The shared view of tokens: coloured by value, legend above, whitespace visible, everything in a tooltip.

    Magnitudes run through cividis from the smallest to the largest value, changes through blue, white and orange with
    0 in the middle. Extremes beyond the 1st and 99th percentile share the end colours.
    """
    low, high = _range(strip)
    shades = _shades(strip.kind)
    pieces = [_token(strip, place, low, high, shades) for place in range(len(strip.tokens))]
    return html.Div(
        [
            html.Div(
                [html.Span(strip.title, className="strip-title"), _legend(strip, low, high)], className="strip-head"
            ),
            html.Div(pieces, className="strip"),
        ],
        className="strip-box",
    )


def _range(strip: Strip) -> tuple[float, float]:
    shared = [*strip.values[strip.unscaled :], *strip.scale_with]
    found = sorted(value for value in shared if value is not None and math.isfinite(value))
    if not found:
        return 0.0, 1.0
    low, high = found[int(0.01 * (len(found) - 1))], found[math.ceil(0.99 * (len(found) - 1))]
    if strip.kind == "change":
        reach = max(abs(low), abs(high), 1e-6)
        return -reach, reach
    if strip.log:
        low, high = math.log10(low), math.log10(high)
    return (low, high) if high > low else (low, low + 1e-6)


def _shades(kind: str) -> list[tuple[int, int, int]]:
    scale = CHANGE_SCALE if kind == "change" else MAGNITUDE_SCALE
    places = [place / (_SHADES - 1) for place in range(_SHADES)]
    return [_rgb(colour) for colour in sample_colorscale(scale, places)]


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (round(float(part)) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return red, green, blue


def _place_in_scale(strip: Strip, place: int, low: float, high: float) -> int | None:
    """Which shade a token's value takes; None for one that is not there."""
    value = strip.values[place]
    if value is None or not math.isfinite(value):
        return None
    value = math.log10(value) if strip.log else value
    return round(min(1.0, max(0.0, (value - low) / (high - low))) * (_SHADES - 1))


def _ink(shade: tuple[int, int, int]) -> str:
    """The colour of text that can be read on a shade."""
    red, green, blue = shade
    return "#111" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"


def _shown(strip: Strip, place: int) -> str:
    value = strip.values[place]
    if strip.log:
        return "—" if value is None else f"{value:,.0f}"
    return signed(value, strip.unit) if strip.kind == "change" else number(value, strip.unit)


def _token(strip: Strip, place: int, low: float, high: float, shades: list[tuple[int, int, int]]) -> html.Span:
    token = strip.tokens[place]
    lines = [f"{visible(token)}  (position {place})", f"{strip.title}: {_shown(strip, place)}"]
    if strip.details is not None:
        lines.append(strip.details[place])
    shade = _place_in_scale(strip, place, low, high)
    style: dict[str, str] = {}
    if shade is not None:
        style = {"backgroundColor": "rgb({},{},{})".format(*shades[shade]), "color": _ink(shades[shade])}
    name = "tok marked" if place == strip.marked else "tok"
    name = " ".join([name, *(style for start, end, style in strip.underlined if start <= place < end)])
    piece = html.Span(visible(token), className=name, style=style, title="\n".join(lines))
    return html.Span([piece, html.Br()]) if token.endswith("\n") else piece


def strip_data(strips: Sequence[Strip]) -> dict[str, Any]:
    """Strips over the same tokens as plain data, which the browser draws (`strips` in page_lab_strips.js).

    A thousand tokens in eight strips are eight thousand elements: as components they would take seconds on the way.
    """
    first = strips[0]
    kinds = {strip.kind for strip in strips}
    return {
        "tokens": [visible(token) for token in first.tokens],
        "breaks": [place for place, token in enumerate(first.tokens) if token.endswith("\n")],
        "details": list(first.details or []),
        "shades": {
            kind: [["rgb({},{},{})".format(*shade), _ink(shade)] for shade in _shades(kind)] for kind in sorted(kinds)
        },
        "strips": [_one_strips_data(strip) for strip in strips],
    }


def _one_strips_data(strip: Strip) -> dict[str, Any]:
    low, high = _range(strip)
    return {
        "title": strip.title,
        "kind": strip.kind,
        "legend": list(_legend_words(strip, low, high)),
        "shade": [_place_in_scale(strip, place, low, high) for place in range(len(strip.values))],
        "shown": [_shown(strip, place) for place in range(len(strip.values))],
    }


def _legend(strip: Strip, low: float, high: float) -> html.Span:
    lowest, highest = _legend_words(strip, low, high)
    return html.Span(
        [html.Span(lowest), html.Span(className=f"legend-bar {strip.kind}"), html.Span(highest)], className="legend"
    )


def _legend_words(strip: Strip, low: float, high: float) -> tuple[str, str]:
    """The ends of the scale; ≤ and ≥ say that values beyond them share the end's colour."""
    scaled = [10**low, 10**high] if strip.log else [low, high]
    known = [value for value in strip.values if value is not None and math.isfinite(value)]
    slack = 1e-9 * max(abs(end) for end in scaled)
    below = "≤ " if any(value < scaled[0] - slack for value in known) else ""
    above = "≥ " if any(value > scaled[1] + slack for value in known) else ""
    if strip.log:
        return f"{below}{scaled[0]:,.0f}", f"{above}{scaled[1]:,.0f} (log scale)"
    ends = (signed(low), signed(high)) if strip.kind == "change" else (number(low), number(high))
    return below + ends[0], f"{above}{ends[1]} {strip.unit}".strip()


def class_chip(neuron_class: NeuronClass) -> html.Span:
    """A neuron's class, in its colour."""
    dot = html.Span(className="dot", style={"backgroundColor": CLASS_COLOURS[neuron_class]})
    label = CLASS_LABELS[neuron_class]
    return html.Span([dot, label], className="chip", title=TERMS[label.lower()])


def metric_card(name: str, value: float | None, error: float | None, percentile: float | None) -> html.Div:
    """One metric with its error, its place among the run's neurons, and its definition a hover away."""
    metric = METRIC[name]
    definition = explained(name)
    place = [] if percentile is None else [_percentile_bar(percentile)]
    label = dmc.Tooltip(
        html.Span(metric.label, className="card-label", tabIndex=0),
        label=definition,
        multiline=True,
        w=300,
        withArrow=True,
        events={"hover": True, "focus": True, "touch": True},
    )
    return html.Div(
        [label, html.Div(number(value, metric.unit, error), className="card-value"), *place], className="card"
    )


def explained(name: str) -> str:
    """A metric in a sentence, with its formula and its place in the paper."""
    metric, formula = METRIC[name], FORMULAS.get(name)
    parts = [
        metric.sentence,
        *([f"{formula}."] if formula else []),
        *([f"({metric.equation})"] if metric.equation else []),
    ]
    return " ".join(parts)


def _percentile_bar(percentile: float) -> html.Div:
    bar = html.Div(className="percentile-fill", style={"width": f"{percentile:.1f}%"})
    return html.Div(
        [html.Div(bar, className="percentile"), html.Span(f"percentile {percentile:.1f}", className="quiet")],
        className="percentile-row",
    )


def panel(title: str, *children: Component | str, note: str | None = None) -> html.Section:
    """A titled part of a page."""
    quiet = [] if note is None else [html.P(note, className="quiet")]
    return html.Section([html.H2(title), *quiet, *children], className="panel")


def fetched_page(title: str, controls: Component, body: str, *above: Component) -> html.Div:
    """A page of controls, and of one part with the id `body` that a callback fills.

    Args:
        above: its stores and intervals, and the cards of the runs that it shows.
    """
    main = dcc.Loading(html.Div(id=body, className="page-main"), delay_show=400)
    columns = html.Div([controls, main], className="columns")
    return html.Div([html.H1(title, className="visually-hidden"), *above, columns])


def scrolled(table: html.Table, label: str) -> html.Div:
    """A table that may be wider than the page; keys scroll it, so it has a name."""
    return html.Div(table, className="scrolled", tabIndex=0, role="region", **{"aria-label": label})


def graph(figure: Any, *, buttons: Sequence[Sequence[str]] | None = None, **options: Any) -> dcc.Graph:
    """A figure in the house configuration; as tall as its layout says, else as its class does.

    Args:
        buttons: of its toolbar, by group, in place of the usual ones.
    """
    if figure.layout.height is not None:
        options.setdefault("style", {"height": figure.layout.height})
    config = GRAPH_CONFIG if buttons is None else {**GRAPH_CONFIG, "modeBarButtons": buttons}
    return dcc.Graph(figure=figure, config=config, **options)


def empty(title: str, sentence: str, command: str | None = None) -> html.Div:
    """Nothing to show, why, and what to do about it."""
    code = [] if command is None else [html.Pre(command)]
    return html.Div([html.H2(title), html.P(sentence), *code], className="state")


def failure(sentence: str) -> html.Div:
    """An error of the service, in its own words."""
    return html.Div([html.Strong("This did not work. "), sentence], className="state error", role="alert")
