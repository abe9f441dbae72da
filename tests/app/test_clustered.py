"""Errors of means over single tokens: by whole sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.reproduce.clustered import clustered


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=8), st.integers(0, 2**20))
def test_the_error_is_the_delete_a_group_jackknifes(sizes: list[int], seed: int) -> None:
    """Of Busing, Meijer and van der Leeden (1999), written out group by group."""
    rng = np.random.default_rng(seed)
    sequences = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(size=len(sequences)) + rng.normal(size=len(sizes))[sequences]
    found = clustered(values, sequences)
    n, g = len(values), len(sizes)
    without = [values[sequences != group].mean() for group in range(g)]
    h = [n / size for size in sizes]
    estimate = g * values.mean() - sum((1 - size / n) * own for size, own in zip(sizes, without, strict=True))
    pseudo = [one * values.mean() - (one - 1) * own for one, own in zip(h, without, strict=True)]
    variance = sum((p - estimate) ** 2 / (one - 1) for p, one in zip(pseudo, h, strict=True)) / g
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(variance**0.5)


def test_tokens_of_one_sequence_do_not_count_as_so_many_draws() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 50)
    whole = clustered(values, np.repeat(np.arange(20), 50))
    alone = clustered(values, np.arange(1000))
    assert whole.error > 6 * alone.error
    assert (whole.tokens, whole.sequences) == (1000, 20)


def test_of_one_sequence_there_is_no_error_and_no_side_of_zero() -> None:
    found = clustered(np.array([1.0, 1.1, 0.9]), [4, 4, 4])
    assert np.isnan(found.error)
    assert not found.above_zero
    assert not found.below_zero
    assert str(found) == "+1.0000"


def test_a_side_of_zero_takes_two_errors() -> None:
    found = clustered(np.array([1.0, 1.2, 0.8, 1.0]), [0, 1, 2, 3])
    assert found.above_zero
    assert not found.below_zero
    assert clustered(-np.array([1.0, 1.2, 0.8, 1.0]), [0, 1, 2, 3]).below_zero
    assert not clustered(np.array([1.0, -1.2, 0.8, -0.2]), [0, 1, 2, 3]).above_zero
