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


def _with_frequency(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    columns["freq_mediated"], columns["abs_delta_kl"] = rng.normal(0, 0.02, 200), rng.uniform(1e-4, 1e-3, 200)
    return columns


def test_a_token_frequency_neuron_acts_along_the_direction_and_far() -> None:
    columns = _with_frequency(_columns())
    for index, share, moved in ((20, 0.5, 0.01), (21, 0.5, 1e-5), (22, 0.05, 0.01), (7, 0.5, 0.01), (11, 0.5, 0.01)):
        columns["freq_mediated"][index], columns["abs_delta_kl"][index] = share, moved
    classes = classify(columns)
    assert [classes[index] for index in (20, 21, 22)] == ["token_frequency", "plain", "plain"]
    assert (classes[7], classes[11]) == ("entropy", "token_frequency"), "the first rule that fits"
    assert classes.count("token_frequency") == 2


def test_a_frequency_neurons_sentence_tells_which_way() -> None:
    metrics = {"freq_mediated": 0.5, "abs_delta_kl": 0.0123, "freq_alignment": -0.4}
    told = explain("token_frequency", metrics, {"freq_mediated": 99.0})
    assert "suppresses common tokens" in told
    assert "0.50 (percentile 99.0)" in told
    assert "0.0123 nats" in told
    assert "raises common tokens" in explain("token_frequency", {**metrics, "freq_alignment": 0.4}, {})


def test_the_sentence_has_the_numbers() -> None:
    metrics = {"null_fraction": 0.89, "logit_var": 5e-4, "ln_mediated": 0.55, "total_effect": 0.026}
    told = explain("entropy", metrics, {"null_fraction": 99.9})
    assert "0.89 (percentile 99.9)" in told
    assert "0.0260 nats" in told
    assert "not measured yet" in explain("plain", {"null_fraction": None}, {})
