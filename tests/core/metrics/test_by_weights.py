"""What weights say of a last layer, held against the formulas written out, and which neurons pass by weights alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from backend.core.metrics.by_weights import WEIGHT_METRICS, WeightMetrics, fits_by_weights
from backend.core.metrics.classes import ChanceLines, classify
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import Readout


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_metrics_are_their_formulas(family: str, tiny_model: Callable[[str], AnalysisModel]) -> None:
    readout = tiny_model(family).readout
    found = WeightMetrics.of(readout, null_dim=3)
    rows, W_U = readout.W_out.double().numpy(), readout.W_U.double().numpy()
    left, values, _ = np.linalg.svd(W_U)
    assert np.allclose(found.singular_values, values, atol=1e-9)
    assert np.allclose(found.columns["weight_norm"], np.linalg.norm(rows, axis=1), rtol=1e-12)
    null = np.linalg.norm(rows @ left[:, -3:], axis=1) / np.linalg.norm(rows, axis=1)
    assert np.allclose(found.columns["null_fraction"], null, rtol=1e-6)
    cosines = (rows @ W_U) / np.linalg.norm(rows, axis=1)[:, None] / np.linalg.norm(W_U, axis=0)
    assert np.allclose(found.columns["logit_var"], cosines.var(axis=1, ddof=1), rtol=1e-9)
    assert found.chance.neurons == len(rows)


def test_without_a_k_it_is_one_percent(tiny_model: Callable[[str], AnalysisModel]) -> None:
    readout = tiny_model("llama").readout
    assert WeightMetrics.of(readout).null_dim == 1
    assert WeightMetrics.of(readout, null_dim=10**6).null_dim == readout.W_U.shape[0]


def test_passing_by_weights_asks_for_every_condition_on_the_weights_and_for_no_other() -> None:
    lines = ChanceLines(4, null_fraction=0.5, logit_var_low=1.0, logit_var_high=3.0)
    columns = {
        "weight_norm": np.ones(5),
        "null_fraction": np.array([0.9, 0.9, 0.4, 0.1, np.nan]),
        "logit_var": np.array([0.5, 2.0, 0.5, 4.0, np.nan]),
    }
    assert set(columns) == set(WEIGHT_METRICS)
    passed = fits_by_weights(columns, lines)
    assert {name: fit.tolist() for name, fit in passed.items()} == {
        "entropy": [True, False, False, False, False], "prediction": [False, False, False, True, False],
    }  # fmt: skip
    assert classify(columns, lines, None)[0] == "plain", "weights alone make no entropy neuron"


def test_directions_drawn_at_random_pass_in_five_percent_of_layers_at_most() -> None:
    """The count that the page draws would else be above 0 for noise: of 60 layers of noise some 3 have one."""
    generator = torch.Generator().manual_seed(5)
    W_U = torch.randn(24, 200, generator=generator)
    beyond = 0
    for _ in range(60):
        W_out = torch.randn(40, 24, generator=generator)
        found = WeightMetrics.of(Readout(W_out, W_U, None, "RMSNorm", 1e-5), null_dim=3)
        beyond += bool((found.columns["null_fraction"] > found.chance.null_fraction).any())
    assert beyond <= 9, f"{beyond} of 60"
