"""The neuron page: its figures, what it says of neighbours and contexts, and what it does when the service refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dash import no_update

from app.components.run_card import run_card
from app.figures import neuron as figures
from app.pages.neuron import page as neuron
from app.pages.neuron import views as neuron_views
from backend import schemas
from backend.client import ApiError, Call
from tests.app import sample
from tests.app.pages import Service, text_of

pytestmark = pytest.mark.anyio


SHOWN = {"run": 1, "neuron": "29.7"}


def test_figure_4a_plots_clip_ablation_and_says_so() -> None:
    effects = sample.effects().model_copy(update={"rank_before": [1, 2, *[4] * 28]})
    figure = figures.loss_scatter(effects)
    assert list(figure.data[0].y) == effects.clip_delta_loss
    assert list(figure.data[0].x) == effects.loss_before
    assert list(figure.data[0].marker.color[:3]) == [1, 0.5, 0.25]
    assert "clip" in figure.layout.yaxis.title.text
    touched = sum(change != 0 for change in effects.clip_delta_loss or [])
    assert 0 < touched < 30
    assert f"{touched} tokens are above" in neuron_views._scatter_note(effects)


def test_figure_4a_of_an_earlier_layer_is_mean_ablation_and_says_so() -> None:
    effects = sample.effects().model_copy(update={"clip_delta_loss": None})
    figure = figures.loss_scatter(effects)
    assert list(figure.data[0].y) == effects.delta_loss
    assert "mean ablation" in figure.layout.yaxis.title.text
    assert "mean ablation" in neuron_views._scatter_note(effects)


def test_hostile_tokens_stay_text_in_figure_4a() -> None:
    effects = sample.effects().model_copy(update={"tokens": ["<b>x</b>"] * 30})
    assert all("<b>" not in text for text in figures.loss_scatter(effects).data[0].text)


def test_the_histogram_has_a_threshold_that_the_page_can_find() -> None:
    data = sample.histogram()
    figure = figures.histogram(data, 4)
    found = [shape for shape in figure.layout.shapes if shape.name == "threshold"]
    assert [(shape.x0, shape.x1) for shape in found] == [(data.edges[4], data.edges[4])]
    assert not [shape for shape in figures.histogram(data).layout.shapes if shape.name == "threshold"]


@pytest.mark.parametrize(
    ("counts", "place"), [([90, 6, 3, 1], 2), ([95, 5], 1), ([1], 1), ([0, 0, 100], 3), ([0], 0), ([96, 0, 4], 1)]
)
def test_the_threshold_starts_where_a_twentieth_is_at_or_above_it(counts: list[int], place: int) -> None:
    assert neuron_views.starting_threshold(counts) == place
    assert sum(counts[place:]) <= sum(counts) / 20


async def _body(**answers: Callable[[Call[Any]], Any]) -> str:
    return text_of(await neuron._body(Service(**answers), sample.detail()))


async def test_similar_neurons_are_links_with_both_numbers() -> None:
    body = await neuron._body(Service(similar=lambda _: sample.similar()), sample.detail())
    assert "/m/tiny/n/29/3?run=1" in str(body)
    words = text_of(body)
    for word in ("29.5", "Prediction neuron", "0.875", "−0.375", "−0.250", "30 sampled positions"):
        assert word in words


async def test_what_is_not_known_of_similar_neurons_is_said() -> None:
    older = sample.similar(by_weights=None, weights_missing="Made before neighbours were kept.")
    words = await _body(similar=lambda _: older)
    assert "Made before neighbours were kept." in words
    assert "Similar in when they fire" in words
    survey = sample.similar(by_activations=None, activations_missing="It is a survey.", positions=0)
    assert "It is a survey." in await _body(similar=lambda _: survey)


async def test_a_run_without_frequency_metrics_says_so() -> None:
    known = {"effects": lambda _: sample.effects()}
    words = await _body(**known)
    assert words.count("This run has no frequency metrics") == 2
    words = await _body(effects=lambda _: sample.frequency_effects())
    assert "no frequency metrics" not in words
    assert "Figure 4c, at 30 sampled tokens" in words
    assert "Figure 3c, at 30 sampled tokens" in words
    assert "promotes common tokens and suppresses rare ones while its activation is positive" in words
    assert "is +0.250." in words, "the cosine itself"


async def test_figure_3c_says_where_the_frequencies_come_from() -> None:
    service = Service(effects=lambda _: sample.frequency_effects())
    detail = sample.detail(config={"frequency_source": "token counts in <b>words</b>.npy"})
    body = await neuron._body(service, detail)
    assert "token counts in <b>words</b>.npy." in text_of(body), "as text"
    assert "/frequency?model=tiny&run=1" in str(body)


@pytest.mark.parametrize(
    ("cosine", "words"),
    [
        (0.31, "promotes common tokens and suppresses rare ones"),
        (-0.31, "suppresses common tokens and promotes rare ones"),
        (0.02, "hardly tells common tokens from rare ones"),
        (-0.02, "hardly tells common tokens from rare ones"),
    ],
)
def test_the_sign_of_the_projection_is_told_in_words(cosine: float, words: str) -> None:
    said = neuron_views.frequency_words(cosine)
    assert said is not None
    assert words in said
    assert f"{abs(cosine):.2f}" in said
    assert ("−" in said) == (cosine < 0)
    assert neuron_views.frequency_words(None) is None


def test_figure_3c_has_the_quartiles_of_the_tokens() -> None:
    effects = sample.frequency_effects()
    assert effects.delta_loss_freq is not None
    assert effects.background_freq is not None
    total, held = figures.frequency_boxes(effects).data
    assert total.median[0] == pytest.approx(np.median(np.abs(effects.delta_loss)))
    assert held.median[0] == pytest.approx(np.median(np.abs(effects.delta_loss_freq)))
    assert held.q1[1] == pytest.approx(np.quantile(effects.background_freq, 0.25))
    assert (held.name, held.marker.color) == ("Direct effect (frequency held)", "#009E73")


async def test_clip_is_offered_in_every_layer() -> None:
    contexts = {"contexts": lambda _: sample.contexts()}
    earlier = sample.effects().model_copy(update={"clip_delta_loss": None})
    assert "clip at mean" in str(await neuron._body(Service(**contexts), sample.detail()))
    body = await neuron._body(Service(**contexts, effects=lambda _: earlier), sample.detail())
    assert "clip at mean" in str(body)
    assert "set to 0" in str(body)


async def test_a_context_without_the_neuron_shows_losses_and_their_change() -> None:
    asked: list[Call[Any]] = []

    def ablate(call: Call[Any]) -> Any:
        asked.append(call)
        return sample.context_ablation()

    drawn = await neuron._without(Service(ablate=ablate), 1, "clip", 5, SHOWN)
    assert asked[0].path == "/runs/1/neurons/29.7/contexts/5/ablate"
    assert asked[0].body == schemas.ContextAblateRequest(kind="clip")
    words = text_of(drawn)
    for word in ("Loss with the neuron", "Loss without it", "Change of loss", "Change of entropy", "clip at mean",
                 "2 of 10 activations change", "+0.400 nats", "mean over words"):  # fmt: skip
        assert word in words
    assert "+0.100 nats" in str(drawn), "the direct part is in the tooltips"
    assert "have changed since" not in words


async def test_a_context_that_was_not_asked_for_stays_closed_and_a_second_click_closes_it() -> None:
    service = Service(ablate=lambda _: sample.context_ablation())
    assert await neuron._without(service, None, "mean", 5, SHOWN) is no_update
    assert await neuron._without(service, 2, "mean", 5, SHOWN) is None
    assert service.asked == []


async def test_a_refused_ablation_and_changed_weights_are_said() -> None:
    assert "nothing at" in text_of(await neuron._without(Service(), 1, "mean", 5, SHOWN))
    words = text_of(neuron_views.ablated_context(sample.context_ablation(disagreement=0.5)))
    assert "0.500 nats" in words
    assert "have changed since" in words


def _runs(*runs: schemas.RunSummary) -> Service:
    return Service(runs=lambda _: schemas.RunList(runs=list(runs)))


async def test_the_page_opens_the_newest_finished_run_of_the_neurons_layer() -> None:
    runs = (
        sample.run(id=9, layer=29),
        sample.run(id=8, layer=5, status="running"),
        sample.run(id=7, layer=5),
        sample.run(id=6, layer=5),
    )
    assert await neuron._run_of(_runs(*runs), "tiny", "5.3") == 7
    assert await neuron._run_of(_runs(*runs[:2]), "tiny", "5.3") == 8
    assert await neuron._run_of(_runs(*runs), "tiny", "11.3") == 9, "which then says what it measures"
    with pytest.raises(ApiError, match="no run of a model"):
        await neuron._run_of(_runs(), "tiny", "5.3")


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (40, "± is one standard error, taken over 40 groups of whole sequences"),
        (1, "There is no ±: the run has one sequence"),
        (None, "as if the tokens of a sequence were independent. They are not"),
    ],
)
def test_what_errors_are_stands_where_the_first_is(groups: int | None, words: str) -> None:
    shown = str(neuron_views.head(sample.detail(error_groups=groups)))
    assert words in shown
    assert shown.index("It has its reasons.") < shown.index("/glossary#standard-error") < shown.index("Try it")


def test_a_run_that_has_just_begun_is_not_said_to_have_wrong_errors() -> None:
    """Nothing that has an error is measured yet: its groups are not known, as those of a run made before are not."""
    begun = sample.detail(error_groups=None, status="running", stage="weights")
    assert "plus-minus" not in str(neuron_views.head(begun))
    assert "none yet" in str(run_card(begun.run))
