"""A neuron's class follows its metrics, and says so."""

import numpy as np

from backend.core.classes import classify, explain


def _columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    columns = {
        "null_fraction": rng.uniform(0.1, 0.3, 200),
        "logit_var": rng.uniform(1e-3, 2e-3, 200),
        "total_effect": rng.uniform(0.001, 0.01, 200),
        "ln_mediated": rng.normal(0, 0.02, 200),
    }
    columns["null_fraction"][7], columns["logit_var"][7] = 0.9, 5e-4
    columns["total_effect"][7], columns["ln_mediated"][7] = 0.03, 0.6
    columns["logit_var"][11] = 0.02
    return columns


def test_planted_neurons_get_their_class() -> None:
    classes = classify(_columns())
    assert classes[7] == "entropy"
    assert classes[11] == "prediction"
    assert classes.count("entropy") == 1


def test_weights_alone_make_no_entropy_neuron() -> None:
    columns = {name: column for name, column in _columns().items() if name in ("null_fraction", "logit_var")}
    assert "entropy" not in classify(columns)


def test_null_space_without_an_effect_through_the_norm_is_not_enough() -> None:
    columns = _columns()
    columns["ln_mediated"][7] = 0.05
    assert classify(columns)[7] != "entropy"


def test_the_sentence_has_the_numbers() -> None:
    metrics = {"null_fraction": 0.89, "logit_var": 5e-4, "ln_mediated": 0.55, "total_effect": 0.026}
    told = explain("entropy", metrics, {"null_fraction": 99.9})
    assert "0.89 (percentile 99.9)" in told
    assert "0.0260 nats" in told
    assert "not measured yet" in explain("plain", {"null_fraction": None}, {})
