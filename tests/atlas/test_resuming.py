"""An unfinished run that is taken up again: whose it is, and which of its parts are kept."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.atlas.records import ContextRecord, TraceRecord
from backend.atlas.run_writer import RunIsFinished, RunTakenOver
from backend.atlas.store import Atlas
from tests.atlas.plans import MODEL, PLAN


@pytest.fixture
def atlas(tmp_path: Path) -> Iterator[Atlas]:
    with Atlas.open(tmp_path / "a.db") as opened:
        yield opened


def _begun(atlas: Atlas) -> int:
    """A run with something in every stage."""
    run = atlas.runs.begin(PLAN).id
    with atlas.runs.writing() as writer:
        for stage, count in (("weights", 1), ("activations", 3), ("effects", 4)):
            for index in range(count):
                writer.add_shard(run, stage, index, {"sum": np.full(3, float(index))})
        writer.set_neurons(run, 1, {"weight_norm": np.ones(5)}, ["plain"] * 5, 7)
        ids = writer.put_contexts(run, [ContextRecord([3], ["a"], np.ones(1), np.ones(1), np.ones(1))])
        writer.put_traces(run, [TraceRecord(2, ids[0], "max", np.ones(1), 1.0, 0)])
        writer.put_unigram(run, np.ones(4))
        writer.update_run(run, stage="effects", tokens_counted=7, mean_loss=3.0)
    return run


def test_a_run_belongs_to_who_took_it_up_last(atlas: Atlas, tmp_path: Path) -> None:
    """The first to begin it may not publish its older state over the newer, nor end what is not its own."""
    run = _begun(atlas)
    with Atlas.open(tmp_path / "a.db") as other:
        assert other.runs.begin(PLAN).id == run
        with other.runs.writing() as writer:
            writer.set_neurons(run, 1, {"weight_norm": np.full(5, 2.0)})
        with pytest.raises(RunTakenOver, match="another process"), atlas.runs.writing() as writer:
            writer.set_neurons(run, 1, {"weight_norm": np.zeros(5)})
        with pytest.raises(RunTakenOver):
            atlas.runs.fail(run, "late")
        with pytest.raises(RunTakenOver):
            atlas.runs.finish(run)
        other.runs.finish(run)
        with pytest.raises(RunIsFinished), atlas.runs.writing() as writer:
            writer.add_shard(run, "effects", 9, {})
        assert other.neurons.columns(run, ["weight_norm"])["weight_norm"].tolist() == [2] * 5


def test_what_was_made_by_others_is_dropped(atlas: Atlas) -> None:
    """Other code, packages or device: the run begins anew, under its number, and says so."""
    run = _begun(atlas)
    said: list[str] = []
    atlas.jobs.add("induction", "tiny", run, {"waits": True})
    done = atlas.jobs.add("induction", "tiny", run, {"waits": False})
    atlas.jobs.begin(done.id)
    atlas.jobs.keep_part(done.id, "start", ["{}"])
    again = atlas.runs.begin(replace(PLAN, made_by="newer", versions={"torch": "3"}), said.append)
    assert (again.id, again.stage, again.tokens_counted, again.mean_loss) == (run, "queued", 0, None)
    assert again.versions == {"torch": "3"}
    assert len(said) == 1
    assert "begins anew" in said[0]
    for stage in ("weights", "activations", "effects"):
        assert atlas.runs.shards_done(run, stage) == set()
    assert len(atlas.neurons.columns(run, ["weight_norm"])["index"]) == 0
    assert atlas.contexts.showing(run, 2) == []
    assert atlas.runs.with_frequencies("tiny", run) is None
    assert [job.request for job in atlas.jobs.newest(9)] == [{"waits": True}]
    atlas.runs.finish(run)
    assert atlas.runs.begin(replace(PLAN, made_by="newest")).status == "finished", "what is finished stays"


def test_what_was_made_by_the_same_is_kept(atlas: Atlas) -> None:
    run = _begun(atlas)
    said: list[str] = []
    atlas.runs.begin(PLAN, said.append)
    assert said == []
    assert atlas.runs.shards_done(run, "effects") == {0, 1, 2, 3}
    assert [(index, list(arrays)) for index, arrays in atlas.runs.shards(run, "activations")] == [
        (index, ["sum"]) for index in range(3)
    ]


def _change(path: Path, index: int, change: str) -> None:
    """Damage a shard's blob in the file: `cut`, a `bit`, `other` (a whole shard, but another's), or no `seal`."""
    with closing(sqlite3.connect(path)) as connection:
        where = "WHERE stage = 'effects' AND \"index\" = ?"
        (blob,) = connection.execute(f"SELECT arrays FROM shards {where}", (index,)).fetchone()
        (another,) = connection.execute(f"SELECT arrays FROM shards {where}", (index + 1,)).fetchone()
        middle = blob.index(b"sum") + 40
        damaged = {
            "cut": blob[:-5],
            "bit": blob[:middle] + bytes([blob[middle] ^ 4]) + blob[middle + 1 :],
            "other": another,
            "empty": b"",
        }[change]
        connection.execute(f"UPDATE shards SET arrays = ? {where}", (damaged, index))
        connection.commit()


@pytest.mark.parametrize("change", ["cut", "bit", "other", "empty"])
def test_a_damaged_part_is_made_anew(atlas: Atlas, tmp_path: Path, change: str) -> None:
    """With those after it, so that sums are taken in the order of a run that nothing happened to."""
    run = _begun(atlas)
    said: list[str] = []
    _change(tmp_path / "a.db", 1, change)
    atlas.runs.begin(PLAN, said.append)
    assert len(said) == 1
    assert "damaged" in said[0]
    assert atlas.runs.shards_done(run, "effects") == {0}
    assert atlas.runs.shards_done(run, "activations") == {0, 1, 2}


def test_a_run_begun_before_parts_were_sealed_begins_anew(atlas: Atlas, tmp_path: Path) -> None:
    run = _begun(atlas)
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE runs SET made_by = NULL, owner = NULL")
        connection.commit()
    atlas.runs.begin(PLAN)
    assert atlas.runs.shards_done(run, "effects") == set()


def test_other_weights_in_the_same_folder_are_another_model(atlas: Atlas) -> None:
    """Trained on between two runs: same name, same shape, same place."""
    before = atlas.runs.begin(PLAN)
    after = atlas.runs.begin(replace(PLAN, weights_hash="e" * 64))
    assert (before.model, after.model) == ("tiny", "tiny-eeeeeeee")
    assert atlas.models.get("tiny") == MODEL
