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

    def metrics(self) -> list[str]:
        """The metrics that it reads."""
        return list(dict.fromkeys(name for name in (self.x, self.y, self.colour) if name != "class"))

    def columns(self) -> list[str]:
        """The columns that it reads: its metrics, and their standard errors for the hover."""
        names = self.metrics()
        return names + [f"{name}_se" for name in names if METRIC[name].has_se]


@dataclass(frozen=True)
class Preset:
    """A figure of the paper, as a view, and what to look for in it."""

    name: str
    label: str
    subject: str
    view: View
    sentences: str


PRESETS: tuple[Preset, ...] = (
    Preset(
        "figure-1",
        "Figure 1",
        "Entropy and prediction",
        View("delta_reciprocal_rank", "abs_delta_entropy", "ln_mediated", x_log=True, y_log=True),
        "Neurons high up change how sure the model is; neurons far right change which token it prefers. Look for "
        "bright points at the upper left edge: they move confidence without moving the prediction, and do so through "
        "the final norm.",
    ),
    Preset(
        "figure-2a",
        "Figure 2a",
        "Norm and logit variance",
        View("weight_norm", "logit_var", "class", y_log=True),
        "Each neuron's output weights: how large they are, and how specific they are to some tokens. Look for points "
        "that fall below the cloud, large weights that move no token in particular: candidates for entropy neurons.",
    ),
    Preset(
        "figure-2e",
        "Figure 2e",
        "Null space and layernorm",
        View("null_fraction", "ln_mediated", "abs_delta_entropy"),
        "How much of a neuron is written where the unembedding does not look, against how much of its effect goes "
        "through the final norm. Look at the upper right: writing into the null space and acting through the norm go "
        "together.",
    ),
)


def scatter(data: NeuronColumns, view: View) -> go.Figure:
    """Points of all neurons that have both coordinates; `customdata` is the neuron's name."""
    figure = blank(uirevision=f"{view.x}|{view.y}|{view.x_log}|{view.y_log}", dragmode="pan", hovermode="closest")
    if view.colour == "class":
        for neuron_class in _ORDER:
            rows = [row for row in _rows(data, view) if data.neuron_class[row] == neuron_class]
            if rows:
                figure.add_trace(_class_trace(data, view, rows, neuron_class))
    else:
        rows = [row for row in _rows(data, view) if data.columns[view.colour][row] is not None]
        figure.add_trace(_metric_trace(data, view, rows))
        marked = [row for row in rows if data.neuron_class[row] == "entropy"]
        if marked:
            figure.add_trace(_ring_trace(data, view, marked))
    figure.update_xaxes(title=axis_title(view.x), type="log" if view.x_log else "linear")
    figure.update_yaxes(title=axis_title(view.y), type="log" if view.y_log else "linear")
    return figure


def _rows(data: NeuronColumns, view: View) -> list[int]:
    def drawable(name: str, row: int, log: bool) -> bool:
        value = data.columns[name][row]
        return value is not None and (value > 0 or not log)

    return [
        row
        for row in range(len(data.neuron))
        if drawable(view.x, row, view.x_log) and drawable(view.y, row, view.y_log)
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


def _class_trace(data: NeuronColumns, view: View, rows: list[int], neuron_class: NeuronClass) -> go.Scattergl:
    plain = neuron_class == "plain"
    marker = {"color": CLASS_COLOURS[neuron_class], "size": 6 if plain else 9, "opacity": 0.55 if plain else 0.9}
    name = f"{CLASS_LABELS[neuron_class]}s ({len(rows)})"
    return go.Scattergl(**_points(data, view, rows), name=name, marker=marker)


def _metric_trace(data: NeuronColumns, view: View, rows: list[int]) -> go.Scattergl:
    values = [data.columns[view.colour][row] for row in rows]
    ordered = sorted(value for value in values if value is not None)
    # A few extreme neurons would leave all others one colour: the scale ends at the 1st and 99th percentile.
    low, high = (ordered[int(q * (len(ordered) - 1))] for q in (0.01, 0.99)) if ordered else (0, 1)
    bar = {"title": {"text": axis_title(view.colour), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    marker = {"color": values, "colorscale": MAGNITUDE_SCALE, "cmin": low, "cmax": high, "size": 7, "colorbar": bar}
    return go.Scattergl(**_points(data, view, rows), name="All neurons", marker=marker, showlegend=False)


def _ring_trace(data: NeuronColumns, view: View, rows: list[int]) -> go.Scattergl:
    marker = {"symbol": "circle-open", "color": CLASS_COLOURS["entropy"], "size": 14, "line": {"width": 2}}
    name = f"{CLASS_LABELS['entropy']}s ({len(rows)})"
    return go.Scattergl(**_points(data, view, rows), name=name, marker=marker)
