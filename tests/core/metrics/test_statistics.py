"""Moments merge exactly, and are those of the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.metrics.jackknife import GroupSums
from backend.core.metrics.statistics import Moments, correlations_with


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_merged_moments_are_those_of_the_whole(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = 50 + rng.gamma(2.0, size=(sum(sizes), 3))  # far from zero: power sums would lose their digits
    groups = rng.integers(0, 4, len(values))
    merged, cuts = None, np.cumsum(sizes)[:-1]
    for part, own_groups in zip(np.split(values, cuts), np.split(groups, cuts), strict=True):
        own = Moments.from_arrays(Moments.of(part, own_groups).to_arrays())
        merged = own if merged is None else merged.merged(own)
    assert merged is not None
    columns, centred = merged.columns(), values - values.mean(axis=0)
    std = centred.std(axis=0)
    np.testing.assert_allclose(columns["mean_activation"], values.mean(axis=0))
    np.testing.assert_allclose(columns["std_activation"], std, atol=1e-9)
    np.testing.assert_allclose(columns["min_activation"], values.min(axis=0))
    np.testing.assert_allclose(columns["max_activation"], values.max(axis=0))
    if len(values) > 3:
        np.testing.assert_allclose(columns["skew_activation"], (centred**3).mean(axis=0) / std**3, atol=1e-6)
        np.testing.assert_allclose(columns["kurtosis_activation"], (centred**4).mean(axis=0) / std**4, rtol=1e-6)
    for name, quantity in (("mean_activation", values), ("fraction_positive", (values > 0).astype(np.float64))):
        expected = GroupSums.of({"q": quantity}, groups).mean("q")
        np.testing.assert_allclose(columns[name], expected.value)
        np.testing.assert_allclose(columns[f"{name}_se"], expected.error, rtol=1e-6, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 100), st.booleans())
def test_moments_scale_with_the_activations(seed: int, factor: float, negative: bool) -> None:
    values = np.random.default_rng(seed).gamma(2.0, size=(40, 3))
    by = -factor if negative else factor
    plain, scaled = (Moments.of(v, np.arange(40) % 6).columns() for v in (values, by * values))
    np.testing.assert_allclose(scaled["mean_activation"], by * plain["mean_activation"])
    for name in ("mean_activation_se", "std_activation"):
        np.testing.assert_allclose(scaled[name], factor * plain[name])
    np.testing.assert_allclose(scaled["skew_activation"], np.sign(by) * plain["skew_activation"])
    np.testing.assert_allclose(scaled["kurtosis_activation"], plain["kurtosis_activation"])
    np.testing.assert_allclose(scaled["min_activation"], by * plain["max_activation" if negative else "min_activation"])


def test_one_sequence_has_a_mean_but_no_error() -> None:
    columns = Moments.of(np.array([[1.5, -2.0], [2.5, 0.0]]), np.zeros(2, np.int64)).columns()
    np.testing.assert_array_equal(columns["mean_activation"], [2, -1])
    np.testing.assert_array_equal(columns["fraction_positive"], [1, 0])
    assert np.isnan(columns["mean_activation_se"]).all()
    assert np.isnan(columns["fraction_positive_se"]).all()


def test_positive_share_counts_only_above_zero() -> None:
    moments = Moments.of(np.array([[-1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [0.0, -1.0]]), np.arange(4))
    np.testing.assert_allclose(moments.columns()["fraction_positive"], [0.5, 0.25])


def test_correlations_are_pearsons_and_leave_out_what_does_not_vary() -> None:
    values = np.random.default_rng(3).normal(size=(5, 40)).astype(np.float32)
    values[3] = 2.5
    found = correlations_with(values, 1)
    assert sorted(found) == [0, 2, 4]
    for row, correlation in found.items():
        assert correlation == pytest.approx(np.corrcoef(values[1], values[row])[0, 1], abs=1e-6)
