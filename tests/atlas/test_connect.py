"""Opening an atlas: made whole or not at all, and what is no atlas gets a sentence."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

from backend.atlas import connect
from backend.atlas.connect import AtlasMissing, AtlasUnusable
from backend.atlas.query import NeuronQuery
from backend.atlas.store import Atlas
from tests.atlas.plans import PLAN

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["a b.db", "a#1.db", "a?mode=rw.db", "a%23.db", "ü.db", "new/folder/a.db"])
def test_any_path_is_the_same_for_writers_and_readers(name: str, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / name) as atlas:
        run = atlas.runs.begin(PLAN).id
    with Atlas.open(tmp_path / name, read_only=True) as reader:
        assert reader.runs.get(run).corpus == "words"


class _Stopped(Exception): ...


@pytest.mark.parametrize("statement", [1, 4, 9, 13, 18])
def test_an_atlas_whose_making_was_stopped_is_made_anew(
    statement: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    def stop(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == statement:
            raise _Stopped

    event.listen(Engine, "before_cursor_execute", stop)
    try:
        with pytest.raises(_Stopped):
            Atlas.open(tmp_path / "a.db")
    finally:
        event.remove(Engine, "before_cursor_execute", stop)
    with pytest.raises(AtlasMissing):
        Atlas.open(tmp_path / "a.db", read_only=True)
    with Atlas.open(tmp_path / "a.db") as atlas:
        assert atlas.runs.begin(PLAN).status == "running"


def test_several_may_make_the_same_atlas_at_once(tmp_path: Path) -> None:
    work = (
        "import sys; from backend.atlas.store import Atlas; from tests.atlas.plans import PLAN\n"
        "with Atlas.open(sys.argv[1]) as atlas: print(atlas.runs.begin(PLAN).id)"
    )
    command = [sys.executable, "-c", work, str(tmp_path / "a.db")]
    makers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [maker.communicate(timeout=60)[0].strip() for maker in makers] == ["1", "1", "1"]


def test_an_empty_file_is_not_an_atlas_yet(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with pytest.raises(AtlasMissing, match="calibroscope precompute"):
        Atlas.open(tmp_path / "a.db", read_only=True)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE bookmarks (id INTEGER)")
    for read_only in (True, False):
        with pytest.raises(AtlasUnusable, match="not an atlas"):
            Atlas.open(tmp_path / "other.db", read_only=read_only)
    with sqlite3.connect(tmp_path / "other.db") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


def test_an_older_atlas_is_brought_up_to_date_by_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        run = atlas.runs.begin(PLAN).id
    newer = tmp_path / "100% newer"
    shutil.copytree(ROOT / "backend/atlas/migrations", newer)
    newest = max(path.name[:4] for path in (newer / "versions").glob("0*.py"))
    (newer / "versions/9999_more.py").write_text(
        f'revision, down_revision = "9999", "{newest}"\ndef upgrade(): pass\ndef downgrade(): pass\n'
    )
    monkeypatch.setattr(connect, "_MIGRATIONS", newer)
    with pytest.raises(AtlasUnusable, match=r"older version.*brings it up to date"):
        Atlas.open(tmp_path / "a.db", read_only=True)
    with Atlas.open(tmp_path / "a.db") as atlas:
        assert atlas.runs.get(run).corpus == "words"
    Atlas.open(tmp_path / "a.db", read_only=True).close()


def test_an_atlas_from_before_a_metric_shows_it_as_not_measured_until_its_writer_adds_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Atlas.open(path) as atlas:
        run = atlas.runs.begin(PLAN).id
        with atlas.runs.writing() as writer:
            writer.set_neurons(
                run, 0, {"total_effect": np.array([1.0, 2.0]), "prediction_change": np.array([0.5, 0.6])}
            )
    with sqlite3.connect(path) as older:
        older.execute("ALTER TABLE neurons DROP COLUMN prediction_change")
    before = path.read_bytes()
    query = NeuronQuery(sort="-prediction_change", where=["total_effect>=1.5"])
    with Atlas.open(path, read_only=True) as atlas:
        (found,) = atlas.neurons.page(run, query)[0]
        assert (found.metrics["total_effect"], found.metrics["prediction_change"]) == (2.0, None)
        assert np.isnan(atlas.neurons.columns(run, ["prediction_change"])["prediction_change"]).all()
        assert not atlas.neurons.page(run, NeuronQuery(where=["prediction_change>=0"]))[0]
    assert path.read_bytes() == before
    with Atlas.open(path) as atlas:
        atlas.runs.begin(PLAN)
        with atlas.runs.writing() as writer:
            writer.set_neurons(run, 0, {"prediction_change": np.array([0.7, 0.8])})
    with Atlas.open(path, read_only=True) as atlas:
        assert atlas.neurons.page(run, query)[0][0].metrics["prediction_change"] == 0.8


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("mysql://u:secret@host/db", "cannot be kept in 'mysql'"),
        ("postgresql://u:secret@host:port/db", "neither a path nor a database URL"),
        ("postgresql+nothing://u:secret@host/db", "driver that is not known"),
        ("postgresql://u:secret@host/db", r"pip install 'calibroscope\[postgres\]'"),
    ],
)
def test_an_address_that_leads_nowhere_gets_a_sentence(
    location: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(AtlasUnusable, match=words) as caught:
        Atlas.open(location, read_only=True)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AtlasUnusable, match="cannot be made"):
        Atlas.open(tmp_path / "file" / "a.db")


def test_an_atlas_that_is_damaged_while_open_gets_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with Atlas.open(path) as atlas:
        atlas.runs.begin(PLAN)
    with Atlas.open(path, read_only=True) as reader:
        path.write_bytes(path.read_bytes()[:4096] + b"x" * 200_000)
        with pytest.raises(AtlasUnusable, match="See that its file is whole"):
            reader.runs.of_model("tiny")
