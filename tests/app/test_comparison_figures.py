"""A metric against itself, and its distribution in two runs: what is drawn, where, and what is said to be left out."""

import numpy as np
import pytest

from app.figures.comparison import PairedMetric, against_itself, cumulative
from app.figures.scales import Scale, placed, threshold
from app.figures.theme import CLASS_COLOURS
from backend.glossary import NeuronClass
from tests.app import sample

A: list[float | None] = [0.1, 0.2, None, -0.3, 1.0]
B: list[float | None] = [0.2, 0.1, 0.5, 0.4, 2.0]
NAMES = [f"29.{n}" for n in range(5)]
FIRST: list[NeuronClass] = ["plain", "plain", "plain", "plain", "entropy"]
SECOND: list[NeuronClass] = ["plain", "prediction", "plain", "plain", "entropy"]
PAIRED = PairedMetric(
    "delta_loss", ("run 1", "<i>run 2"), NAMES, (FIRST, SECOND), A, B, [0.01, None, 0.1, 0.1, 0.2], [0.1] * 5
)


def test_a_point_is_a_neuron_and_classes_that_differ_have_an_outline() -> None:
    figure, note = against_itself(PAIRED, "linear")
    line, plain, entropy = figure.data
    assert (list(line.x), list(line.y)) == ([-0.3, 2.0], [-0.3, 2.0]), "equal in both"
    assert list(plain.customdata) == ["29.0", "29.1", "29.3"]
    assert (plain.x[1], plain.y[1]) == (0.2, 0.1)
    assert list(plain.marker.line.width) == [0, 2.5, 0]
    assert plain.marker.line.color[1] == CLASS_COLOURS["prediction"]
    assert entropy.marker.color == CLASS_COLOURS["entropy"]
    assert plain.error_x.array is None
    assert "run 1: 0.100 ± 0.010 nats" in plain.text[0]
    assert "&lt;i&gt;run 2: 0.20 ± 0.10" in plain.text[0], "a model's name is no markup"
    assert figure.layout.yaxis.title.text.endswith("&lt;i&gt;run 2")
    assert "Plain neuron → Prediction neuron" in plain.text[1]
    assert note.startswith("1 of 5 is not drawn: 1 has no value of")


@pytest.mark.parametrize("scale", ["linear", "log", "signed"])
def test_errors_reach_as_far_on_every_scale(scale: Scale) -> None:
    figure, note = against_itself(PAIRED, scale, bars=True, marked=["29.4", "29.99"])
    chosen = figure.data[-1]
    assert (list(chosen.customdata), list(chosen.text)) == (["29.4"], ["29.4"])
    within = threshold([*A, *B])
    place = (lambda value: placed(value, within)) if scale == "signed" else float
    assert chosen.error_x.array[0] == pytest.approx(place(1.2) - place(1.0))
    assert chosen.error_x.arrayminus[0] == pytest.approx(place(1.0) - place(0.8))
    plain = figure.data[1]
    assert plain.error_x.array[1] == 0, "what has no error has no bar"
    assert ("29.3" in plain.customdata) == (scale != "log")
    assert ("logarithmic axis cannot show" in note) == (scale == "log")
    assert ("logarithmic beyond" in note) == (scale == "signed")
    if scale == "log":
        low = figure.data[1].error_y
        assert all(down < value for down, value in zip(low.arrayminus, figure.data[1].y, strict=True))


def test_columns_of_two_runs_are_paired_by_index() -> None:
    names = ["total_effect", "total_effect_se"]
    paired = PairedMetric.of("total_effect", ("a", "b"), sample.columns(names), sample.columns(names[:1]))
    assert len(paired.neurons) == sample.COUNT
    assert paired.a_errors is not None
    assert paired.b_errors is None
    figure, _ = against_itself(paired, "log", bars=True)
    assert figure.data[1].error_x.array is None


def test_nothing_to_draw_is_an_empty_figure() -> None:
    figure, note = against_itself(PairedMetric("delta_loss", ("a", "b"), NAMES, (FIRST, FIRST), [None] * 5, B), "log")
    assert len(figure.data) == 0
    assert note.startswith("5 of 5 are not drawn")


def test_a_distribution_says_how_many_lie_at_or_below_each_value() -> None:
    rng = np.random.default_rng(0)
    many = rng.normal(size=3000).tolist()
    figure = cumulative("delta_loss", "linear", {"few": A, "many": many})
    few, all_of_many = figure.data
    assert list(few.x) == [-0.3, 0.1, 0.2, 1.0]
    assert list(few.y) == [25, 50, 75, 100]
    assert few.text[1] == "50.0 % of neurons at or below 0.100 nats"
    assert len(all_of_many.x) == 400
    for x, y in zip(all_of_many.x[::37], all_of_many.y[::37], strict=True):
        assert y == pytest.approx(100 * np.mean(np.array(many) <= x), abs=1e-9)
    logarithmic = cumulative("delta_loss", "log", {"few": A}).data[0]
    assert list(logarithmic.x) == [0.1, 0.2, 1.0]
    assert list(logarithmic.y) == [50, 75, 100], "what a logarithmic axis cannot show is below all that it shows"
    assert few.line.dash != all_of_many.line.dash, "they are told apart without colour"
