"""What the atlas page says of a run's classes: true of that run, with its numbers."""

from typing import Any

import pytest

from app.pages.atlas import classes as atlas_classes
from backend.core.metrics.classes import ChanceLines, rules
from backend.schemas import ClassCondition, ClassRule, MarkedNeuron, RunClasses
from tests.app import sample
from tests.app.pages import text_of

CHANCE = ChanceLines(1536, null_fraction=0.227, logit_var_low=1.4e-3, logit_var_high=5.6e-3, freq_alignment=0.55)
RULES = [
    ClassRule(neuron_class=name, conditions=[ClassCondition(**vars(one)) for one in conditions])
    for name, conditions in rules(CHANCE, 50).items()
]


def _classes(percentiles: tuple[float, ...] = (13.0, 66.3), marked: int = 0, **changes: Any) -> RunClasses:
    entropy = [
        MarkedNeuron(neuron=f"29.{i}", norm_percentile=percentile, paper_criterion=i < marked)
        for i, percentile in enumerate(percentiles)
    ]
    counts = {"entropy": len(percentiles), "token_frequency": 0, "prediction": 3, "plain": 1500}
    fields: dict[str, Any] = {
        "rules": RULES, "counts": counts, "fit_but_before": {}, "effects_measured": True, "entropy": entropy,
        "paper_criterion": 11, "both": marked,
    }  # fmt: skip
    return RunClasses(**(fields | changes))


def _words(found: RunClasses, **run: Any) -> str:
    return " ".join(text_of(part) for part in atlas_classes.words(found, sample.run(**run)))


def test_light_entropy_neurons_are_said_to_be_light() -> None:
    told = _words(_classes())
    assert "2 entropy neurons, no token-frequency neurons and 3 prediction neurons" in told
    assert "2 of this run's 2 entropy neurons do not have heavy weights (norm percentiles 13 and 66)." in told
    assert "marks 11 neurons, none of them an entropy neuron" in told
    assert "a token-frequency neuron is a finding: a model can have none" in told


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (_classes((99.0, 95.0), marked=2), "have heavy weights, as in the paper"),
        (_classes((99.0, 95.0), marked=2), "marks 11 neurons, 2 of them entropy neurons"),
        (_classes((0.2,)), "1 of this run's 1 entropy neuron does not have heavy weights (norm percentile 0.2)"),
        (_classes(()), "no entropy neurons"),
        (_classes(()), "an entropy neuron or a token-frequency neuron is a finding"),
        (_classes((), paper_criterion=0), "marks no neurons."),
    ],
)
def test_what_is_said_follows_the_run(found: RunClasses, expected: str) -> None:
    assert expected in _words(found)


def test_a_class_whose_neurons_have_another_one_is_not_said_to_have_found_nothing() -> None:
    counts = {"entropy": 2, "token_frequency": 3, "prediction": 0, "plain": 1500}
    told = _words(_classes(counts=counts, fit_but_before={"entropy": 0, "token_frequency": 0, "prediction": 3}))
    assert "no prediction neurons" in told
    assert "3 neurons fit the rule of prediction neurons as well and have a class that goes before it." in told
    assert "finding" not in told
    some = _words(_classes(fit_but_before={"prediction": 1}))
    assert "1 more neuron fits the rule of prediction neurons as well and has a class" in some


def test_before_effects_are_measured_nothing_is_called_a_finding() -> None:
    waiting = _classes((), effects_measured=False)
    assert "named once effects are measured" in _words(waiting, status="running", tokens_counted=0)
    assert "measure more sequences" in _words(waiting, tokens_counted=100)
    assert "finding" not in _words(waiting, status="running")


def test_before_errors_are_measured_nothing_is_said_of_them() -> None:
    assert "None" not in _words(_classes(), stage="activations", error_groups=None)


def test_the_rule_stands_with_its_limits() -> None:
    told = _words(_classes(), error_groups=50)
    assert "Null-space fraction ρ above 0.227 (chance line)" in told
    assert "by 2.01 standard errors" in told
    assert "beyond ±0.550" in told
    assert "0.00100 nats" in told
    assert told.count("50 groups of whole sequences") == 2, "of the cuts and of ±"
    assert "in the highest 10 % of the run" in told


def test_a_run_of_before_says_by_which_rule_its_classes_are() -> None:
    told = _words(_classes(rules=[], paper_criterion=None))
    assert "before there were chance lines" in told
    assert "paper's own criterion" not in told
    assert "finding" not in told
