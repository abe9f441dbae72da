"""Figures are pure: from an answer to what is drawn."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from app.figures import frequency, lab, neuron
from app.figures.presets import PRESETS, preset_of
from app.figures.scatter import View, kit
from app.figures.theme import CLASS_COLOURS
from backend.glossary import METRIC
from backend.schemas import Histogram, NeuronLogits, Spectrum, TokenWeight
from tests.app import sample


def test_the_kit_of_the_scatter_has_every_class_and_metric() -> None:
    parts = json.loads(json.dumps(kit()))
    assert {own["name"]: own["marker"]["color"] for own in parts["classes"]} == CLASS_COLOURS
    assert parts["classes"][0]["name"] == "plain", "the many are drawn first, under the few"
    assert set(parts["metrics"]) == set(METRIC)
    assert parts["metrics"]["total_effect"]["title"] == "Total effect TE (nats)"
    assert parts["layout"]["dragmode"] == "pan"
    assert parts["ring"]["color"] == CLASS_COLOURS["entropy"]


def test_no_figure_has_plotly_write_a_number_by_a_rule_of_its_own() -> None:
    texts = {path: path.read_text() for path in Path(frequency.__file__).parent.glob("*.py")}
    ruled = {f"{path.name}: {found}" for path, text in texts.items() for found in re.findall(r"%\{+\w+:[^}]*\}", text)}
    assert len(texts) > 5
    assert not ruled, "hover text is written by app.notation.numbers and handed over as text or customdata"


def test_presets_name_their_figures_and_say_in_two_sentences_what_to_look_for() -> None:
    figures = ["figure-1", "figure-2a", "figure-2e", "figure-3b", "figure-11"]
    assert [preset.name for preset in PRESETS] == [*figures, "paper-criterion"]
    for preset in PRESETS:
        assert preset.sentences.count(". ") == 1, preset.name
        assert preset_of(preset.view) is preset
    assert preset_of(View("total_effect", "weight_norm", "class")) is None


def test_boxes_have_the_quartiles_of_the_tokens() -> None:
    effects = sample.effects()
    total, direct = neuron.effect_boxes(effects).data
    assert total.median[0] == pytest.approx(np.median(np.abs(effects.delta_loss)))
    assert direct.q3[1] == pytest.approx(np.quantile(effects.background_frozen, 0.75))
    assert total.upperfence[0] <= max(np.abs(effects.delta_loss))


def test_figure_3a_plots_the_distance_by_entropy_and_keeps_tokens_text() -> None:
    data = sample.positions()
    points = frequency.divergence_scatter(data).data[0]
    assert (list(points.x), list(points.y)) == (data.entropy, data.kl)
    assert list(points.marker.color[:3]) == [1, 0.5, 0.25]
    assert all("<script" not in text and "loss 1.000 nats" in text for text in points.text)


def test_both_classes_of_figure_3b_are_marked_and_named() -> None:
    preset = PRESETS[3]
    assert (preset.label, preset.view.colour) == ("Figures 3b, 8", "class")
    assert "entropy neurons" in preset.sentences
    assert "token-frequency neurons" in preset.sentences
    shown = {own["name"]: own["marker"]["size"] for own in kit()["classes"]}
    assert shown["entropy"] == shown["token_frequency"] > shown["plain"]


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
