"""Several figures in one, for a report."""

import plotly.graph_objects as go
import pytest

from app.figures import induction as figures
from app.figures import repeats
from app.figures.panels import panels
from tests.app import induction_sample as events


def _lines(*names: str) -> go.Figure:
    figure = repeats.compact()
    for place, name in enumerate(names):
        figure.add_trace(go.Scatter(x=[0, 1], y=[place, 1], name=name, mode="lines"))
    figure.update_yaxes(title_text="activation", range=[0, 7])
    return repeats.over_both(figure, repeats.RepeatPositions(4))


def test_panels_keep_axes_marks_and_one_legend() -> None:
    whole = panels({"a": _lines("one", "two"), "b": _lines("one", "three"), "c": _lines("two")})
    assert [(trace.name, trace.xaxis, trace.showlegend) for trace in whole.data] == [
        ("one", "x", True), ("two", "x", True), ("one", "x2", False), ("three", "x2", True), ("two", "x3", False),
    ]  # fmt: skip
    assert {shape.xref for shape in whole.layout.shapes} == {"x", "x2", "x3"}
    assert {shape.yref for shape in whole.layout.shapes} == {"y domain", "y2 domain", "y3 domain"}
    titles = [note for note in whole.layout.annotations if note.text.startswith("<b>")]
    assert [note.text for note in titles] == ["<b>a</b>", "<b>b</b>", "<b>c</b>"]
    assert whole.layout.yaxis3.title.text == "activation"
    assert whole.layout.yaxis3.range == (0, 7)
    assert whole.layout.xaxis2.domain[0] > whole.layout.xaxis.domain[1]
    assert whole.layout.yaxis3.domain[1] < whole.layout.yaxis.domain[0]
    assert whole.layout.yaxis.domain[1] == 1
    assert whole.layout.yaxis3.domain[0] == pytest.approx(0)


def test_panels_need_no_graphics_card_and_have_one_colour_bar() -> None:
    points = figures.change_scatter(events.change())
    bars = figures.clip_scatter(events.clip())
    whole = panels({"a": points, "b": bars, "c": bars})
    assert {trace.type for trace in whole.data} == {"scatter"}
    shown = [trace.marker.showscale for trace in whole.data if trace.marker.colorbar.title.text]
    assert shown == [True, False]
    alone = panels({"a": bars})
    assert alone.data[0].marker.showscale is True
    assert alone.layout.showlegend is False
