"""The induction page's figures, as pure functions of events."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from app.figures import induction as figures
from app.figures import induction_heads as head_figures
from app.figures import repeats
from app.figures.theme import CLASS_COLOURS, ENTROPY_COLOUR, LOSS_COLOUR, SERIES_COLOURS
from app.notation.units import layer_and_number
from app.pages.induction import views as induction_views
from backend import schemas
from tests.app import induction_sample as events
from tests.app import sample
from tests.app.pages import lines, text_of


def test_curves_are_the_events_numbers_with_the_boundary_between_the_occurrences() -> None:
    event = events.curves()
    figure = figures.curves(event)
    found = lines(figure)
    assert list(found) == ["loss", "entropy", *events.NEURONS]
    assert list(found["loss"].y) == event.loss.mean
    assert list(found["29.7"].y) == event.activations["29.7"].mean
    assert (found["loss"].line.color, found["entropy"].line.color) == (LOSS_COLOUR, ENTROPY_COLOUR)
    assert (found["loss"].line.dash, found["29.7"].line.dash) == (None, "dot"), "solid and dotted, as in the paper"
    assert (found["loss"].yaxis, found["29.7"].yaxis) == (None, "y2"), "activations have their own axis"
    assert figure.layout.shapes[0].x0 == events.SPAN - 0.5
    assert not {trace.line.color for trace in figure.data} & set(CLASS_COLOURS.values()), "classes keep their colours"


def test_a_curves_shade_is_its_standard_error_and_stops_where_nothing_is_defined() -> None:
    shades = [trace for trace in figures.curves(events.curves()).data if trace.fill == "toself"]
    size = 2 * events.SPAN
    assert len(shades) == 4
    assert len(shades[0].x) == 2 * (size - 1), "the last loss does not exist"
    assert shades[1].y[0] == pytest.approx(3.9)
    assert shades[1].y[-1] == pytest.approx(4.1)
    gap = schemas.Curve(mean=[1.0, 1.0, None, 2.0, 2.0, None], se=[0.5, None, None, 0.5, 0.5, None])
    figure = repeats.compact()
    repeats.add_curve(figure, repeats.RepeatPositions(3), gap, name="loss", line={"color": "#000000"})
    assert list(figure.data[0].x) == [0, 1, 1, 0, None, 3, 4, 4, 3]
    assert list(figure.data[0].y) == [0.5, 1.0, 1.0, 1.5, None, 1.5, 1.5, 2.5, 2.5], "no error: no width"


def test_occurrences_with_text_between_are_not_joined() -> None:
    found = lines(figures.curves(events.curves(span=6), apart=True))
    assert len(found["entropy"].y) == 13
    assert found["entropy"].y[6] is None
    assert found["entropy"].x[5] < found["entropy"].x[6] < found["entropy"].x[7]
    axis = figures.curves(events.curves(span=6), apart=True).layout.xaxis
    assert list(axis.ticktext) == [f"A{place}" for place in range(6)] * 2, "few positions are read one by one"
    long = figures.curves(events.curves(span=100)).layout.xaxis
    assert list(long.ticktext) == ["0", "20", "40", "60", "80"] * 2
    assert list(long.tickvals)[5:] == [100, 120, 140, 160, 180]


def test_b_and_x_follow_the_occurrences_as_in_figure_9a() -> None:
    event = events.curves(span=6, after=True)
    figure = figures.curves(event, apart=True)
    found = lines(figure)
    assert list(figure.layout.xaxis.ticktext) == [*(f"A{n}" for n in range(6)), "B", *(f"A{n}" for n in range(6)), "X"]
    ticks = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
    at = {ticks[x]: y for x, y in zip(found["entropy"].x, found["entropy"].y, strict=True) if x in ticks}
    assert (at["B"], at["X"]) == (5.5, 4.5)
    assert list(found["entropy"].y) == [*event.entropy.mean[:6], 5.5, None, *event.entropy.mean[6:], 4.5]
    assert list(found["loss"].y)[6:] == [6.0, None, *event.loss.mean[6:], None], "what is not known is left out"
    assert found["29.3"].y[-1] == 4.0
    assert figure.layout.shapes[0].x0 == found["entropy"].x[7]
    symbols = list(found["entropy"].marker.symbol)
    assert [n for n, symbol in enumerate(symbols) if symbol == "circle-open"] == [6, 14], "B and X are hollow"
    json.loads(figure.to_json())


def test_hovering_says_which_position_it_is() -> None:
    for event in (events.curves(span=6, after=True), events.curves(span=6)):
        told = figures.curves(event, apart=True).data[0]
        words = dict(zip(told.x, told.customdata, strict=True))
        assert (told.hovertemplate, told.showlegend, told.hoverinfo) == ("%{customdata}<extra></extra>", False, None)
        assert (words[0], words[8 if event.after else 7]) == ("A0, first occurrence", "A0, second occurrence")
        assert words.get(14) == ("X, after the second occurrence" if event.after else None)
        assert isinstance(told.customdata, tuple), "a typed array would not arrive"
    long = figures.curves(events.curves(span=100)).data[0]
    assert long.customdata[137] == "37, second occurrence"
    clipped = figures.clip_overview([events.clip(span=6, after=True)]).data[0]
    assert clipped.customdata[-2:] == ("A5, second occurrence", "X, after the second occurrence")
    assert figures.clip_curves(events.clip(span=6)).data[0].customdata[-1] == "A5, second occurrence"


def test_long_occurrences_have_room_for_b_and_x() -> None:
    for span, last in ((100, "80"), (43, "30"), (21, "10"), (26, "20"), (30, "20")):
        values, texts = repeats.RepeatPositions(span, apart=True, beyond=True).ticks()
        half = len(texts) // 2
        assert (texts[half - 2 : half], texts[-2:]) == ([last, "B"], [last, "X"])
        assert values[half - 1] == span
    assert repeats.RepeatPositions(20).ticks()[1] == ["0", "5", "10", "15"] * 2, (
        "half a page has no room for all twenty"
    )
    for span in range(repeats.FEW_POSITIONS + 1, 1000):
        assert len(repeats.RepeatPositions(span).ticks()[1]) <= 2 * repeats.FEW_POSITIONS
    assert repeats.RepeatPositions(21).ticks()[1] == ["0", "10", "20"] * 2, "without them nothing is left out"
    assert repeats.RepeatPositions(2, beyond=True).names == ["A0", "A1", "B", "A0", "A1", "X"]


def test_a_result_from_before_b_and_x_is_read_and_drawn_as_it_was() -> None:
    drawn: list[tuple[BaseModel, Callable[[Any], Any]]] = [
        (events.curves(span=6), figures.curves),
        (events.clip(span=6), figures.clip_curves),
    ]
    for event, draw in drawn:
        stored = json.loads(event.model_dump_json())
        assert stored.pop("after") is None
        read = type(event).model_validate(stored)
        assert read == event
        figure = draw(read)
        assert "B" not in figure.layout.xaxis.ticktext
        assert "X" not in figure.layout.xaxis.ticktext
    words = text_of(induction_views.curves(events.curves(span=6), apart=True))
    assert "B follows" not in words
    assert "B follows the first occurrence" in text_of(induction_views.curves(events.curves(after=True), apart=True))


def test_x_is_drawn_with_a_clipped_neuron_but_is_in_no_mean_over_the_repeat() -> None:
    with_x, without = events.clip(span=6, after=True), events.clip(span=6)
    assert figures.clip_totals(with_x) == figures.clip_totals(without)
    shares = list(lines(figures.clip_overview([with_x]))["29.7"].y)
    assert shares == pytest.approx([*[-50.0] * 6, -25.0])
    axis, plain = (figures.clip_overview([clip]).layout.xaxis for clip in (with_x, without))
    assert list(axis.ticktext) == [*(f"A{n}" for n in range(6)), "X"]
    assert (axis.title.text.endswith("; X after it"), "X" in plain.title.text) == (True, False)
    before_after = lines(figures.clip_curves(with_x))
    assert (before_after["loss before"].y[-1], before_after["loss clipped"].y[-1]) == (pytest.approx(2.8), 3.0)
    assert len(before_after["loss clipped"].y) == 7
    assert "X (hollow)" in text_of(induction_views.clips([with_x]))
    assert "X (hollow)" not in text_of(induction_views.clips([without]))


def test_sixteen_neurons_are_told_apart() -> None:
    styles = [figures.series(place) for place in range(schemas.MAX_INDUCTION_NEURONS)]
    assert len({(style["color"], style["dash"]) for style in styles}) == schemas.MAX_INDUCTION_NEURONS
    assert not set(SERIES_COLOURS) & set(CLASS_COLOURS.values())


def test_clipping_is_told_in_percent_of_what_was_there() -> None:
    clip = events.clip().model_copy(update={"totals": None})
    shares, errors = figures.percent_of_entropy(clip)
    assert shares == pytest.approx([-50.0] * events.SPAN)
    assert errors[0] == pytest.approx(100 * 0.1 / 1.0)
    totals = figures.clip_totals(clip)
    assert totals.entropy_before.value == pytest.approx(2 * (totals.entropy.value or 0))
    assert totals.loss_before.value == pytest.approx(1.0)
    assert totals.loss.value == pytest.approx(0.9)
    assert figures.largest_change(clip).value == pytest.approx(-50)
    figure = figures.clip_overview([clip, events.clip("29.3")])
    assert list(lines(figure)) == events.NEURONS
    assert list(lines(figure)["29.7"].y) == pytest.approx(shares)
    before_after = lines(figures.clip_curves(clip))
    assert before_after["entropy before"].y[0] == pytest.approx(1.0)
    assert before_after["entropy clipped"].y[0] == pytest.approx(0.5)
    assert {line.line.dash for name, line in before_after.items() if "before" in name} == {"dash"}


def test_errors_of_percentages_are_those_that_were_measured() -> None:
    """The entropy before has an error too: that of the change, divided by it, is not the percentage's."""
    clip = events.clip_with_errors()
    assert figures.percent_of_entropy(clip)[1] == [2.5] * events.SPAN
    assert figures.largest_change(clip).se == 2.5
    assert figures.clip_totals(clip).percent_entropy.se == 1.5
    assert clip.totals is not None
    nothing = clip.totals.model_copy(update={"entropy_before": schemas.Estimate(value=5e-4, se=1e-5)})
    gone = clip.model_copy(update={"totals": nothing})
    assert figures.clip_totals(gone).percent_entropy.value is None


def test_a_percentage_of_next_to_nothing_is_not_given() -> None:
    assert figures.percent_change(0.0005, 0.5) is None
    assert figures.percent_change(None, 0.5) is None
    nothing = dict.fromkeys(("entropy", "delta_entropy", "loss", "delta_loss"), events.curve([None, None]))
    gone = events.clip().model_copy(update=nothing | {"totals": None})
    assert figures.largest_change(gone).value is None
    assert figures.clip_totals(gone).entropy_before.value is None
    figures.clip_curves(gone)
    assert not figures.clip_overview([]).data


def test_tokens_are_points_of_initial_loss_and_its_change_and_hostile_ones_stay_text() -> None:
    clip = events.clip()
    points = figures.clip_scatter(clip).data[0]
    assert list(points.x) == [point.loss for point in clip.points]
    assert list(points.y) == [point.delta_loss for point in clip.points]
    assert list(points.marker.color) == [point.reciprocal_rank for point in clip.points]
    assert "<script>" not in "".join(points.text)


def test_all_neurons_by_index_and_by_null_space_in_their_classes_colours() -> None:
    event = events.change()
    alone = figures.change_scatter(event)
    assert len(alone.data[0].x) == sample.COUNT
    columns = sample.columns(["null_fraction"])
    groups = lines(figures.change_scatter(event, columns))
    assert groups["Entropy neurons"].marker.color == CLASS_COLOURS["entropy"]
    assert list(groups["Entropy neurons"].customdata) == ["29.7"]
    assert (groups["Entropy neurons"].x[0], groups["Entropy neurons"].y[0]) == (7, 3.0)
    figure = figures.change_scatter(event, columns, against="null_fraction")
    assert lines(figure)["Entropy neurons"].x[0] == columns.columns["null_fraction"][7]
    assert sum(len(trace.x) for trace in figure.data) == sample.COUNT - 1, "one has no null-space fraction"
    named = {note.text for note in figure.layout.annotations}
    assert {"29.7", "29.11"} <= named, "the largest, in both directions"
    assert "29.39: " in "".join(alone.data[0].text)


def test_the_map_of_heads_marks_who_is_knocked_out() -> None:
    event = events.heads()
    figure = head_figures.head_map(event, ["L0H3", "L99H0"])
    assert figure.data[0].z[3][1] == 0.9
    assert figure.data[0].text[3][1] == "prefix matching 0.900, attention to the first token 0.700"
    marks = {name: list(zip(trace.x, trace.y, strict=True)) for name, trace in lines(figure).items()}
    assert marks["knocked out"] == [(1, 3), (2, 4)]
    assert marks["baseline"] == [(0, 3)]
    assert marks["chosen for the next run"] == [(3, 0)], "a head that the model has not is left out"
    assert all(trace.hoverinfo == "skip" for trace in lines(figure).values()), "a click meets the cell, not its mark"
    json.loads(figure.to_json())
    with pytest.raises(ValueError, match="not a head"):
        layer_and_number("29.7")


def test_knocked_out_heads_are_coloured_and_baselines_grey() -> None:
    found = [one for one in events.knockouts() if one.how == "bos"]
    figure = head_figures.knockout_curves("29.7", found, events.curves().activations["29.7"])
    by_name = lines(figure)
    assert list(by_name) == ["L3H0", "L3H1", "L4H2", "L3H1 + L4H2", "all heads in place"], "grey ones lie under"
    assert by_name["L3H0"].line.color == repeats.BEHIND
    colours = [by_name[name].line.color for name in ("L3H1", "L4H2", "L3H1 + L4H2")]
    assert len(set(colours)) == 3
    assert by_name["L3H1 + L4H2"].y[-1] == pytest.approx(1.0)
    assert head_figures.second_mean(found[0].activations["29.7"]) == pytest.approx(1.25)
    assert not lines(head_figures.knockout_curves("29.9", found)), "a neuron that was not asked for"


def test_attribution_is_the_difference_with_mlps_right_of_the_dotted_line() -> None:
    event = events.attribution()
    figure = head_figures.attribution(event, "29.7")
    heads, others = figure.data
    size = events.LAYERS * events.HEADS
    assert list(heads.x) == list(range(size))
    assert heads.y[13] == pytest.approx(-0.5)
    assert heads.marker.color[13] == 0.9
    assert min(others.x) == size
    assert figure.layout.shapes[0].x0 == size - 0.5
    assert figure.layout.shapes[0].line.dash == "dot"
    named = [note.text for note in figure.layout.annotations]
    assert named == ["MLP 4", "L3H1"], "only those that stand out"
