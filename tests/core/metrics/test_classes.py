"""A neuron's class follows its metrics, needs their errors, and says so; noise has none."""

from dataclasses import replace

import numpy as np
import pytest

from backend.core.metrics.classes import _NAMES, ChanceLines, Subject, classify, explain, paper_criterion
from backend.glossary import METRIC

CHANCE = ChanceLines(200, null_fraction=0.4, logit_var_low=8e-4, logit_var_high=4e-3, freq_alignment=0.5)
SHARES = ("ln_mediated", "freq_mediated")
Table = dict[str, np.ndarray]


def _columns() -> Table:
    """200 neurons without structure, then planted ones: 7 entropy, 11 prediction, 20 token frequency."""
    rng = np.random.default_rng(0)
    columns = {
        "weight_norm": rng.uniform(1, 2, 200),
        "null_fraction": rng.uniform(0.1, 0.3, 200),
        "logit_var": rng.uniform(1e-3, 2e-3, 200),
        "total_effect": rng.uniform(0.002, 0.01, 200),
        "ln_mediated": rng.normal(0, 0.02, 200),
        "freq_alignment": rng.uniform(-0.3, 0.3, 200),
        "freq_mediated": rng.normal(0, 0.02, 200),
        "abs_delta_kl": rng.uniform(0.002, 0.01, 200),
    }
    columns |= {f"{name}_se": np.full(200, 0.02 if name in SHARES else 1e-4) for name in
                ("total_effect", "ln_mediated", "freq_mediated", "abs_delta_kl")}  # fmt: skip
    _plant(columns, 7, null_fraction=0.9, logit_var=5e-4, total_effect=0.03, ln_mediated=0.6)
    _plant(columns, 11, logit_var=0.02)
    _plant(columns, 20, freq_alignment=-0.7, freq_mediated=0.5, abs_delta_kl=0.01)
    return columns


def _plant(columns: Table, index: int, **values: float) -> None:
    for name, value in values.items():
        columns[name][index] = value


def test_planted_neurons_get_their_class_and_no_other_has_one() -> None:
    classes = classify(_columns(), CHANCE, 50)
    assert {i: name for i, name in enumerate(classes) if name != "plain"} == {
        7: "entropy",
        11: "prediction",
        20: "token_frequency",
    }


def test_weights_alone_make_no_entropy_and_no_frequency_neuron() -> None:
    columns = {name: column for name, column in _columns().items() if name in ("null_fraction", "logit_var")}
    assert set(classify(columns, replace(CHANCE, freq_alignment=None), None)) == {"plain", "prediction"}


@pytest.mark.parametrize(
    ("index", "values"),
    [
        (7, {"null_fraction": 0.39}),
        (7, {"logit_var": 9e-4}),
        (7, {"ln_mediated": 0.05}),
        (7, {"ln_mediated": 0.23}),  # above the cut by one and a half standard errors
        (7, {"ln_mediated_se": np.nan}),
        (7, {"total_effect": 0.0011}),  # above the cut by one standard error
        (7, {"total_effect_se": np.nan}),
        (7, {"ln_mediated": np.nan}),
        (20, {"freq_alignment": -0.49}),
        (20, {"freq_mediated": 0.23}),
        (20, {"freq_mediated_se": np.nan}),
        (20, {"abs_delta_kl": 0.0011}),
        (11, {"logit_var": 3e-3}),
        (11, {"logit_var": np.nan}),
    ],
)
def test_every_condition_is_needed(index: int, values: dict[str, float]) -> None:
    columns = _columns()
    _plant(columns, index, **values)
    assert classify(columns, CHANCE, 50)[index] == "plain"


def test_without_errors_there_is_no_class_by_effects() -> None:
    columns = {name: column for name, column in _columns().items() if not name.endswith("_se")}
    assert set(classify(columns, CHANCE, 50)) == {"plain", "prediction"}


def test_few_groups_of_sequences_ask_for_more_errors() -> None:
    """0.29 is four and a half errors above the cut: enough for three groups, whose interval takes 4.3, not for two."""
    columns = _columns()
    _plant(columns, 7, ln_mediated=0.29)
    assert [classify(columns, CHANCE, groups)[7] for groups in (50, 3, 2, 1)] == [
        "entropy",
        "entropy",
        "plain",
        "plain",
    ]


def test_the_first_class_that_fits_is_given() -> None:
    columns = _columns()
    _plant(columns, 7, freq_alignment=0.7, freq_mediated=0.5)
    _plant(columns, 11, freq_alignment=0.7, freq_mediated=0.5)
    classes = classify(columns, CHANCE, 50)
    assert (classes[7], classes[11]) == ("entropy", "token_frequency")


def test_a_class_does_not_depend_on_the_other_neurons() -> None:
    """By quantiles within the run, a fiftieth of any neurons were prediction neurons."""
    columns = _columns()
    alone = {name: column[[7, 11, 20, 40]] for name, column in columns.items()}
    assert classify(alone, CHANCE, 50) == ["entropy", "prediction", "token_frequency", "plain"]


def test_the_papers_criterion_is_a_mark_beside_the_class() -> None:
    columns = _columns()
    _plant(columns, 30, weight_norm=9.0, logit_var=5e-4)
    _plant(columns, 31, weight_norm=9.0)
    marks = paper_criterion(columns["weight_norm"], columns["logit_var"], CHANCE)
    assert np.flatnonzero(marks).tolist() == [30], "heavy and quiet; 7 is quiet only, 31 is heavy only"
    assert classify(columns, CHANCE, 50)[30] == "plain"
    none = np.full(3, np.nan)
    assert not paper_criterion(none, none, CHANCE).any()


def _subject(index: int, *, marked: bool | None = False) -> Subject:
    columns = _columns()
    metrics = {name: float(column[index]) for name, column in columns.items()}
    percentiles: dict[str, float | None] = {"null_fraction": 99.9, "weight_norm": 13.2}
    return Subject(classify(columns, CHANCE, 50)[index], metrics, percentiles, marked)


def test_the_reason_has_the_numbers_their_errors_and_what_they_are_held_against() -> None:
    told = explain(_subject(7), CHANCE, 50)
    assert "null-space fraction 0.90 (chance line 0.40, percentile 99.9)" in told
    assert "LayerNorm-mediated share 0.60 ± 0.02 (cut 0.2)" in told
    assert "total effect 0.0300 ± 0.0001 nats (cut 0.001)" in told
    assert "does not mark it: weight norm in percentile 13.2" in told
    assert "marks it: weight norm" in explain(_subject(7, marked=True), CHANCE, 50)
    assert "chance line 0.004" in explain(_subject(11), CHANCE, 50)


def test_a_frequency_neurons_reason_tells_which_way() -> None:
    told = explain(_subject(20), CHANCE, 50)
    assert "suppresses common tokens" in told
    assert "−0.70 (beyond ± its chance line 0.50)" in told
    metrics = {**_subject(20).metrics, "freq_alignment": 0.7}
    assert "raises common tokens" in explain(replace(_subject(20), metrics=metrics), CHANCE, 50)


def test_a_plain_neuron_that_nearly_fits_says_what_it_lacks() -> None:
    metrics = {**_subject(7).metrics, "ln_mediated": 0.23}
    told = explain(replace(_subject(7), neuron_class="plain", metrics=metrics), CHANCE, 50)
    assert "its LayerNorm-mediated share is not above its cut by 2 standard errors" in told
    metrics = {name: None if name.startswith(("ln_", "total")) else v for name, v in metrics.items()}
    told = explain(replace(_subject(7), neuron_class="plain", metrics=metrics), CHANCE, 50)
    assert "not measured yet" in told
    assert "By its weights it could be an entropy neuron" in told
    assert "could be" not in explain(_subject(40), CHANCE, 50)


def test_classes_of_before_say_by_which_rule_they_are() -> None:
    told = explain(replace(_subject(7), marked=None), None, None)
    assert "before there were chance lines" in told
    assert "paper's own criterion" not in told
    assert "not measured yet" in explain(Subject("plain", {"null_fraction": None}, {}), None, None)


def test_a_sentence_calls_an_absolute_mean_absolute() -> None:
    """Beside a card of the signed change, “mean change” would be read as that."""
    for metric, (words, _, unit) in _NAMES.items():
        assert ("|" in words) == ("|" in METRIC[metric].label), words
        assert unit.strip() == METRIC[metric].unit, words
