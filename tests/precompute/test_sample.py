"""How a sample is dealt to groups and cut into shards of effects."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.metrics.jackknife import MOST_GROUPS
from precompute.sample import Sample

UNCOUNTED = frozenset({0})


def _sample(seed: int, sequences: int, length: int, ordinary: float = 1.0) -> Sample:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 50, (sequences, length)) * (rng.random((sequences, length)) < ordinary)
    return Sample.of(tokens, UNCOUNTED, seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 130), st.sampled_from([8, 40, 100, 300]), st.sampled_from([0.3, 1.0]))
def test_shards_hold_every_counted_position_once(seed: int, sequences: int, length: int, ordinary: float) -> None:
    sample = _sample(seed, sequences, length, ordinary)
    shards = sample.measured
    places = np.concatenate([sample.counted[:0], *(shard.places for shard in shards)])
    np.testing.assert_array_equal(np.sort(places), sample.counted)
    met: set[int] = set()
    for shard in shards:
        own = set((shard.places // length).tolist())
        assert own, "no shard without a position"
        assert len(own) <= max(1, 256 // length)
        assert {int(sample.groups[sequence]) for sequence in own} == {shard.group}, "sequences of one group"
        assert not own & met, "a sequence is in one shard, whole"
        met |= own


def test_an_unfinished_run_has_as_many_groups_as_can_be() -> None:
    shards = _sample(3, 200, 256).measured
    assert [shard.group for shard in shards] == [*range(MOST_GROUPS)] * 4


@pytest.mark.parametrize("sequences", [9, 120])
def test_an_unfinished_run_is_a_fair_sample_of_sequences(sequences: int) -> None:
    """Over seeds, each sequence is as often among the first third as any other, and beside any other as often."""
    third, seeds = sequences // 3, 3_000 if sequences < 50 else 600
    first = np.zeros((seeds, sequences))
    for seed in range(seeds):
        tokens = np.ones((sequences, 256), dtype=np.int64)
        for shard in Sample.of(tokens, UNCOUNTED, seed).measured[:third]:
            first[seed, shard.places[0] // 256] = 1
    assert (first.sum(axis=1) == third).all()
    spread = np.sqrt(seeds * 2 / 9)
    assert np.abs(first.sum(axis=0) - seeds / 3).max() < 4.5 * spread
    together = (first.T @ first)[np.triu_indices(sequences, 1)]
    expected = seeds * third * (third - 1) / (sequences * (sequences - 1))
    assert np.abs(together - expected).max() < 5.5 * np.sqrt(expected)


def test_sampled_positions_are_drawn_from_all() -> None:
    sample = _sample(1, 60, 100)
    some = sample.some_places(400)
    assert len(set(some.tolist())) == 400
    assert set(some.tolist()) <= set(sample.counted.tolist())
    assert len(set((some // 100).tolist())) > 50, "of nearly all sequences"
    np.testing.assert_array_equal(np.sort(sample.some_places(10**6)), sample.counted)
