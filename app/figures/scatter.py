"""All neurons of a run, one point each (Figures 1, 2a, 2e and any other pair of metrics)."""

from dataclasses import dataclass

import plotly.graph_objects as go

from app.figures.theme import CLASS_COLOURS, MAGNITUDE_SCALE, axis_title, blank
from app.format import number
from backend.glossary import CLASS_LABELS, METRIC, NeuronClass
from backend.schemas import NeuronColumns

_ORDER: tuple[NeuronClass, ...] = ("plain", "prediction", "token_frequency", "entropy")


@dataclass(frozen=True)
class View:
    """What a scatter shows."""

    x: str
    y: str
    colour: str
    """A metric, or `class`."""
    x_log: bool = False
    y_log: bool = False
    size: str = ""
    """A metric, or empty for points of one size."""

    def metrics(self) -> list[str]:
        """The metrics that it reads."""
        named = (self.x, self.y, self.colour, self.size)
        return list(dict.fromkeys(name for name in named if name not in ("class", "")))

    def columns(self) -> list[str]:
        """The columns that it reads: its metrics, and their standard errors for the hover."""
        names = self.metrics()
        return names + [f"{name}_se" for name in names if METRIC[name].has_se]


def scatter(data: NeuronColumns, view: View) -> go.Figure:
    """Points of all neurons that have both coordinates, a trace a class.

    `customdata` is the neuron's name and `meta` the class, by which the page hides, selects and marks points without
    asking for a new figure.
    """
    figure = blank(uirevision=f"{view.x}|{view.y}|{view.x_log}|{view.y_log}", dragmode="pan", hovermode="closest")
    rows = _rows(data, view)
    sizes = _sizes(data, view, rows)
    for neuron_class in _ORDER:
        own = [row for row in rows if data.neuron_class[row] == neuron_class]
        if own:
            figure.add_trace(_class_trace(data, view, own, neuron_class, sizes))
    if view.colour != "class":
        figure.update_layout(coloraxis=_colour_axis(data, view, rows))
        marked = [row for row in rows if data.neuron_class[row] == "entropy"]
        if marked:
            figure.add_trace(_ring_trace(data, view, marked))
    figure.update_xaxes(title=axis_title(view.x), type="log" if view.x_log else "linear", exponentformat="power")
    figure.update_yaxes(title=axis_title(view.y), type="log" if view.y_log else "linear", exponentformat="power")
    return figure


def _rows(data: NeuronColumns, view: View) -> list[int]:
    def drawable(name: str, row: int, log: bool) -> bool:
        value = data.columns[name][row]
        return value is not None and (value > 0 or not log)

    return [
        row
        for row in range(len(data.neuron))
        if drawable(view.x, row, view.x_log)
        and drawable(view.y, row, view.y_log)
        and (view.colour == "class" or data.columns[view.colour][row] is not None)
    ]


def _points(data: NeuronColumns, view: View, rows: list[int]) -> dict[str, object]:
    # Lists and not arrays: the page reads a clicked point's customdata, which a packed array would not have.
    return {
        "x": [data.columns[view.x][row] for row in rows],
        "y": [data.columns[view.y][row] for row in rows],
        "customdata": [data.neuron[row] for row in rows],
        "text": [_hover(data, view, row) for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
        "mode": "markers",
    }


def _hover(data: NeuronColumns, view: View, row: int) -> str:
    lines = [f"<b>{data.neuron[row]}</b> · {CLASS_LABELS[data.neuron_class[row]]}"]
    for name in view.metrics():
        error = data.columns.get(f"{name}_se")
        shown = number(data.columns[name][row], METRIC[name].unit, None if error is None else error[row])
        lines.append(f"{METRIC[name].label}: {shown}")
    return "<br>".join(lines)


def _class_trace(
    data: NeuronColumns, view: View, rows: list[int], neuron_class: NeuronClass, sizes: dict[int, float]
) -> go.Scattergl:
    plain = neuron_class == "plain"
    marker: dict[str, object] = {"size": 6 if plain else 9, "opacity": 0.55 if plain else 0.9}
    if view.colour == "class":
        marker["color"] = CLASS_COLOURS[neuron_class]
    else:
        colours = [data.columns[view.colour][row] for row in rows]
        marker = {"color": colours, "coloraxis": "coloraxis", "size": 7, "opacity": 1.0}
    if view.size:
        marker["size"] = [sizes[row] for row in rows]
    name = f"{CLASS_LABELS[neuron_class]}s ({len(rows)})"
    by_class = view.colour == "class"  # a legend of points in many colours would say nothing
    return go.Scattergl(**_points(data, view, rows), name=name, meta=neuron_class, marker=marker, showlegend=by_class)


def _ends(values: list[float]) -> tuple[float, float]:
    """The 1st and 99th percentile: a few extreme neurons would leave all others one colour, or one size."""
    ordered = sorted(values)
    return (ordered[int(0.01 * (len(ordered) - 1))], ordered[int(0.99 * (len(ordered) - 1))]) if ordered else (0.0, 1.0)


def _colour_axis(data: NeuronColumns, view: View, rows: list[int]) -> dict[str, object]:
    low, high = _ends([value for row in rows if (value := data.columns[view.colour][row]) is not None])
    bar = {"title": {"text": axis_title(view.colour), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    return {"colorscale": MAGNITUDE_SCALE, "cmin": low, "cmax": high, "colorbar": bar}


def _sizes(data: NeuronColumns, view: View, rows: list[int]) -> dict[int, float]:
    """Diameters whose area grows with the metric's magnitude; a neuron without a value is a dot."""
    if not view.size:
        return {}
    known = {row: abs(value) for row in rows if (value := data.columns[view.size][row]) is not None}
    _, most = _ends(list(known.values()))
    return {row: 3.0 + 17.0 * (min(1.0, known.get(row, 0.0) / most) ** 0.5 if most > 0 else 0.0) for row in rows}


def _ring_trace(data: NeuronColumns, view: View, rows: list[int]) -> go.Scattergl:
    marker = {"symbol": "circle-open", "color": CLASS_COLOURS["entropy"], "size": 14, "line": {"width": 2}}
    name = f"{CLASS_LABELS['entropy']}s ({len(rows)})"
    return go.Scattergl(**_points(data, view, rows), name=name, meta="entropy", marker=marker)
