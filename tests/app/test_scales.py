"""Scales of an axis: what a logarithm cannot show is counted and said, and a signed one shows it."""

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.figures.scales import not_drawn, placed, threshold, tick_label, ticks, zero_values
from app.figures.scatter import View, drawable
from app.pages.atlas.recipe import Scene, recipe
from app.pages.atlas.state import read
from backend.glossary import CLASS_LABELS
from tests.app import sample

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_a_signed_logarithm_keeps_order_sign_and_zero(values: list[float]) -> None:
    within = threshold(values)
    stands = [placed(value, within) for value in sorted(values)]
    assert stands == sorted(stands)
    assert all(math.copysign(1, a) == math.copysign(1, b) for a, b in zip(sorted(values), stands, strict=True) if a)
    assert placed(0.0, within) == 0


def test_it_is_linear_near_zero_and_logarithmic_far_from_it() -> None:
    assert placed(1e-3, 1.0) / placed(5e-4, 1.0) == pytest.approx(2, rel=1e-3)
    assert placed(1e6, 1.0) - placed(1e5, 1.0) == pytest.approx(1, rel=1e-3)


@given(st.lists(st.one_of(st.none(), NUMBERS), max_size=30))
def test_ticks_are_within_the_data_and_few(values: list[float | None]) -> None:
    found = ticks(values, threshold(values))
    known = [value for value in values if value is not None]
    assert 0.0 in found
    assert found == sorted(found)
    assert len(found) <= 13
    reach = 1 + 1e-9  # a power of ten that the data reaches may be rounded up
    assert all(reach * min([0.0, *known]) <= tick <= reach * max([0.0, *known]) for tick in found)


@pytest.mark.parametrize(
    ("value", "words"), [(0.0, "0"), (0.001, "10<sup>−3</sup>"), (-10.0, "−10<sup>1</sup>"), (1.0, "10<sup>0</sup>")]
)
def test_a_tick_is_named_by_its_power(value: float, words: str) -> None:
    assert tick_label(value) == words


@pytest.mark.parametrize("scale", ["linear", "log", "signed"])
def test_what_a_view_leaves_out_is_counted_by_its_reason(scale: Any) -> None:
    """The sample has a neuron without a value and one with a 0; two more are given values below 0."""
    view = View("null_fraction", "ln_mediated", "class", y_scale=scale)
    data = sample.columns(view.metrics())
    column = data.columns["ln_mediated"]
    column[0], column[1] = -0.5, -0.25
    lacking = sum(any(data.columns[name][row] is None for name in (view.x, view.y)) for row in range(len(column)))
    low = sum(value is not None and value <= 0 for value in column)
    assert lacking > 0
    assert low >= 2
    rows, words = drawable(data, view)
    left = lacking + (low if scale == "log" else 0)
    assert len(rows) == len(column) - left
    assert words.startswith(f"{left} of {len(column)} ")
    assert ("cannot show" in words) == (scale == "log")
    assert ("± log or linear" in words) == (scale == "log")


def test_nothing_is_said_where_all_is_drawn() -> None:
    assert not_drawn(5, {"a": 0}, {"b": 0}) == ""
    assert not_drawn(1536, {}, {"Change of loss": 610}) == (
        "610 of 1,536 are not drawn: 610 have a value of 0 or below in Change of loss, which a logarithmic axis cannot "
        "show. Choose the scale ± log or linear to see them."
    )


def test_singular_values_that_a_log_axis_leaves_out_are_counted() -> None:
    assert zero_values([2.0, 1.0]) == ""
    assert zero_values([2.0, 0.0]).startswith(" 1 of 2 is not drawn: 1 has a value of 0 or below")
    assert "Choose" not in zero_values([2.0, 0.0])


@pytest.mark.parametrize(
    ("address", "scales"),
    [
        ({"xscale": "signed", "yscale": "log"}, ("signed", "log")),
        ({"logs": "y"}, ("linear", "log")),
        ({"logs": "xy", "xscale": "linear"}, ("linear", "log")),
        ({"xscale": "<b>"}, ("linear", "linear")),
    ],
)
def test_scales_are_in_the_address(address: dict[str, str], scales: tuple[str, str]) -> None:
    view = read(x="total_effect", y="null_fraction", **address).view
    assert (view.x_scale, view.y_scale) == scales


def test_python_of_a_view_places_points_as_the_page_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view = View("ln_mediated", "total_effect", "class", x_scale="signed", y_scale="log")
    data = sample.columns(view.metrics())
    data.columns["ln_mediated"][0] = -0.5

    class Answering:
        def __init__(self, _: str) -> None: ...
        def __enter__(self) -> "Answering":
            return self

        def __exit__(self, *_: object) -> None: ...
        def send(self, _: object) -> Any:
            return data

    monkeypatch.setattr("backend.client.Client", Answering)
    written = tmp_path / "view.py"
    written.write_text(recipe(Scene("tiny", 1, view, list(CLASS_LABELS)), "http://127.0.0.1:1"))
    figure = runpy.run_path(str(written))["figure"]
    drawn = {name: x for trace in figure.data for name, x in zip(trace.text, trace.x, strict=True)}
    rows, _ = drawable(data, view)
    column = data.columns["ln_mediated"]
    within = threshold([column[row] for row in rows])
    assert drawn == {data.neuron[row]: pytest.approx(placed(column[row] or 0.0, within)) for row in rows}
    assert figure.layout.yaxis.type == "log"
