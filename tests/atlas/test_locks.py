"""Another process holds the atlas: readers do not wait for it, writers do not wait long, and both are told."""

import time
from pathlib import Path

import pytest

from backend.atlas.connect import AtlasBusy, AtlasMissing
from backend.atlas.store import Atlas
from tests.atlas.locking import held, without_wal
from tests.atlas.plans import PLAN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Atlas.open(tmp_path / "a.db") as atlas:
        atlas.runs.begin(PLAN)
    return tmp_path / "a.db"


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_readers_of_an_atlas_do_not_wait_for_its_writer(path: Path, statement: str) -> None:
    with Atlas.open(path, read_only=True, patience=20) as before, held(path, statement):
        began = time.monotonic()
        with Atlas.open(path, read_only=True, patience=20) as atlas:
            assert atlas.runs.get(1).corpus == before.runs.get(1).corpus == "words"
        assert time.monotonic() - began < 5


def test_a_writer_waits_as_long_as_it_was_told_and_says_why_it_could_not(path: Path) -> None:
    with Atlas.open(path, patience=0.3) as atlas, held(path):
        for change in (lambda: atlas.runs.beat(1), lambda: atlas.runs.begin(PLAN), lambda: atlas.jobs.cancel(1)):
            began = time.monotonic()
            with pytest.raises(AtlasBusy, match="Another process holds the atlas"):
                change()
            assert 0.2 < time.monotonic() - began < 5
        assert atlas.runs.get(1).corpus == "words", "what only reads still does"
    with Atlas.open(path, patience=0.3) as atlas:
        atlas.runs.beat(1)


def test_an_atlas_whose_journal_shuts_readers_out_is_busy_at_once_and_readable_after(path: Path) -> None:
    with Atlas.open(path, read_only=True, patience=0.1) as atlas:
        atlas.runs.get(1)
    without_wal(path)
    with Atlas.open(path, read_only=True, patience=0.1) as atlas:
        with held(path):
            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(AtlasBusy):
                    atlas.runs.get(1)
                assert time.monotonic() - began < 3
            with pytest.raises(AtlasBusy):
                Atlas.open(path, read_only=True, patience=0.1)
            with pytest.raises(AtlasBusy):
                Atlas.open(path, patience=0.1)
        assert atlas.runs.get(1).corpus == "words"


def test_an_atlas_that_is_just_being_made_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with held(path, "PRAGMA journal_mode = WAL"), held(path):
        began = time.monotonic()
        with pytest.raises(AtlasMissing):
            Atlas.open(path, read_only=True, patience=20)
        assert time.monotonic() - began < 5


def test_readers_that_stay_connected_do_not_make_the_log_grow(path: Path) -> None:
    """The log is written from its beginning again once nobody is in the middle of reading."""
    log, largest = path.with_name("a.db-wal"), 0
    with Atlas.open(path, read_only=True) as atlas, Atlas.open(path) as writer:
        for step in range(10):
            assert atlas.runs.get(1).corpus == "words"
            assert list(atlas.runs.shards(1, "effects")) == []
            with writer.runs.writing() as putting:
                putting.put_vocabulary("tiny", [f"{step:>100}"] * 20_000)
            largest = max(largest, log.stat().st_size)
    assert 2_000_000 < largest < 3 * 2_100_000, "2 MB were written ten times"
