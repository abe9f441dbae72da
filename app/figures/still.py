"""Figures as the paper has them, to be kept: several neurons in one; scatters that need no browser to place them."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from app.figures.scatter import UNSCALED, View, drawable, kit
from app.figures.theme import DIRECT_COLOUR, TOTAL_COLOUR, axis_title, blank
from app.notation.numbers import number
from app.notation.tokens import label
from backend.schemas import ContextAblation, NeuronColumns

_BEHIND = "#9aa0a6"


def kept(figure: go.Figure, height: int = 460) -> go.Figure:
    """A figure on white with a visible grid: away from the dashboard no stylesheet colours it."""
    figure.update_layout(
        template="plotly_white", paper_bgcolor="#ffffff", plot_bgcolor="#ffffff", font_color="#1d2126", width=None,
        height=height,
    )  # fmt: skip
    axis = {"linecolor": "#5b636d", "tickcolor": "#5b636d", "gridcolor": "#dfe3e8"}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def neuron_scatter(data: NeuronColumns, view: View) -> go.Figure:
    """All neurons of a run by two metrics, coloured by class or by a third (Figures 1, 2a, 2e, 3b)."""
    figure = blank(hovermode="closest")
    coloured = view.colour not in UNSCALED
    every, _ = drawable(data, view)
    for neuron_class in kit()["classes"]:
        rows = [row for row in every if data.neuron_class[row] == neuron_class["name"]]
        marker = dict(neuron_class["marker"])
        if coloured:
            marker |= {
                "color": [data.columns[view.colour][row] for row in rows],
                "coloraxis": "coloraxis",
                "opacity": 0.85,
            }
            marker["symbol"] = {"entropy": "diamond", "token_frequency": "square"}.get(neuron_class["name"], "circle")
        figure.add_trace(
            go.Scatter(
                x=[data.columns[view.x][row] for row in rows],
                y=[data.columns[view.y][row] for row in rows],
                text=[data.neuron[row] for row in rows],
                customdata=[
                    f"{number(data.columns[view.x][row])}, {number(data.columns[view.y][row])}" for row in rows
                ],
                mode="markers",
                marker=marker,
                name=f"{neuron_class['label']}s",
                hovertemplate="%{text}<br>%{customdata}<extra></extra>",
            )
        )
    # No preset of the paper's figures has a signed scale.
    types = ["log" if scale == "log" else "linear" for scale in (view.x_scale, view.y_scale)]
    figure.update_xaxes(title_text=axis_title(view.x), type=types[0], exponentformat="power")
    if types[0] == "log":  # on a telephone the 2 after 10⁻³ would touch it, and the two would read as 10⁻³²
        figure.update_xaxes(nticks=3, minor={"ticks": "outside", "ticklen": 3})
    figure.update_yaxes(title_text=axis_title(view.y), type=types[1], exponentformat="power")
    if coloured:
        bar = {"title": {"text": axis_title(view.colour), "side": "right"}, "thickness": 12}
        figure.update_layout(coloraxis={**kit()["coloraxis"], "colorbar": bar})
    return figure


def many_boxes(groups: Mapping[str, tuple[Sequence[float], Sequence[float]]], direct: str, colour: str) -> go.Figure:
    """Figures 2c and 3c: per-token |change of loss| of several neurons, total against direct, without outliers.

    Args:
        groups: by neuron, or for the random ones together: total and direct values.
        direct: what the direct effect is called.
    """
    figure = blank(boxmode="group")
    for place, (name, shade) in enumerate((("Total effect", TOTAL_COLOUR), (direct, colour))):
        quartiles = [np.quantile(np.abs(values[place]), (0.25, 0.5, 0.75)).tolist() for values in groups.values()]
        low, middle, high = (list(column) for column in zip(*quartiles, strict=True))
        figure.add_trace(
            # The paper's whiskers are the quartiles.
            go.Box(x=list(groups), q1=low, median=middle, q3=high, lowerfence=low, upperfence=high, name=name,
                   marker={"color": shade}, line={"width": 1.5})
        )  # fmt: skip
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text="|change of loss| (nats)", rangemode="tozero")
    return figure


def context_lines(data: ContextAblation) -> go.Figure:
    """Figure 4b: one text, token by token: the neuron's activation, and the loss with and without it.

    A loss stands at the token that is predicted, an activation where it was before that.
    """
    size = len(data.tokens)
    names = [label(token, 12) for token in data.tokens]
    figure = blank(margin={"l": 64, "r": 64, "t": 16, "b": 110})
    figure.add_trace(
        go.Bar(x=list(range(size)), y=data.activations_before, name="activation", yaxis="y2",
               marker={"color": "#d9d9d9"}, hovertext=names)
    )  # fmt: skip
    lines = (
        ("loss with the neuron", data.loss_before, DIRECT_COLOUR),
        ("loss without it", data.loss_after, TOTAL_COLOUR),
    )
    for (name, losses, colour), width in zip(lines, (5, 1.5), strict=True):  # the one must show under the other
        figure.add_trace(
            go.Scatter(x=list(range(size)), y=losses, name=name, mode="lines+markers",
                       line={"color": colour, "width": width}, marker={"size": 4}, hovertext=names)
        )  # fmt: skip
    figure.update_xaxes(tickvals=list(range(size)), ticktext=names, tickangle=-90, tickfont={"size": 9})
    right = {
        "overlaying": "y",
        "side": "right",
        "title": {"text": f"activation of {data.neuron}"},
        "showgrid": False,
        "tickmode": "auto",
    }
    figure.update_layout(yaxis={"title": {"text": "loss (nats)"}}, yaxis2=right)
    return figure
