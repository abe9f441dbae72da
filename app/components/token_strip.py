"""The token strip: the view of tokens that all pages share, coloured by one value a token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from dash import html
from plotly.colors import sample_colorscale

from app.figures.theme import CHANGE_SCALE, MAGNITUDE_SCALE
from app.notation.numbers import number, signed
from app.notation.tokens import visible

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
    finite = sorted(value for value in shared if value is not None and math.isfinite(value))
    if not finite:
        return 0.0, 1.0
    low, high = finite[int(0.01 * (len(finite) - 1))], finite[math.ceil(0.99 * (len(finite) - 1))]
    if strip.kind == "change":
        reach = max(abs(low), abs(high), 1e-6)
        return -reach, reach
    if strip.log:
        low, high = math.log10(low), math.log10(high)
    return (low, high) if high > low else (low, low + 1e-6)


@cache
def _shades(kind: str) -> tuple[tuple[int, int, int], ...]:
    scale = CHANGE_SCALE if kind == "change" else MAGNITUDE_SCALE
    places = [place / (_SHADES - 1) for place in range(_SHADES)]
    return tuple(_rgb(colour) for colour in sample_colorscale(scale, places))


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
    """The colour of text on a shade: of black and white the one with more contrast, which is always 4.5 or more (WCAG
    2.2, 1.4.3)."""
    linear = [((part / 255 + 0.055) / 1.055) ** 2.4 if part > 10 else part / 255 / 12.92 for part in shade]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff"


def _shown(strip: Strip, place: int) -> str:
    value = strip.values[place]
    if strip.log:
        return "—" if value is None else f"{value:,.0f}"
    return signed(value, strip.unit) if strip.kind == "change" else number(value, strip.unit)


def _token(strip: Strip, place: int, low: float, high: float, shades: Sequence[tuple[int, int, int]]) -> html.Span:
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
    """Strips over the same tokens as plain data, which the browser draws (static/base_strips.js).

    A thousand tokens in eight strips are eight thousand elements: as components they would take seconds on the way.
    """
    first = strips[0]
    return {
        "tokens": [visible(token) for token in first.tokens],
        "breaks": [place for place, token in enumerate(first.tokens) if token.endswith("\n")],
        "details": list(first.details or []),
        **strip_colours(strips),
    }


def strip_colours(strips: Sequence[Strip]) -> dict[str, Any]:
    """Colours, values and legends of strips, for a page that has their tokens already; the strips need name none."""
    kinds = {strip.kind for strip in strips}
    return {
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
