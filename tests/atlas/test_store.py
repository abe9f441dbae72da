"""The atlas keeps what it is told, whole or not at all."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from backend.atlas import runs
from backend.atlas.connect import AtlasMissing, AtlasUnusable
from backend.atlas.database import NotInAtlas
from backend.atlas.records import ContextRecord, TraceRecord
from backend.atlas.run_writer import RunIsFinished, RunTakenOver
from backend.atlas.schema import Base
from backend.atlas.store import Atlas
from tests.atlas.plans import MODEL, PLAN


@pytest.fixture
def atlas(tmp_path: Path) -> Iterator[Atlas]:
    with Atlas.open(tmp_path / "a.db") as opened:
        yield opened


def test_the_same_plan_is_the_same_run(atlas: Atlas) -> None:
    first = atlas.runs.begin(PLAN)
    assert atlas.runs.begin(replace(PLAN, versions={"torch": "3"})).id == first.id
    assert atlas.runs.begin(replace(PLAN, seed=1)).id != first.id
    assert [run.seed for run in atlas.runs.of_model("tiny")] == [1, 0], "newest first"


def test_a_transaction_is_whole_or_not_there(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id

    class Killed(Exception): ...

    def write_and_die() -> None:
        with atlas.runs.writing() as writer:
            writer.add_shard(run, "effects", 0, {"sum": np.ones(5)})
            writer.set_neurons(run, 1, {"weight_norm": np.ones(5)})
            raise Killed

    with pytest.raises(Killed):
        write_and_die()
    assert atlas.runs.shards_done(run, "effects") == set()
    assert len(atlas.neurons.columns(run, ["weight_norm"])["index"]) == 0


def test_shards_are_added_once_and_come_back_in_order(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    with atlas.runs.writing() as writer:
        for index in (2, 0, 1):
            assert writer.add_shard(run, "effects", index, {"sum": np.full(3, float(index))})
        assert not writer.add_shard(run, "effects", 1, {"sum": np.full(3, 9.0)})
    found = list(atlas.runs.shards(run, "effects"))
    assert [index for index, _ in found] == [0, 1, 2]
    assert found[1][1]["sum"].tolist() == [1.0, 1.0, 1.0]
    assert atlas.runs.shards_done(run, "weights") == set()


def test_columns_are_published_apart_and_nan_is_null(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    with atlas.runs.writing() as writer:
        writer.set_neurons(run, 1, {"weight_norm": np.arange(5.0)}, ["plain"] * 5)
    with atlas.runs.writing() as writer:
        effects = np.array([0.1, np.nan, np.inf, -np.inf, 0.0])
        writer.set_neurons(run, 1, {"total_effect": effects}, effect_tokens=7)
    columns = atlas.neurons.columns(run, ["weight_norm", "total_effect", "delta_loss"])
    assert columns["weight_norm"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(columns["total_effect"], [0.1, np.nan, np.nan, np.nan, 0.0])
    assert np.isnan(columns["delta_loss"]).all()
    assert columns["effect_tokens"].tolist() == [7] * 5
    record = atlas.neurons.get(run, 1, ["total_effect"])
    assert record is not None
    assert record.metrics == {"total_effect": None}


def test_a_finished_run_cannot_change(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    atlas.runs.finish(run)
    with pytest.raises(RunIsFinished, match="cannot be changed"), atlas.runs.writing() as writer:
        writer.set_neurons(run, 1, {"weight_norm": np.zeros(5)})
    with pytest.raises(RunIsFinished):
        atlas.runs.fail(run, "late")
    assert atlas.runs.begin(PLAN).status == "finished"


def test_finishing_twice_changes_nothing(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    atlas.runs.finish(run)
    finished = atlas.runs.get(run)
    atlas.runs.finish(run)
    assert atlas.runs.get(run) == finished
    assert (finished.status, finished.stage, finished.progress) == ("finished", "done", 1.0)


def test_a_failed_run_resumes(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    atlas.runs.fail(run, "The disk is full.")
    assert (atlas.runs.get(run).status, atlas.runs.get(run).message) == ("failed", "The disk is full.")
    again = atlas.runs.begin(PLAN)
    assert (again.id, again.status, again.message) == (run, "running", None)


def test_a_field_that_no_run_has_is_refused(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    with pytest.raises(TypeError, match="no progres"), atlas.runs.writing() as writer:
        writer.update_run(run, progres=0.5)


def test_two_models_of_the_same_name_stay_apart(atlas: Atlas) -> None:
    other = replace(PLAN, model=replace(MODEL, d_mlp=7, source="/elsewhere/tiny"), weights_hash="e" * 64)
    first, second = atlas.runs.begin(PLAN), atlas.runs.begin(other)
    assert (first.model, second.model) == ("tiny", "tiny-eeeeeeee")
    assert (atlas.models.get("tiny").d_mlp, atlas.models.get("tiny").source) == (5, "/models/tiny")
    assert (atlas.models.get("tiny-eeeeeeee").d_mlp, atlas.models.get("tiny-eeeeeeee").source) == (7, "/elsewhere/tiny")
    assert atlas.runs.begin(other).id == second.id
    assert atlas.runs.begin(replace(other, seed=1)).model == "tiny-eeeeeeee"
    assert atlas.runs.begin(replace(PLAN, seed=1)).model == "tiny"


def test_a_model_that_moved_keeps_its_name(atlas: Atlas) -> None:
    atlas.runs.begin(PLAN)
    moved = atlas.runs.begin(replace(PLAN, model=replace(MODEL, source="/new/tiny")))
    assert moved.model == "tiny"
    assert atlas.models.get("tiny").source == "/new/tiny"


def test_a_silent_run_reads_as_interrupted(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    run = atlas.runs.begin(PLAN).id
    assert atlas.runs.get(run).status == "running"

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(minutes=3)

    monkeypatch.setattr(runs, "datetime", Later)
    assert atlas.runs.get(run).status == "interrupted"


def test_contexts_come_back_as_they_show_a_neuron(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    context = ContextRecord([3, 4], ["<b>", "\n🙂"], np.array([0.5]), np.array([1.0, 2.0]), np.array([3]))
    for _ in range(2):  # putting twice replaces
        with atlas.runs.writing() as writer:
            ids = writer.put_contexts(run, [context, context])
            trace = TraceRecord(2, ids[1], "max", np.array([0.1, 0.9]), 0.9, 1)
            writer.put_traces(run, [trace, replace(trace, index=3, context_id=ids[0])])
    shown = atlas.contexts.showing(run, 2)
    assert len(shown) == 1
    assert shown[0].context.tokens == ["<b>", "\n🙂"]
    assert shown[0].trace.activations.tolist() == pytest.approx([0.1, 0.9])
    assert atlas.contexts.showing(run, 4) == []


def test_readers_cannot_write_and_miss_nothing(atlas: Atlas, tmp_path: Path) -> None:
    run = atlas.runs.begin(PLAN).id
    with Atlas.open(tmp_path / "a.db", read_only=True) as reader:
        assert reader.runs.get(run).corpus == "words"
        with atlas.runs.writing() as writer:
            writer.update_run(run, tokens_counted=5)
        assert reader.runs.get(run).tokens_counted == 5, "a reader sees what is committed while it is open"
        with pytest.raises(Exception, match="readonly"):
            reader.runs.beat(run)
        with pytest.raises(RunTakenOver, match="not begun here"):
            reader.runs.finish(run)


def test_what_is_not_there_gets_a_sentence(tmp_path: Path, atlas: Atlas) -> None:
    with pytest.raises(AtlasMissing, match="calibroscope precompute"):
        Atlas.open(tmp_path / "missing.db", read_only=True)
    (tmp_path / "junk.db").write_bytes(b"this is not a database, whatever its name says" * 40)
    for read_only in (True, False):
        with pytest.raises(AtlasUnusable, match="cannot be opened"):
            Atlas.open(tmp_path / "junk.db", read_only=read_only)
    with pytest.raises(NotInAtlas, match="no run 9"):
        atlas.runs.get(9)
    with pytest.raises(NotInAtlas, match="no model 'x'"):
        atlas.models.get("x")


def test_an_atlas_of_a_newer_version_is_refused(atlas: Atlas, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for read_only in (True, False):
        with pytest.raises(AtlasUnusable, match="newer version"):
            Atlas.open(tmp_path / "a.db", read_only=read_only)


def test_migrations_make_exactly_the_schema(atlas: Atlas, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_token_frequencies_come_from_the_run_that_has_them(atlas: Atlas) -> None:
    assert atlas.runs.with_frequencies("tiny", None) is None
    older = atlas.runs.begin(PLAN).id
    assert atlas.runs.unigram(older) is None
    with atlas.runs.writing() as writer:
        writer.put_unigram(older, np.array([0.5, 0.25, 0.25, *[0.0] * 17]))
        writer.put_unigram(older, np.array([0.25, 0.25, 0.5, *[0.0] * 17]))
    newer = atlas.runs.begin(replace(PLAN, seed=1)).id
    found = atlas.runs.unigram(older)
    assert found is not None
    assert (found[:3].tolist(), len(found)) == ([0.25, 0.25, 0.5], 20)
    assert found.dtype == np.float32
    chosen = atlas.runs.with_frequencies("tiny", None)
    assert chosen is not None
    assert chosen.id == older, "the newer run has none"
    assert atlas.runs.with_frequencies("tiny", newer) is None, "another run's are not passed off as its own"
    with pytest.raises(NotInAtlas, match="not of 'other'"):
        atlas.runs.with_frequencies("other", older)
    with pytest.raises(NotInAtlas, match="no run 77"):
        atlas.runs.with_frequencies("tiny", 77)


def test_the_newest_finished_run_of_the_last_layer_is_found(atlas: Atlas) -> None:
    unfinished = atlas.runs.begin(PLAN).id
    assert atlas.runs.newest_finished("tiny") is None
    atlas.runs.finish(unfinished)
    atlas.runs.finish(atlas.runs.begin(replace(PLAN, layer=0)).id)
    for name in ("tiny", "Tiny", "/models/tiny"):
        assert atlas.runs.newest_finished(name) == unfinished, "the newer one is of an earlier layer"


def test_the_reference_mean_tells_where_it_comes_from(atlas: Atlas) -> None:
    means, where = atlas.runs.reference_means("tiny", None)
    assert means is None
    assert "this text" in where
    run = atlas.runs.begin(PLAN).id
    with pytest.raises(NotInAtlas, match="not measured mean activations"):
        atlas.runs.reference_means("tiny", run)
    with atlas.runs.writing() as writer:
        writer.set_neurons(run, 1, {"mean_activation": np.arange(5.0)})
    means, where = atlas.runs.reference_means("tiny", run)
    assert means is not None
    assert means.tolist() == [0, 1, 2, 3, 4]
    assert f"run {run}" in where
    with pytest.raises(NotInAtlas, match="not of 'other'"):
        atlas.runs.reference_means("other", run)


def test_a_column_that_no_neuron_has_is_refused_whether_its_rows_are_there_or_not(atlas: Atlas) -> None:
    run = atlas.runs.begin(PLAN).id
    for _ in range(2):
        with pytest.raises(TypeError, match="a neuron has no total_efect"), atlas.runs.writing() as writer:
            writer.set_neurons(run, 1, {"weight_norm": np.ones(5), "total_efect": np.ones(5)})
        with atlas.runs.writing() as writer:
            writer.set_neurons(run, 1, {"weight_norm": np.ones(5)})
