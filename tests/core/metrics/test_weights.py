"""Weight metrics against their definitions in NumPy, and on weights whose answer is known."""

import numpy as np
import pytest
import torch

from backend.core.metrics import weights
from tests.core.readouts import random_readout


def test_metrics_agree_with_their_definitions() -> None:
    readout = random_readout(1, neurons=9, d_model=16, d_vocab=9_000)  # more than one slab of the vocabulary
    W_out, W_U = readout.W_out.double().numpy(), readout.W_U.double().numpy()
    np.testing.assert_allclose(weights.weight_norm(readout.W_out), np.linalg.norm(W_out, axis=1))
    cosines = (W_out @ W_U) / np.linalg.norm(W_out, axis=1)[:, None] / np.linalg.norm(W_U, axis=0)
    np.testing.assert_allclose(weights.logit_var(readout.W_out, readout.W_U), cosines.var(axis=1, ddof=1), rtol=1e-9)
    _, singular, Vh = np.linalg.svd(W_U.T, full_matrices=False)
    spectrum = weights.unembedding_spectrum(readout.W_U)
    np.testing.assert_allclose(spectrum.singular_values, singular, rtol=1e-9)
    rho = np.linalg.norm(W_out @ Vh[-3:].T, axis=1) / np.linalg.norm(W_out, axis=1)
    np.testing.assert_allclose(weights.null_fraction(readout.W_out, spectrum.null_directions(3)), rho, rtol=1e-9)
    squares = weights.direction_cosines(readout.W_out, spectrum).square().sum(dim=1)
    np.testing.assert_allclose(squares, 1.0)


def test_a_neuron_in_the_null_space_is_found() -> None:
    readout = random_readout(2, d_model=16, d_vocab=200)
    hidden = torch.zeros(16)
    hidden[3] = 1.0
    readout.W_U[3] = 0  # the unembedding does not read direction 3
    readout.W_out[0], readout.W_out[1] = 5 * hidden, torch.eye(16)[4]
    V0 = weights.unembedding_spectrum(readout.W_U).null_directions(1)
    rho = weights.null_fraction(readout.W_out, V0)
    assert float(rho[0]) == pytest.approx(1.0)
    assert float(rho[1]) == pytest.approx(0.0, abs=1e-9)
    assert float(weights.logit_var(readout.W_out, readout.W_U)[0]) == pytest.approx(0.0, abs=1e-12)
    assert float(readout.direct_logits()[0].abs().max()) < 1e-6


def test_a_token_without_unembedding_counts_as_a_cosine_of_zero() -> None:
    """Columns that pad the vocabulary may be zero: no direction, but still a token (Eq. 3 runs over all of them)."""
    readout = random_readout(4, d_vocab=50)
    readout.W_U[:, 40:] = 0
    W_out, W_U = readout.W_out.double().numpy(), readout.W_U.double().numpy()[:, :40]
    cosines = np.zeros((len(W_out), 50))
    cosines[:, :40] = (W_out @ W_U) / np.linalg.norm(W_out, axis=1)[:, None] / np.linalg.norm(W_U, axis=0)
    np.testing.assert_allclose(weights.logit_var(readout.W_out, readout.W_U), cosines.var(axis=1, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_only_the_norm_depends_on_the_size_of_the_weights(scale: float) -> None:
    readout = random_readout(6, d_model=16, d_vocab=80)
    scaled, V0 = readout.W_out * scale, weights.unembedding_spectrum(readout.W_U).null_directions(3)
    norm = weights.weight_norm(readout.W_out) * scale
    torch.testing.assert_close(weights.weight_norm(scaled), norm, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        weights.null_fraction(scaled, V0), weights.null_fraction(readout.W_out, V0), rtol=1e-6, atol=0
    )
    variance = weights.logit_var(readout.W_out, readout.W_U)
    torch.testing.assert_close(weights.logit_var(scaled, readout.W_U), variance, rtol=1e-5, atol=0)


def test_a_neuron_without_weights_has_no_direction() -> None:
    readout = random_readout(3)
    readout.W_out[2] = 0
    V0 = weights.unembedding_spectrum(readout.W_U).null_directions(2)
    assert np.isnan(weights.null_fraction(readout.W_out, V0)[2])
    assert np.isnan(weights.logit_var(readout.W_out, readout.W_U)[2])


@pytest.mark.parametrize(("d_model", "k"), [(32, 1), (576, 6), (768, 8), (4096, 41)])
def test_the_null_space_is_one_percent(d_model: int, k: int) -> None:
    assert weights.default_null_dim(d_model) == k


def test_similar_neurons_come_by_cosine_and_one_without_weights_last() -> None:
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    ids, cosines = weights.similar_neurons(rows, 10)
    assert ids.shape == cosines.shape == (5, 4)
    assert ids[0].tolist() == [1, 2, 3, 4]
    assert cosines[0, :3].tolist() == pytest.approx([1, 2**-0.5, -1])
    assert torch.isnan(cosines[0, 3])
    assert torch.isnan(cosines[4]).all()
    assert weights.similar_neurons(rows, 2)[0][0].tolist() == [1, 2]


def test_similar_neurons_do_not_depend_on_the_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    whole = weights.similar_neurons(rows, 5)
    monkeypatch.setattr(weights, "_NEURONS_AT_ONCE", 7)
    slabs = weights.similar_neurons(rows, 5)
    assert slabs[0].tolist() == whole[0].tolist()
    assert all(neuron not in row for neuron, row in enumerate(whole[0].tolist()))
