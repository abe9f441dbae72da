"""The page of a model's training: its lines, what its address keeps, and what it says where there is nothing."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dash import no_update

from app.figures import training as figures
from app.pages.training import page as training
from app.pages.training.page import TrainingSettings
from backend import schemas
from tests.app.pages import Service, lines, text_of

pytestmark = pytest.mark.anyio
STEPS = (0, 10, 2000)


def summary(name: str = "tiny", null_dim: int = 2, reachable: int = 2, **changes: Any) -> schemas.TrainingSummary:
    fields: dict[str, Any] = {
        "id": name, "name": name, "family": "T", "layer": 1, "n_neurons": 40, "d_model": 8, "null_dim": null_dim,
        "reachable_null_dim": reachable, "steps": len(STEPS), "first": 0, "last": 2000,
        "measured_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return schemas.TrainingSummary(**fields | changes)


def spread(highest: float) -> schemas.MetricSpread:
    return schemas.MetricSpread(
        lowest=0.0, q05=0.1, median=0.2, q95=0.3, highest=highest, lowest_neuron="1.0", highest_neuron="1.7"
    )


def step(number: int, run: schemas.StepRun | None = None) -> schemas.TrainingStepSummary:
    return schemas.TrainingStepSummary(
        revision=f"step{number}", step=number, weights_hash="0" * 64,
        chance=schemas.RunChance(neurons=40, null_fraction=0.5, logit_var_low=0.1, logit_var_high=0.9),
        spreads={name: spread(0.4 + number / 10_000) for name in ("weight_norm", "logit_var", "null_fraction")},
        above_line=number // 1000, by_weights={"entropy": number // 1000, "prediction": 1}, paper_criterion=3,
        singular_median=2.0, singular_tail=[1.6, 1.0, 0.5, 0.2], run=run,
    )  # fmt: skip


def detail(name: str = "tiny", **changes: Any) -> schemas.TrainingDetail:
    run = schemas.StepRun(
        model="tiny", run=4, counts={"entropy": 1, "token_frequency": 0, "prediction": 2, "plain": 37}
    )
    steps = [step(number, run if number == STEPS[-1] else None) for number in STEPS]
    return schemas.TrainingDetail(training=summary(name, **changes), steps=steps)


def measured(metric: str = "null_fraction", error: float | None = None) -> schemas.NeuronLines:
    line = schemas.NeuronLine(neuron="1.7", values=[0.1, None, 0.6], errors=[error, None, error])
    return schemas.NeuronLines(metric=metric, steps=list(STEPS), lines=[line])


def service(**answers: Any) -> Service:
    found = {
        "training": schemas.TrainingList(trainings=[summary(), summary("other")]),
        "tiny": detail(), "other": detail("other"), "neurons": measured(),
    } | answers  # fmt: skip
    return Service(**{name: lambda _, found=answer: found for name, answer in found.items() if answer is not None})


async def test_the_page_shows_lines_classes_the_null_space_and_the_numbers() -> None:
    trainings, chosen, others, beside, body, seen = await training.shown(service(), TrainingSettings(None), None)
    assert [option["value"] for option in trainings] == ["tiny", "other"]
    assert (chosen, beside) == ("tiny", "none")
    assert [option["value"] for option in others] == ["none", "other"], "a training is not put beside itself"
    words = " ".join(text_of(body).split())
    for word in (
        "Null-space fraction ρ over training", "Neurons beyond chance", "Figure 6", "step 2,000", "0.600 (1.7)",
        "40 neurons at 3 checkpoints from step 0 to 2,000, from the weights alone; k = 2.", "candidates", "Run 4",
    ):  # fmt: skip
        assert word in words, word
    assert "/m/tiny/n/1/7?run=4" in str(body), "a neuron leads to its page in the newest run"
    again = await training.shown(service(), TrainingSettings(None), seen)
    assert again[4] is no_update, "nothing is drawn anew while nothing has changed"
    log = await training.shown(service(), TrainingSettings(None, log=True), seen)
    assert log[4] is not no_update


async def test_two_trainings_stand_beside_each_other() -> None:
    found = await training.shown(service(), TrainingSettings("tiny", beside="other"), None)
    assert found[3] == "other"
    assert "other (T), layer 1" in text_of(found[4])


async def test_what_the_address_asks_for_and_is_not_there_is_said() -> None:
    asked = TrainingSettings("none", metric="charm", beside="tiny", neurons="1.7, many", extreme="odd", most="99")
    assert (asked.known_metric, asked.known_extreme, asked.known_most) == ("null_fraction", "highest", 8)
    _, chosen, _, beside, body, _ = await training.shown(service(), asked, None)
    words = text_of(body)
    assert (chosen, beside) == ("tiny", "none")
    for word in ("asks for 'none'", "should stand beside it", "Left out: many"):
        assert word in words


async def test_an_empty_atlas_says_what_to_run() -> None:
    nothing = service(training=schemas.TrainingList(trainings=[]))
    found = await training.shown(nothing, TrainingSettings(None), None)
    assert "calibroscope checkpoints --model" in text_of(found[4])
    assert found[1] is None


async def test_an_effect_that_no_run_has_says_how_to_measure_it() -> None:
    line = schemas.NeuronLine(neuron="1.7", values=[None] * 3, errors=[None] * 3)
    for lines_found in ([], [line]):
        neurons = schemas.NeuronLines(metric="total_effect", steps=list(STEPS), lines=lines_found)
        found = await training.shown(service(neurons=neurons), TrainingSettings("tiny", "total_effect"), None)
        assert "calibroscope checkpoints --effects" in text_of(found[4])
    drawn = service(neurons=measured("total_effect", error=0.01))
    words = text_of((await training.shown(drawn, TrainingSettings("tiny", "total_effect"), None))[4])
    assert "of the finished runs of 1 of its 3 checkpoints, with one standard error" in words
    assert "0.600 ± 0.010" in words


async def test_a_refused_line_leaves_the_other_panels() -> None:
    words = text_of((await training.shown(service(neurons=None), TrainingSettings("tiny"), None))[4])
    assert "nothing at /training/tiny/neurons" in words
    assert "Neurons beyond chance" in words


async def test_a_null_space_that_no_neuron_reaches_is_said() -> None:
    """With a LayerNorm and k = 1 it is the mean alone, and every ρ is 0."""
    found = await training.shown(service(tiny=detail(null_dim=1, reachable=0)), TrainingSettings("tiny"), None)
    assert "measure with --null-dim 2" in text_of(found[4])


def test_step_0_has_a_place_on_the_logarithmic_axis() -> None:
    figure = figures.metric_lines(measured(), detail(), log=True)
    line = lines(figure)["1.7"]
    assert list(line.x) == pytest.approx([0.0, 1.0414, 3.3012], abs=1e-3)
    assert list(line.customdata) == ["step 0: 0.100", "step 10: —", "step 2,000: 0.600"]
    assert list(figure.layout.xaxis.ticktext)[:2] == ["0", "1"]
    assert list(lines(figures.metric_lines(measured(), detail(), log=False))["1.7"].x) == list(STEPS)


def test_a_metric_of_the_weights_is_drawn_beside_all_neurons_and_chance() -> None:
    drawn = lines(figures.metric_lines(measured(), detail(), log=False))
    assert list(drawn["chance line"].y) == [0.5] * 3
    assert list(drawn["median of all neurons"].y) == [0.2] * 3
    effects = lines(figures.metric_lines(measured("total_effect", 0.01), detail(), log=False))
    assert "chance line" not in effects
    assert list(effects["1.7"].error_y.array) == [0.01, None, 0.01]


def test_classes_of_runs_stand_only_where_there_is_a_run() -> None:
    drawn = lines(figures.class_counts({"tiny": detail()}, log=False))
    assert list(drawn["entropy neurons, by the weights alone"].y) == [0, 0, 2]
    assert list(drawn["entropy neurons, effects included"].y) == [None, None, 1]
    both = lines(figures.class_counts({"tiny": detail(), "other": detail("other")}, log=False))
    assert both["prediction neurons · other"].line.dash == "dash"


def test_the_tail_is_told_as_shares_of_the_middle_singular_value() -> None:
    drawn = lines(figures.spectrum_tails({"tiny": detail()}, log=False))
    assert {name: trace.y[0] for name, trace in drawn.items()} == pytest.approx(
        {"smallest": 0.1, "largest in the null space": 0.25, "next before it": 0.5, "4th from the smallest": 0.8}
    )
    assert figures.tail_ranks(0, 4) == [("smallest", 1), ("4th from the smallest", 4)]
