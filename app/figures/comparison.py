"""Figures of two runs beside each other: a metric against itself, and how its values are distributed in both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from app.figures.scales import Scale, not_drawn, placed, threshold, tick_label, ticks
from app.figures.scatter import CLASS_ORDER, class_marker
from app.figures.theme import CLASS_COLOURS, LIMIT_COLOUR, SERIES_COLOURS, axis_title, blank
from app.notation.numbers import number, percent
from backend.glossary import CLASS_LABELS, METRIC, NeuronClass
from backend.schemas import NeuronColumns

_MARK = "#CC79A7"
"""Of chosen neurons: a colour that means nothing else."""
_MOST_STEPS = 400
"""Of a cumulative distribution: quantiles that are drawn of more values than that."""
_BAR = {"thickness": 1, "width": 0}
_DASHES = ("solid", "dash")


@dataclass(frozen=True)
class PairedMetric:
    """A metric of two runs whose neurons correspond; all lists are aligned by the neurons' index."""

    metric: str
    labels: tuple[str, str]
    """What the two runs are called."""
    neurons: Sequence[str]
    classes: tuple[Sequence[NeuronClass], Sequence[NeuronClass]]
    a: Sequence[float | None]
    b: Sequence[float | None]
    a_errors: Sequence[float | None] | None = None
    """Standard errors; None for a metric that has none."""
    b_errors: Sequence[float | None] | None = None

    @classmethod
    def of(cls, metric: str, labels: tuple[str, str], a: NeuronColumns, b: NeuronColumns) -> "PairedMetric":
        """A metric out of the columns of both runs; neurons that only one of them has are left out."""
        size, error = min(len(a.neuron), len(b.neuron)), f"{metric}_se"
        errors = tuple(one.columns[error][:size] if error in one.columns else None for one in (a, b))
        return cls(
            metric, labels, a.neuron[:size], (a.neuron_class[:size], b.neuron_class[:size]),
            a.columns[metric][:size], b.columns[metric][:size], *errors,
        )  # fmt: skip

    def words(self, row: int) -> str:
        """A neuron in both runs, for its hover text."""
        unit, classes = METRIC[self.metric].unit, [CLASS_LABELS[of[row]] for of in self.classes]
        named = classes[0] if classes[0] == classes[1] else f"{classes[0]} → {classes[1]}"
        sides = zip(self.labels, (self.a, self.b), (self.a_errors, self.b_errors), strict=True)
        lines = [
            f"{escape(label, quote=False)}: {number(values[row], unit, None if errors is None else errors[row])}"
            for label, values, errors in sides
        ]
        return f"<b>{self.neurons[row]}</b> · {named}<br>" + "<br>".join(lines)


@dataclass(frozen=True)
class _Axis:
    """Where values stand on both axes, which are alike."""

    scale: Scale
    within: float

    def place(self, value: float) -> float:
        return placed(value, self.within) if self.scale == "signed" else value

    def can_show(self, value: float | None) -> bool:
        return value is not None and (self.scale != "log" or value > 0)

    def bars(self, values: Sequence[float], errors: Sequence[float | None]) -> dict[str, Any]:
        """Error bars of ± one standard error; a logarithmic axis has no room below 0."""
        up = [self.place(value + (error or 0)) - self.place(value) for value, error in zip(values, errors, strict=True)]
        low = [value - (error or 0) for value, error in zip(values, errors, strict=True)]
        if self.scale == "log":
            low = [end if end > 0 else value / 1e3 for end, value in zip(low, values, strict=True)]
        down = [self.place(value) - self.place(end) for value, end in zip(values, low, strict=True)]
        return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **_BAR}

    def layout(self, values: Sequence[float | None]) -> dict[str, Any]:
        if self.scale != "signed":
            return {"type": self.scale, "exponentformat": "power"}
        named = ticks(values, self.within)
        return {"tickvals": [self.place(value) for value in named], "ticktext": [tick_label(value) for value in named]}


def against_itself(
    paired: PairedMetric, scale: Scale, *, marked: Sequence[str] = (), bars: bool = False
) -> tuple[go.Figure, str]:
    """A metric of one run against that of another, a point a neuron, with the line on which both are equal.

    A point's colour is the neuron's class in the first run; where it has another class in the second, its outline has
    that one's colour.

    Args:
        marked: neurons that are drawn once more, large, with their names and errors.
        bars: whether every neuron has its errors drawn.

    Returns:
        the figure, and a sentence on what it cannot show, which may be empty.
    """
    axis = _Axis(scale, threshold([*paired.a, *paired.b]))
    rows = [row for row in range(len(paired.neurons)) if axis.can_show(paired.a[row]) and axis.can_show(paired.b[row])]
    figure = blank(hovermode="closest", dragmode="pan")
    shown = [value for row in rows for value in (paired.a[row], paired.b[row]) if value is not None]
    if shown:
        ends = [axis.place(min(shown)), axis.place(max(shown))]
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", name="equal in both", hoverinfo="skip",
                       line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dash"})
        )  # fmt: skip
    for name in CLASS_ORDER:
        of_class = [row for row in rows if paired.classes[0][row] == name]
        if of_class:
            trace = _points(paired, axis, of_class, bars, _bar_colour(name))
            label = f"{CLASS_LABELS[name]}s ({len(of_class):,})"
            figure.add_trace(go.Scattergl(**trace, mode="markers", name=label, marker=_marker(paired, name, of_class)))
    wanted = set(marked)
    chosen = [row for row in rows if paired.neurons[row] in wanted]
    if chosen:
        trace = _points(paired, axis, chosen, True, _MARK) | {"text": [paired.neurons[row] for row in chosen]}
        trace |= {"hovertemplate": None, "hoverinfo": "skip"}
        ring = {"symbol": "circle-open", "size": 15, "color": _MARK, "line": {"width": 2.5}}
        figure.add_trace(
            go.Scatter(**trace, mode="markers+text", textposition="top center", name="chosen", marker=ring)
        )
    title = axis_title(paired.metric)
    figure.update_xaxes(title_text=f"{title}, {escape(paired.labels[0], quote=False)}", **axis.layout(shown))
    figure.update_yaxes(title_text=f"{title}, {escape(paired.labels[1], quote=False)}", **axis.layout(shown))
    return figure, _note(paired, axis, rows)


def _points(paired: PairedMetric, axis: _Axis, rows: Sequence[int], bars: bool, bar_colour: str) -> dict[str, Any]:
    x, y = ([values[row] or 0.0 for row in rows] for values in (paired.a, paired.b))
    trace: dict[str, Any] = {
        "x": [axis.place(value) for value in x],
        "y": [axis.place(value) for value in y],
        "customdata": [paired.neurons[row] for row in rows],
        "text": [paired.words(row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if bars and paired.a_errors is not None and paired.b_errors is not None:
        trace["error_x"] = axis.bars(x, [paired.a_errors[row] for row in rows]) | {"color": bar_colour}
        trace["error_y"] = axis.bars(y, [paired.b_errors[row] for row in rows]) | {"color": bar_colour}
    return trace


def _bar_colour(name: NeuronClass) -> str:
    """Of a class' error bars; those of plain neurons, which are many, are faint."""
    return f"{CLASS_COLOURS[name]}{'55' if name == 'plain' else ''}"


def _marker(paired: PairedMetric, name: NeuronClass, rows: Sequence[int]) -> dict[str, Any]:
    second = [paired.classes[1][row] for row in rows]
    outline = {"color": [CLASS_COLOURS[one] for one in second], "width": [0 if one == name else 2.5 for one in second]}
    sizes = [max(class_marker(one)["size"], class_marker(name)["size"]) for one in second]
    return class_marker(name) | {"line": outline, "size": sizes}


def _note(paired: PairedMetric, axis: _Axis, rows: Sequence[int]) -> str:
    count, label = len(paired.neurons), METRIC[paired.metric].label
    lacks = sum(a is None or b is None for a, b in zip(paired.a, paired.b, strict=True))
    low = count - len(rows) - lacks
    words = [not_drawn(count, {f"{label} in both runs": lacks}, {label: low})]
    if axis.scale == "signed":
        words.append(f"Both axes are linear within ±{axis.within:g} and logarithmic beyond.")
    return " ".join(word for word in words if word)


def cumulative(metric: str, scale: Scale, named: Mapping[str, Sequence[float | None]]) -> go.Figure:
    """How a metric's values are distributed in runs whose neurons need not correspond: the share of neurons at or below
    each value.

    Args:
        named: the values by what each run is called.
    """
    every = [value for values in named.values() for value in values]
    axis = _Axis(scale, threshold(every))
    figure = blank(hovermode="closest")
    for place, (name, values) in enumerate(named.items()):
        known = sorted(value for value in values if value is not None and axis.can_show(value))
        left = sum(value is not None for value in values) - len(known)  # too low for the axis: below all that is drawn
        steps = _steps(len(known))
        shares = [(left + step + 1) / (left + len(known)) for step in steps]
        at = [number(known[step], METRIC[metric].unit) for step in steps]
        figure.add_trace(
            go.Scatter(
                x=[axis.place(known[step]) for step in steps],
                y=[100 * share for share in shares],
                name=escape(name, quote=False),
                line={"color": SERIES_COLOURS[place], "width": 2, "dash": _DASHES[place % 2], "shape": "hv"},
                text=[
                    f"{percent(share)} of neurons at or below {value}" for share, value in zip(shares, at, strict=True)
                ],
                hovertemplate="%{fullData.name}<br>%{text}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text=axis_title(metric), **axis.layout(every))
    figure.update_yaxes(title_text="neurons at or below (%)", range=[0, 102])
    return figure


def _steps(count: int) -> list[int]:
    """Places of sorted values that are drawn: all, or so many at even distances, both ends among them."""
    if count <= _MOST_STEPS:
        return list(range(count))
    return [round(step * (count - 1) / (_MOST_STEPS - 1)) for step in range(_MOST_STEPS)]
