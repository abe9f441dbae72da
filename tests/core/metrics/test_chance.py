"""Chance lines against draws of their own, and against what they mean: one model without structure in twenty."""

import numpy as np
import pytest
import torch

from backend.core.metrics import chance, weights
from backend.core.metrics.chance import RandomNeurons
from backend.core.metrics.frequency import ReadDirection, Unigram
from backend.core.models.readout import NormKind


@pytest.mark.parametrize(
    ("k", "neurons", "expected"),
    [
        (6, RandomNeurons(1536, 576, "RMSNorm"), 0.229),
        (12, RandomNeurons(1536, 576, "RMSNorm"), 0.266),
        (12, RandomNeurons(3072, 768, "LayerNorm"), 0.235),
        (40, RandomNeurons(11008, 4096, "RMSNorm"), 0.151),
    ],
)
def test_the_line_of_the_null_fraction_is_known(k: int, neurons: RandomNeurons, expected: float) -> None:
    """SmolLM2-135M at two sizes of its null space, GPT-2 Small and LLaMA-2 7B; the values were found by drawing."""
    assert chance.null_fraction_line(k, neurons) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("norm", ["RMSNorm", "LayerNorm"])
def test_the_largest_of_n_random_directions_crosses_the_line_one_time_in_twenty(norm: NormKind) -> None:
    neurons, k = RandomNeurons(300, 40, norm), 3
    line, d = chance.null_fraction_line(k, neurons), neurons.dimensions
    largest = np.sqrt(np.random.default_rng(0).beta(k / 2, (d - k) / 2, size=(20_000, neurons.count)).max(axis=1))
    assert np.mean(largest > line) == pytest.approx(0.05, abs=0.006)


def test_a_line_grows_with_the_neurons_and_nobody_is_above_a_null_space_of_everything() -> None:
    few, many = (chance.null_fraction_line(4, RandomNeurons(count, 64, "RMSNorm")) for count in (10, 100_000))
    assert 0.3 < few < many < 1
    assert chance.null_fraction_line(64, RandomNeurons(10, 64, "RMSNorm")) == 1.0
    assert chance.null_fraction_line(63, RandomNeurons(10, 64, "LayerNorm")) == 1.0


def _unembedding(norm: NormKind, d_model: int = 24, d_vocab: int = 400) -> torch.Tensor:
    """Directions of very different strength, as a trained unembedding has them."""
    generator = torch.Generator().manual_seed(5)
    W_U = torch.randn(d_model, d_vocab, generator=generator) * torch.linspace(0.1, 3, d_model)[:, None]
    W_U = W_U - W_U.mean(dim=1, keepdim=True)
    return W_U - W_U.mean(dim=0, keepdim=True) if norm == "LayerNorm" else W_U


def _random_rows(neurons: RandomNeurons, generator: torch.Generator) -> torch.Tensor:
    rows = torch.randn(neurons.count, neurons.d_model, generator=generator)
    return rows - rows.mean(dim=1, keepdim=True) if neurons.norm == "LayerNorm" else rows


@pytest.mark.parametrize("norm", ["RMSNorm", "LayerNorm"])
def test_drawn_lines_are_crossed_about_one_time_in_twenty(norm: NormKind) -> None:
    """Twenty draws know a 5 % line only roughly: of many unembeddings the mean must be near, none may be far off."""
    neurons, generator, crossed = RandomNeurons(60, 24, norm), torch.Generator().manual_seed(1), []
    W_U = _unembedding(norm)
    unigram = Unigram(torch.rand(400, generator=generator, dtype=torch.float64).pow(3).softmax(0))
    direction = ReadDirection.of(W_U, unigram)
    low, high = chance.logit_var_lines(W_U, neurons)
    aligned = chance.freq_alignment_line(direction, neurons)
    assert 0 < low < high
    assert 0 < aligned < 1
    for _ in range(600):
        rows = _random_rows(neurons, generator)
        variance, cosines = weights.logit_var(rows, W_U), direction.cosines(rows).abs()
        crossed.append([float(variance.min()) < low, float(variance.max()) > high, float(cosines.max()) > aligned])
    rates = np.mean(crossed, axis=0)
    assert (rates < 0.16).all(), rates
    assert rates.mean() == pytest.approx(0.05, abs=0.04), rates


def test_lines_are_the_same_every_time() -> None:
    W_U, neurons = _unembedding("RMSNorm"), RandomNeurons(5_000, 24, "RMSNorm")
    assert chance.logit_var_lines(W_U, neurons) == chance.logit_var_lines(W_U, neurons)


def test_a_neuron_that_stands_out_is_beyond_the_lines() -> None:
    W_U, neurons = _unembedding("RMSNorm"), RandomNeurons(60, 24, "RMSNorm")
    low, high = chance.logit_var_lines(W_U, neurons)
    spectrum = weights.unembedding_spectrum(W_U)
    V = spectrum.directions.T.float()
    rows = torch.stack([V[-1], V[0]])
    quiet, loud = weights.logit_var(rows, W_U).tolist()
    assert quiet < low < high < loud
    null = weights.null_fraction(rows, spectrum.null_directions(2))
    assert float(null[1]) < chance.null_fraction_line(2, neurons) < float(null[0])
