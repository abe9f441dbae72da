"""Several figures as panels of one, to be kept: what a page shows below each other stands on one sheet."""

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from app.figures.theme import blank

_GUTTER = 0.09
"""Of the width, between panels; below each other they have a fixed room."""
_TOP, _BETWEEN, _BELOW = 90, 96, 52
_AXIS = (
    "title", "type", "range", "tickvals", "ticktext", "tickmode", "ticks", "ticksuffix", "rangemode", "exponentformat",
)  # fmt: skip


def panels(figures: Mapping[str, go.Figure], *, across: int = 2, height: int = 250) -> go.Figure:
    """Figures of one x and one y axis beside and below each other, under one legend.

    Args:
        figures: by what each is called.
        across: panels in a row, at most.
        height: of a panel without its axes, in pixels.
    """
    across = max(1, min(across, len(figures)))
    rows = math.ceil(len(figures) / across)
    inside = rows * height + (rows - 1) * _BETWEEN
    whole = blank(height=inside + _TOP + _BELOW, hovermode="closest", margin={"l": 64, "r": 16, "t": _TOP, "b": _BELOW})
    whole.update_layout(legend={"y": 1 + 42 / inside}, xaxis=None, yaxis=None)
    seen: set[str] = set()
    for place, (name, figure) in enumerate(figures.items()):
        number = "" if place == 0 else str(place + 1)
        row, column = divmod(place, across)
        width = (1 - _GUTTER * (across - 1)) / across
        left, top = column * (width + _GUTTER), 1 - row * (height + _BETWEEN) / inside
        _add_axes(whole, figure, number, (left, left + width), (max(0.0, top - height / inside), top))
        _add_traces(whole, figure, number, seen)
        _add_marks(whole, figure, number)
        whole.add_annotation(
            x=0, y=1, xref=f"x{number} domain", yref=f"y{number} domain", xanchor="left", yanchor="bottom", yshift=18,
            text=f"<b>{name}</b>", showarrow=False,
        )  # fmt: skip
    whole.update_layout(showlegend=bool(seen))
    return whole


def _add_axes(whole: go.Figure, figure: go.Figure, number: str, x: tuple[float, float], y: tuple[float, float]) -> None:
    layout = figure.layout.to_plotly_json()
    common = {"showline": True, "ticks": "outside", "ticklen": 4, "zeroline": False}
    across, up = (
        common | {name: axis[name] for name in _AXIS if name in axis}
        for axis in (layout.get("xaxis", {}), layout.get("yaxis", {}))
    )
    across |= {"domain": x, "anchor": f"y{number}"}
    up |= {"domain": y, "anchor": f"x{number}"}
    whole.update_layout({f"xaxis{number}": across, f"yaxis{number}": up})


def _add_traces(whole: go.Figure, figure: go.Figure, number: str, seen: set[str]) -> None:
    for trace in figure.data:
        fields: dict[str, Any] = trace.to_plotly_json()
        if fields["type"] == "scattergl":
            fields["type"] = "scatter"  # a picture of it needs no graphics card
        name = fields.get("name") or ""
        shown = bool(name) and name not in seen and fields.get("showlegend") is not False
        fields |= {"xaxis": f"x{number}", "yaxis": f"y{number}", "showlegend": shown, "legendgroup": name or None}
        if shown:
            seen.add(name)
        if "colorbar" in fields.get("marker", {}):
            fields["marker"] = fields["marker"] | {"showscale": not any(one.marker.showscale for one in whole.data)}
        whole.add_trace(fields)


def _add_marks(whole: go.Figure, figure: go.Figure, number: str) -> None:
    for shape in figure.layout.shapes:
        whole.add_shape(_renumbered(shape.to_plotly_json(), number))
    for note in figure.layout.annotations:
        whole.add_annotation(_renumbered(note.to_plotly_json(), number))


def _renumbered(mark: dict[str, Any], number: str) -> dict[str, Any]:
    """A line or a note with its places in another panel; those on the paper are on the panel."""
    for letter in ("x", "y"):
        ref = mark.get(f"{letter}ref", letter)
        on_panel = ref == "paper" or ref.endswith(" domain")
        mark[f"{letter}ref"] = f"{letter}{number} domain" if on_panel else f"{letter}{number}"
    return mark
