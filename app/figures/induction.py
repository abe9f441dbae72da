"""The figures of the induction lab: what a model does on repeated text (Figures 5a, 5b, 9, 10 and 11).

A curve has the first occurrence's positions and then the second's. Where text lies between the two, the line is broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from app.figures.neuron import token_scatter
from app.figures.theme import CLASS_COLOURS, ENTROPY_COLOUR, LOSS_COLOUR, SERIES_COLOURS, blank
from app.format import number
from app.text import label
from backend.glossary import CLASS_LABELS, NeuronClass
from backend.schemas import Curve, InductionChange, InductionClip, InductionCurves, NeuronColumns

Values = Sequence[float | None]
MARGIN = {"l": 56, "r": 12, "t": 12, "b": 44}
BEHIND = "#9aa0a6"
FEW_POSITIONS = 12
"""Occurrences so short are read token by token: every position has its tick and its marker."""
LEAST_ENTROPY = 1e-3
"""Nats: a percentage of less says nothing."""
_DASHES = ("dot", "dashdot")
_ORDER: tuple[NeuronClass, ...] = ("plain", "prediction", "token_frequency", "entropy")
_LABELLED = 6


@dataclass(frozen=True)
class Positions:
    """Where the tokens of two occurrences stand across a figure."""

    span: int
    apart: bool = False
    """Whether other text lies between the occurrences."""

    @property
    def x(self) -> list[int]:
        return [*range(self.span), *(place + self.span + self.gap for place in range(self.span))]

    @property
    def gap(self) -> int:
        return max(1, self.span // 12) if self.apart else 0

    @property
    def boundary(self) -> float:
        return self.span - 0.5 + self.gap / 2

    def ticks(self) -> tuple[list[int], list[str]]:
        """Positions counted from each occurrence's start; A0, A1, … where there are few."""
        if self.span <= FEW_POSITIONS:
            places, before = list(range(self.span)), "A"
        else:
            places, before = list(range(0, self.span, max(1, round(self.span / 40) * 10))), ""
        second = [place + self.span + self.gap for place in places]
        return [*places, *second], [f"{before}{place}" for place in places] * 2


def compact(**layout: Any) -> go.Figure:
    """A figure for half a page's width, whose titles also fit a telephone's."""
    figure = blank(**{"margin": MARGIN, **layout})
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    return figure


def over_both(figure: go.Figure, positions: Positions) -> go.Figure:
    """The axis of positions, with the place marked where the second occurrence begins."""
    values, texts = positions.ticks()
    figure.update_xaxes(title_text="position in the occurrence", tickvals=values, ticktext=texts)
    figure.add_vline(x=positions.boundary, line={"color": BEHIND, "width": 1.5, "dash": "dash"})
    end = positions.x[-1]
    for x, words in ((positions.span / 2 - 0.5, "first occurrence"), ((positions.boundary + end) / 2, "second")):
        figure.add_annotation(
            x=x, y=1, xref="x", yref="paper", yanchor="bottom", text=words, showarrow=False, font={"size": 12}
        )
    return figure


def add_curve(figure: go.Figure, positions: Positions, curve: Curve, **line: Any) -> None:
    """A mean as a line, and ± its standard error as a shade; `line` is what Plotly's Scatter takes."""
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
    mode = "lines+markers" if positions.span <= FEW_POSITIONS else "lines"
    figure.add_trace(go.Scatter(x=x, y=mean, mode=mode, legendgroup=line.get("name"), **line))


def broken(x: Sequence[int], values: Values, positions: Positions) -> tuple[list[float], list[float | None]]:
    """Values with their positions, and nothing in between where the occurrences do not adjoin."""
    if not positions.apart or len(values) != 2 * positions.span:
        return list(x)[: len(values)], list(values)
    half = positions.span
    return [*x[:half], positions.boundary, *x[half:]], [*values[:half], None, *values[half:]]


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
        means.append(None if value is None else _mean(near))
    return Curve(mean=means, se=[None] * len(means))


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


def series(place: int) -> dict[str, Any]:
    """How the line of one neuron among several is drawn: dotted, as the paper draws activations."""
    dash = _DASHES[place // len(SERIES_COLOURS) % len(_DASHES)]
    return {"color": SERIES_COLOURS[place % len(SERIES_COLOURS)], "width": 2, "dash": dash}


def curves(event: InductionCurves, *, apart: bool = False) -> go.Figure:
    """Figures 5a, 9a, 10a: loss and entropy (solid) and activations (dotted, axis at the right) along the repeat.

    Args:
        apart: whether text lies between the two occurrences, as in natural text.
    """
    positions = Positions(len(event.loss.mean) // 2, apart)
    figure = compact(height=440, hovermode="x unified", margin={**MARGIN, "r": 56, "t": 28})
    for name, curve, colour in (("loss", event.loss, LOSS_COLOUR), ("entropy", event.entropy, ENTROPY_COLOUR)):
        hover = "%{y:.3f} nats"
        add_curve(figure, positions, curve, name=name, line={"color": colour, "width": 3}, hovertemplate=hover)
    for place, (neuron, curve) in enumerate(event.activations.items()):
        line = {"name": neuron, "line": series(place), "yaxis": "y2", "hovertemplate": "%{y:.3g}"}
        add_curve(figure, positions, curve, **line)
    figure.update_yaxes(title_text="nats", rangemode="tozero")
    figure.update_layout(
        legend={"y": 1.1},
        yaxis2={
            "overlaying": "y", "side": "right", "showgrid": False, "zeroline": False, "automargin": True,
            "tickmode": "auto",
            "title": {"text": "activation", "font": {"size": 13}},
        },
    )  # fmt: skip
    return over_both(figure, positions)


@dataclass(frozen=True)
class ClipTotals:
    """What clipping a neuron does to the second occurrence, as means over its positions."""

    entropy_before: float | None
    entropy_after: float | None
    loss_before: float | None
    loss_after: float | None
    largest: float | None
    """The percentage of the position where the entropy changes most."""


def percent_change(before: float | None, after: float | None) -> float | None:
    """In percent of what it was; None where it was next to nothing."""
    if before is None or after is None or before < LEAST_ENTROPY:
        return None
    return 100 * (after - before) / before


def clip_totals(clip: InductionClip) -> ClipTotals:
    """Means over the positions of the second occurrence, and the largest change among them."""
    shares = [share for share in percent_of_entropy(clip)[0] if share is not None]
    return ClipTotals(
        _mean(_before(clip.entropy, clip.delta_entropy)), _mean(clip.entropy.mean),
        _mean(_before(clip.loss, clip.delta_loss)), _mean(clip.loss.mean), max(shares, key=abs, default=None),
    )  # fmt: skip


def percent_of_entropy(clip: InductionClip) -> tuple[list[float | None], list[float | None]]:
    """The change of entropy by position, in percent of the entropy before, and its standard error."""
    before = _before(clip.entropy, clip.delta_entropy)
    shares = [percent_change(was, now) for was, now in zip(before, clip.entropy.mean, strict=True)]
    errors = [
        None if share is None or was is None or se is None else 100 * se / was
        for share, was, se in zip(shares, before, clip.delta_entropy.se, strict=True)
    ]
    return shares, errors


def _before(after: Curve, change: Curve) -> list[float | None]:
    pairs = zip(after.mean, change.mean, strict=True)
    return [None if now is None or moved is None else now - moved for now, moved in pairs]


def _mean(values: Values) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def clip_overview(clips: Sequence[InductionClip]) -> go.Figure:
    """Figures 5b, 9b, 10b: by how much clipping each neuron changes the entropy of the second occurrence."""
    figure = compact(height=360, hovermode="x unified")
    for place, clip in enumerate(clips):
        shares, errors = percent_of_entropy(clip)
        line = {**series(place), "dash": "solid" if place < len(SERIES_COLOURS) else "dash"}
        curve = Curve(mean=shares, se=errors)
        positions = Positions(len(shares))
        add_curve(figure, positions, curve, name=clip.neuron, line=line, hovertemplate="%{y:+.1f} %")
    figure.add_hline(y=0, line={"color": BEHIND, "width": 1})
    figure.update_yaxes(title_text="Δ entropy (% of before)", ticksuffix=" %")
    figure.update_layout(showlegend=True)
    return _over_second(figure, len(clips[0].entropy.mean) if clips else 0)


def clip_curves(clip: InductionClip) -> go.Figure:
    """Figure 5b for one neuron: entropy and loss on the second occurrence, before (dashed) and after (solid)."""
    figure = compact(height=220, hovermode="x unified", showlegend=False)
    positions = Positions(len(clip.entropy.mean))
    pairs = (
        ("loss", clip.loss, clip.delta_loss, LOSS_COLOUR),
        ("entropy", clip.entropy, clip.delta_entropy, ENTROPY_COLOUR),
    )
    for name, after, change, colour in pairs:
        before = Curve(mean=_before(after, change), se=[None] * len(after.mean))
        for when, curve, dash in (("before", before, "dash"), ("clipped", after, "solid")):
            add_curve(
                figure, positions, curve, name=f"{name} {when}", hovertemplate="%{y:.3f} nats",
                line={"color": colour, "width": 2, "dash": dash},
            )  # fmt: skip
    figure.update_yaxes(title_text="nats", rangemode="tozero")
    return _over_second(figure, positions.span)


def _over_second(figure: go.Figure, span: int) -> go.Figure:
    values, texts = Positions(span).ticks()
    half = len(values) // 2
    figure.update_xaxes(title_text="position in the second occurrence", tickvals=values[:half], ticktext=texts[:half])
    return figure


def clip_scatter(clip: InductionClip) -> go.Figure:
    """Figures 9c, 10c: a token's loss on the second occurrence against how clipping the neuron changes it."""
    texts = [
        f"{label(point.token)} → {label(point.target)}<br>1/rank {point.reciprocal_rank:.3g}<br>"
        f"Δ entropy {point.delta_entropy:+.4f} nats"
        for point in clip.points
    ]
    figure = token_scatter(
        [point.loss for point in clip.points], [point.delta_loss for point in clip.points], texts,
        [point.reciprocal_rank for point in clip.points], "loss %{x:.3f} nats, change %{y:+.4f}",
    )  # fmt: skip
    figure.update_xaxes(title_text="loss before (nats)", rangemode="tozero")
    figure.update_yaxes(title_text=f"Δ loss, {clip.neuron} clipped (nats)")
    figure.update_layout(height=380)
    return figure


def change_scatter(
    event: InductionChange, columns: NeuronColumns | None = None, *, against: str = "index"
) -> go.Figure:
    """Figure 11: how much more each last-layer neuron fires on the second occurrence than on the first.

    Args:
        columns: the run's neurons of the same layer: their classes, and `null_fraction` where it is the other axis.
        against: `index` or `null_fraction`.
    """
    count = len(event.change)
    classes: list[NeuronClass] = ["plain"] * count
    across: list[float | None] = [float(index) for index in range(count)]
    if columns is not None:
        classes = list(columns.neuron_class)
        if against != "index":
            across = list(columns.columns[against])
    figure = compact(height=440, hovermode="closest")
    for name in _ORDER:
        rows = [row for row in range(count) if classes[row] == name and across[row] is not None]
        if rows:
            figure.add_trace(_change_points(event, name, rows, across))
    for row in _worth_a_label(event, classes):
        figure.add_annotation(
            x=across[row], y=event.change[row], text=f"{event.layer}.{row}", showarrow=False, xanchor="left",
            xshift=6, font={"size": 11},
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": BEHIND, "width": 1})
    figure.update_xaxes(title_text="neuron" if against == "index" else "null-space fraction ρ")
    figure.update_yaxes(title_text="change of mean activation")
    figure.update_layout(showlegend=columns is not None)
    return figure


def _change_points(
    event: InductionChange, name: NeuronClass, rows: list[int], across: list[float | None]
) -> go.Scattergl:
    plain = name == "plain"
    texts = [f"{event.layer}.{row}: {number(event.change[row], error=event.se[row])}" for row in rows]
    return go.Scattergl(
        x=[across[row] for row in rows], y=[event.change[row] for row in rows], mode="markers",
        name=f"{CLASS_LABELS[name]}s", text=texts, customdata=[f"{event.layer}.{row}" for row in rows],
        hovertemplate="%{text}<extra></extra>",
        marker={"color": CLASS_COLOURS[name], "size": 5 if plain else 9, "opacity": 0.6 if plain else 0.9},
    )  # fmt: skip


def _worth_a_label(event: InductionChange, classes: Sequence[NeuronClass]) -> list[int]:
    """The neurons that change most, among the entropy neurons and among all."""
    by_size = sorted(range(len(event.change)), key=lambda row: -abs(event.change[row]))
    entropy = [row for row in by_size if classes[row] == "entropy"][:_LABELLED]
    return list(dict.fromkeys([*entropy, *by_size[: _LABELLED // 2]]))
