"""How anything runs along a repeat: the first occurrence's positions, and then the second's.

Where text lies between the two, a line is broken. Where the position that follows each occurrence was measured too, it
stands after it: B after the first, X after the second, as in Figure 9a.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from app.figures.theme import blank
from app.notation.numbers import number
from backend.schemas import Curve

Values = Sequence[float | None]
MARGIN = {"l": 56, "r": 12, "t": 12, "b": 44}
BEHIND = "#9aa0a6"
FEW_POSITIONS = 12
"""Occurrences so short are read token by token: every position has its tick and its marker."""
AFTER = ("B", "X")
"""What follows the first and the second occurrence, in the paper's letters."""


@dataclass(frozen=True)
class RepeatPositions:
    """Where the tokens of two occurrences stand across a figure."""

    span: int
    apart: bool = False
    """Whether other text lies between the occurrences."""
    beyond: bool = False
    """Whether the position that follows each of them stands after it."""

    @property
    def reach(self) -> int:
        """Positions of an occurrence and of what follows it."""
        return self.span + self.beyond

    @property
    def x(self) -> list[int]:
        return [*range(self.reach), *(place + self.reach + self.gap for place in range(self.reach))]

    @property
    def gap(self) -> int:
        return max(1, self.span // 12) if self.apart else 0

    @property
    def boundary(self) -> float:
        return self.reach - 0.5 + self.gap / 2

    def ticks(self) -> tuple[list[int], list[str]]:
        """Positions counted from each occurrence's start; A0, A1, … where there are few. What follows is B and X."""
        if self.span <= FEW_POSITIONS:
            places, before, room = list(range(self.span)), "A", 1.0
        else:
            step = round(self.span / 40) * 10 or 5
            places, before, room = list(range(0, self.span, step)), "", step / 2
        if self.beyond:
            places = [*(place for place in places if self.span - place >= room), self.span]
        second = [place + self.reach + self.gap for place in places]
        words = [[end if place == self.span else f"{before}{place}" for place in places] for end in AFTER]
        return [*places, *second], [*words[0], *words[1]]

    @property
    def names(self) -> list[str]:
        """What the paper calls each of `x`: A0, A1, …, and B and X for what follows."""
        return [name for end in AFTER for name in (*(f"A{place}" for place in range(self.span)), end)[: self.reach]]

    @property
    def titles(self) -> list[str]:
        """What each of `x` is, in words."""
        before, words = "A" if self.span <= FEW_POSITIONS else "", []
        for end, which in zip(AFTER, ("first", "second"), strict=True):
            words += [f"{before}{place}, {which} occurrence" for place in range(self.span)]
            words += [f"{end}, after the {which} occurrence"] * self.beyond
        return words


def compact(**layout: Any) -> go.Figure:
    """A figure for half a page's width, whose titles also fit a telephone's."""
    figure = blank(**{"margin": MARGIN, **layout})
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    return figure


def over_both(figure: go.Figure, positions: RepeatPositions) -> go.Figure:
    """The axis of positions, with the place marked where the second occurrence begins."""
    values, texts = positions.ticks()
    title = "position in the occurrence; B, X after it" if positions.beyond else "position in the occurrence"
    figure.update_xaxes(title_text=title, tickvals=values, ticktext=texts)
    figure.add_vline(x=positions.boundary, line={"color": BEHIND, "width": 1.5, "dash": "dash"})
    end = positions.x[-1]
    for x, words in ((positions.span / 2 - 0.5, "first occurrence"), ((positions.boundary + end) / 2, "second")):
        figure.add_annotation(
            x=x, y=1, xref="x", yref="paper", yanchor="bottom", text=words, showarrow=False, font={"size": 12}
        )
    return figure


def add_position_titles(figure: go.Figure, positions: RepeatPositions, curve: Curve, titles: Sequence[str]) -> None:
    """A first line for what hovering shows: which position it is. Nothing is drawn.

    Args:
        curve: where the line says so.
        told: of each of its positions.
    """
    figure.add_trace(
        go.Scatter(
            x=positions.x[: len(titles)], y=curve.mean, customdata=list(titles), showlegend=False, mode="markers",
            marker={"color": "rgba(0,0,0,0)"}, hovertemplate="%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(unifiedhovertitle_text="position")


def add_curve(
    figure: go.Figure,
    positions: RepeatPositions,
    curve: Curve,
    write: Callable[[float | None], str] = number,
    **line: Any,
) -> None:
    """A mean as a line, and ± its standard error as a shade.

    Args:
        write: how a value is written, as `%{customdata}` of a hovertemplate has it.
        line: what Plotly's Scatter takes.
    """
    colour = line["line"]["color"]
    x, mean = broken(positions.x, curve.mean, positions)
    _, low = broken(positions.x, _shifted(curve, -1), positions)
    _, high = broken(positions.x, _shifted(curve, 1), positions)
    band_x, band_y = _band(x, low, high)
    axis = {name: line[name] for name in ("yaxis",) if name in line}
    if band_x and any(error is not None for error in curve.se):
        figure.add_trace(
            go.Scatter(
                x=band_x, y=band_y, fill="toself", fillcolor=_faint(colour), line={"width": 0}, mode="lines",
                hoverinfo="skip", showlegend=False, legendgroup=line.get("name"), **axis,
            )
        )  # fmt: skip
    if positions.span <= FEW_POSITIONS:
        line |= {"mode": "lines+markers", "marker": {"symbol": _symbols(x, positions)}}
    line["customdata"] = [write(value) for value in mean]
    figure.add_trace(go.Scatter(x=x, y=mean, **{"mode": "lines", "legendgroup": line.get("name"), **line}))


def _symbols(x: Sequence[float], positions: RepeatPositions) -> str | list[str]:
    """Hollow where a position only follows an occurrence."""
    if not positions.beyond:
        return "circle"
    ends = (positions.span, positions.x[-1])
    return ["circle-open" if place in ends else "circle" for place in x]


def broken(x: Sequence[int], values: Values, positions: RepeatPositions) -> tuple[list[float], list[float | None]]:
    """Values with their positions, and nothing in between where the occurrences do not adjoin."""
    if not positions.apart or len(values) != 2 * positions.reach:
        return [*x[: len(values)]], list(values)
    half = positions.reach
    return [*x[:half], positions.boundary, *x[half:]], [*values[:half], None, *values[half:]]


def joined(curve: Curve, after: Curve | None) -> Curve:
    """A curve with what follows each occurrence put there: one value an occurrence that the curve has."""
    if after is None:
        return curve
    size = len(curve.mean) // len(after.mean)

    def put(values: Values, ends: Values) -> list[float | None]:
        return [one for at, end in enumerate(ends) for one in (*values[at * size : (at + 1) * size], end)]

    return Curve(mean=put(curve.mean, after.mean), se=put(curve.se, after.se))


def running_mean(curve: Curve, window: int) -> Curve:
    """Each position's mean with its neighbours of the same occurrence; without standard errors.

    Args:
        window: how many positions at most, the middle one among them.
    """
    half, reach = len(curve.mean) // 2, window // 2
    means: list[float | None] = []
    for place, value in enumerate(curve.mean):
        first, last = (0, half) if place < half else (half, len(curve.mean))
        near = curve.mean[max(first, place - reach) : min(last, place + reach + 1)]
        means.append(None if value is None else average(near))
    return Curve(mean=means, se=[None] * len(means))


def average(values: Values) -> float | None:
    """Of those that are there."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _shifted(curve: Curve, sign: int) -> list[float | None]:
    return [None if mean is None else mean + sign * (se or 0.0) for mean, se in zip(curve.mean, curve.se, strict=True)]


def _band(x: Sequence[float], low: Values, high: Values) -> tuple[list[float | None], list[float | None]]:
    """A polygon for every unbroken stretch, one after the other with a gap between."""
    across: list[float | None] = []
    up: list[float | None] = []
    stretch: list[tuple[float, float, float]] = []
    for place, below, above in [*zip(x, low, high, strict=True), (0.0, None, None)]:
        if below is not None and above is not None:
            stretch.append((place, below, above))
            continue
        if len(stretch) > 1:
            across += [*(one[0] for one in stretch), *(one[0] for one in reversed(stretch)), None]
            up += [*(one[1] for one in stretch), *(one[2] for one in reversed(stretch)), None]
        stretch = []
    return across[:-1], up[:-1]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"
