"""What all figures share: colours that mean one thing everywhere, quiet axes, and room for the data.

Text and grid take their colour from the stylesheet, so that a figure follows the light or dark page without being
drawn again.
"""

from typing import Any

import plotly.graph_objects as go

from backend.glossary import METRIC, NeuronClass

CLASS_COLOURS: dict[NeuronClass, str] = {
    "entropy": "#D55E00",
    "token_frequency": "#009E73",
    "prediction": "#0072B2",
    "plain": "#9aa0a6",
}
MARK_COLOUR = "#8a5cc2"
"""Of neurons with the mark of the paper's own criterion: it is no class, so it is no class's colour."""
LIMIT_COLOUR = "#7d8794"
"""Of chance lines and cuts: read on light and on dark."""
TOTAL_COLOUR, DIRECT_COLOUR = "#D55E00", "#6f7f95"
LOSS_COLOUR, ENTROPY_COLOUR = "#7d8794", "#b98500"
SERIES_COLOURS = ("#aa4499", "#2f9585", "#cc6677", "#6e6bd0", "#8f8a2b", "#3f9bc7", "#9a6a3f", "#5f9e6e")
"""For neurons or heads beside each other in one figure: none is the colour of a class."""
MAGNITUDE_SCALE = "Cividis"
CHANGE_SCALE = [[0.0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f7f7f7"], [0.75, "#fdb863"], [1.0, "#b35806"]]

MOVING_BUTTONS = ["zoomIn2d", "zoomOut2d", "resetScale2d"]
GRAPH_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "responsive": True,
    # Those that are wanted are named: left to itself, Plotly adds one that uploads the figure, and later ones may too.
    "modeBarButtons": [["toImage"], ["zoom2d", "pan2d"], MOVING_BUTTONS],
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "toImageButtonOptions": {"format": "svg", "filename": "calibroscope"},
}
"""Of every figure, on the pages and in reports: nothing in it leads or sends anything to another machine."""


_TEMPLATE = go.layout.Template(layout={"colorway": list(CLASS_COLOURS.values()), "hovermode": "closest"})
"""Plotly's own has some two hundred parts, which Dash copies each time that a figure is drawn."""


def blank(**layout: Any) -> go.Figure:
    """An empty figure in the house style."""
    figure = go.Figure()
    figure.update_layout(
        template=_TEMPLATE,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 64, "r": 16, "t": 16, "b": 52},
        hoverlabel={"bgcolor": "#22262b", "font": {"color": "#f2f3f5", "size": 13}, "align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
        legend={"orientation": "h", "y": 1.06, "x": 0, "yanchor": "bottom"},
    )
    figure.update_layout(**layout)
    axis = {"showline": True, "ticks": "outside", "ticklen": 4, "zeroline": False, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def axis_title(metric: str) -> str:
    """A metric's label with its unit."""
    described = METRIC[metric]
    return f"{described.label} ({described.unit})" if described.unit else described.label
