"""Figures are pure: from an answer to what is drawn."""

import json

import numpy as np
import plotly.io as pio
import pytest

from app.figures import lab, neuron
from app.figures.presets import PRESETS
from app.figures.scatter import View, scatter
from app.figures.theme import CLASS_COLOURS
from backend.schemas import Histogram, NeuronLogits, Spectrum, TokenWeight
from tests.app import sample


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_draws_every_measured_neuron_once(preset: object) -> None:
    view = preset.view  # type: ignore[attr-defined]
    figure = scatter(sample.columns(view.columns()), view)
    drawn = [name for trace in figure.data if trace.marker.symbol != "circle-open" for name in trace.customdata]
    missing = {"29.9"} | ({"29.11"} if view.x_log or view.y_log else set())
    assert sorted(drawn) == sorted({f"29.{i}" for i in range(sample.COUNT)} - missing)


def test_a_clicked_point_knows_its_neuron_in_the_browser() -> None:
    """The page reads customdata from the figure's JSON: it must be a plain list there."""
    figure = scatter(sample.columns(["weight_norm", "logit_var"]), View("weight_norm", "logit_var", "class"))
    for trace in json.loads(pio.to_json(figure))["data"]:
        assert isinstance(trace["customdata"], list)
        assert all(name.startswith("29.") for name in trace["customdata"])


def test_classes_have_their_colours_and_counts() -> None:
    figure = scatter(
        sample.columns(["weight_norm", "logit_var"]), View("weight_norm", "logit_var", "class", y_log=True)
    )
    colours = {trace.name.split(" ")[0]: trace.marker.color for trace in figure.data}
    assert colours["Entropy"] == CLASS_COLOURS["entropy"]
    assert any(trace.name == "Entropy neurons (1)" for trace in figure.data)
    assert figure.layout.yaxis.type == "log"


def test_hover_tells_value_error_and_unit() -> None:
    view = View("total_effect", "ln_mediated", "class")
    figure = scatter(sample.columns(view.columns()), view)
    assert any("±" in text and "nats" in text for text in figure.data[-1].text)


def test_entropy_neurons_are_ringed_when_colour_means_a_metric() -> None:
    view = PRESETS[2].view
    rings = scatter(sample.columns(view.columns()), view).data[-1]
    assert rings.customdata == ("29.7",)
    assert rings.marker.symbol == "circle-open"


def test_nothing_measured_is_an_empty_figure() -> None:
    view = PRESETS[0].view
    figure = scatter(sample.columns(view.columns(), measured=False), view)
    assert sum(len(trace.x or ()) for trace in figure.data) == 0


def test_boxes_have_the_quartiles_of_the_tokens() -> None:
    effects = sample.effects()
    total, direct = neuron.effect_boxes(effects).data
    assert total.median[0] == pytest.approx(np.median(np.abs(effects.delta_loss)))
    assert direct.q3[1] == pytest.approx(np.quantile(effects.background_frozen, 0.75))
    assert total.upperfence[0] <= max(np.abs(effects.delta_loss))


def test_the_spectrum_shades_the_null_space() -> None:
    data = Spectrum(singular_values=[9, 5, 2, 0.1], null_dim=2, neuron="29.7", cosines=[0.1, 0.1, 0.2, 0.9])
    figure = neuron.spectrum(data)
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (1.5, 3.5)
    assert list(figure.data[1].y) == [0.1, 0.1, 0.2, 0.9]
    assert figure.layout.yaxis.type == "log"


def test_the_histogram_marks_the_mean() -> None:
    figure = neuron.histogram(Histogram(neuron="29.7", edges=[0, 1, 2], counts=[3, 1], mean=0.6))
    assert figure.layout.shapes[0].x0 == 0.6
    assert list(figure.data[0].y) == [3, 1]


def test_markup_in_tokens_stays_text() -> None:
    hostile = [TokenWeight(token_id=0, token='<a href="javascript:x">', value=1.0)]
    figure = neuron.token_bars(NeuronLogits(neuron="29.7", top=hostile, bottom=[]))
    bars = lab.prediction_bars({"before": sample.trace().predictions[1]}, sample.TOKENS[2])
    for text in (*figure.layout.yaxis.ticktext, *bars.layout.yaxis.ticktext):
        assert "<" not in text


def test_prediction_bars_keep_the_first_states_order_and_mark_what_came() -> None:
    top = sample.trace().predictions[1]
    figure = lab.prediction_bars({"before": top, "after": top[::-1]}, top[1].token)
    assert [trace.name for trace in figure.data] == ["after", "before"]
    assert "came next" in figure.layout.yaxis.ticktext[-2]
