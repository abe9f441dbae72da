"""All neurons of a run, one point each (Figures 1, 2a, 2e and any other pair of metrics).

The points are placed in the browser (static/page_atlas_figure.js), which holds the run's columns: another axis must not
wait for the service. What they look like is decided here, in the `kit` that the browser draws with.
"""

from dataclasses import dataclass
from typing import Any

from app.figures.scales import Scale, not_drawn
from app.figures.theme import CLASS_COLOURS, LIMIT_COLOUR, MAGNITUDE_SCALE, MARK_COLOUR, axis_title, blank
from app.notation.numbers import number
from backend.glossary import (
    CLASS_LABELS,
    CUTS,
    METRIC,
    METRICS,
    PAPER_CRITERION,
    PAPER_CRITERION_LABEL,
    NeuronClass,
)
from backend.schemas import NeuronColumns, RunSummary

CLASS_ORDER: tuple[NeuronClass, ...] = ("plain", "prediction", "token_frequency", "entropy")
"""Later ones are drawn over earlier ones."""
UNSCALED = ("class", PAPER_CRITERION)
"""Colours that are no metric."""


@dataclass(frozen=True)
class View:
    """What a scatter shows."""

    x: str
    y: str
    colour: str
    """A metric, `class`, or the paper's own criterion."""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    size: str = ""
    """A metric, or empty for points of one size."""

    def metrics(self) -> list[str]:
        """The metrics that it reads."""
        named = (self.x, self.y, self.colour, self.size)
        return list(dict.fromkeys(name for name in named if name not in (*UNSCALED, "")))


def limits(run: RunSummary) -> dict[str, list[dict[str, Any]]]:
    """Where a metric is held against something, by metric: chance lines of the run, and cuts of the classes."""
    chance = run.chance
    if chance is None:
        return {}
    cut = [{"value": CUTS.mediated, "label": f"cut {CUTS.mediated:g}", "is_chance": False}]
    columns = {
        "null_fraction": [_line(chance.null_fraction)],
        "logit_var": [_line(chance.logit_var_low), _line(chance.logit_var_high)],
        "ln_mediated": cut,
        "freq_mediated": cut,
    }
    if chance.freq_alignment is not None:
        columns["freq_alignment"] = [_line(-chance.freq_alignment), _line(chance.freq_alignment)]
    return columns


def _line(value: float) -> dict[str, Any]:
    return {"value": value, "label": f"chance {number(value)}", "is_chance": True}


def drawable(data: NeuronColumns, view: View) -> tuple[list[int], str]:
    """The rows that a view can place, and how many it cannot and why, in a sentence or nothing."""
    needed = dict.fromkeys(name for name in (view.x, view.y, view.colour) if name not in UNSCALED)
    axes = {view.x: view.x_scale, view.y: view.y_scale}
    rows: list[int] = []
    missing, not_positive = dict.fromkeys(needed, 0), dict.fromkeys(axes, 0)
    for row in range(len(data.neuron)):
        values = {name: data.columns[name][row] for name in needed}
        lacks = next((name for name, value in values.items() if value is None), None)
        low = next((name for name, scale in axes.items() if scale == "log" and (values[name] or 0) <= 0), None)
        if lacks is not None:
            missing[lacks] += 1
        elif low is not None:
            not_positive[low] += 1
        else:
            rows.append(row)
    named = ({METRIC[name].label: number for name, number in counts.items()} for counts in (missing, not_positive))
    return rows, not_drawn(len(data.neuron), *named)


def class_marker(name: NeuronClass) -> dict[str, Any]:
    """How points of a class look."""
    is_plain = name == "plain"
    return {"color": CLASS_COLOURS[name], "size": 6 if is_plain else 9, "opacity": 0.55 if is_plain else 0.9}


def kit() -> dict[str, Any]:
    """Everything about a scatter but its points: layout, markers by class, the words for metrics."""
    axis = {"exponentformat": "power"}
    figure = blank(dragmode="pan", hovermode="closest", xaxis=axis, yaxis=axis, showlegend=False)
    # Room for the widest labels, so that axes are laid out once.
    figure.update_layout(margin_l=84, xaxis_automargin=False, yaxis_automargin=False)
    bar = {"title": {"side": "right"}, "thickness": 12, "outlinewidth": 0}
    return {
        "layout": figure.to_plotly_json()["layout"],
        "classes": [
            {
                "name": name,
                "label": CLASS_LABELS[name],
                "marker": class_marker(name),
            }
            for name in CLASS_ORDER
        ],
        "ring": {"symbol": "circle-open", "color": CLASS_COLOURS["entropy"], "size": 14, "line": {"width": 2}},
        "mark": {
            "label": PAPER_CRITERION_LABEL,
            "name": PAPER_CRITERION,
            "color": MARK_COLOUR,
            "other": CLASS_COLOURS["plain"],
        },
        "limit": {"color": LIMIT_COLOUR, "chance": "dash", "cut": "dot"},
        "coloraxis": {"colorscale": MAGNITUDE_SCALE, "colorbar": bar},
        "metrics": {
            metric.name: {"label": metric.label, "unit": metric.unit, "title": axis_title(metric.name)}
            for metric in METRICS
        },
    }
