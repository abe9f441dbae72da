"""An atlas that was altered, cut short or made to do harm: every answer is right, or says that the atlas is damaged."""

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.atlas.arrays import MalformedArray, pack, pack_named, unpack
from backend.atlas.connect import AtlasUnusable
from backend.atlas.schema import Base
from backend.atlas.store import Atlas
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

PATHS = [
    "/models", "/models/{slug}/runs", "/runs/1", "/runs/1/neurons", "/runs/1/columns?name=total_effect",
    "/runs/1/neurons/1.3", "/runs/1/neurons/1.3/histogram", "/runs/1/neurons/1.3/contexts",
    "/runs/1/neurons/1.3/effects", "/runs/1/neurons/1.3/logits", "/runs/1/neurons/1.3/similar",
    "/runs/1/spectrum?neuron=1.3", "/runs/1/positions", "/runs/1/frequencies", "/runs/1/tokens?query=a",
    "/runs/1/export.json", "/jobs", "/jobs/1", "/../feature/{slug}/1/3",
]  # fmt: skip
HUGE = pack(np.zeros(1)).replace(np.uint64(1).tobytes(), np.uint64(10**12).tobytes())
VALUES: list[object] = [
    None, "", "no number", "Ünï\x00", "[" * 100_000, '{"a": 1}', '["\\ud83d"]', b"", b"\xff\xfe", b"CAL1", HUGE, -1,
    2**62, 1e308, float("nan"), "NaN", "9999-99-99 25:61:61", pack(np.array([np.nan])), pack(np.zeros((3, 3))),
    pack(np.arange(-3, 40)), pack(np.zeros(0)), pack_named({}), pack_named({"activation": np.zeros((2, 2))}),
    "x" * 3_000_000,
]  # fmt: skip
COLUMNS = [
    (table.name, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if table.name != "neurons" or column.primary_key or column.name in ("neuron_class", "total_effect", "effect_tokens")
]


@pytest.fixture(scope="module")
def whole(tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny atlas in one file, with a job in it."""
    path = tmp_path_factory.mktemp("whole") / "atlas.db"
    with sqlite3.connect(tiny_atlas.path) as source, sqlite3.connect(path) as target:
        source.backup(target)
    with Atlas.open(path) as atlas:
        request = {"source": "random", "sequences": 2, "span": 8, "parts": ["curves"]}
        atlas.jobs.keep_part(atlas.jobs.add("induction", tiny_atlas.slug, 1, request).id, "curves", ["{}"])
    with sqlite3.connect(path) as target:
        target.execute("PRAGMA journal_mode = DELETE")
    return path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path_factory.mktemp("cache"), device="cpu")
    yield engine
    engine.close()


Ask = Callable[[Path], dict[str, tuple[int, str]]]


@pytest.fixture
def ask(tiny_atlas: TinyAtlas, engine: LiveEngine) -> Ask:
    """Every address over an atlas: its status, and what an error says."""

    def asked(path: Path) -> dict[str, tuple[int, str]]:
        answers = {}
        with TestClient(create_service(Settings(atlas=str(path)), engine=engine)) as client:
            for place in PATHS:
                address = f"/api/v1{place}".replace("/v1/../", "/").replace("{slug}", tiny_atlas.slug)
                answer = client.get(address)
                answers[place] = (answer.status_code, "" if answer.is_success else answer.json()["detail"])
        return answers

    return asked


def test_a_whole_atlas_answers_everywhere(whole: Path, ask: Ask) -> None:
    assert {status for status, _ in ask(whole).values()} == {200}


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda part: str(part))
def test_a_damaged_cell_is_named_or_does_no_harm(
    table: str, column: str, whole: Path, ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kind of damage for each column of each table, another one for the next: over all columns, every kind.

    CALIBROSCOPE_ALL_DAMAGE=1 tries every kind in every column.
    """
    place = COLUMNS.index((table, column))
    for value in VALUES if os.environ.get("CALIBROSCOPE_ALL_DAMAGE") else [VALUES[place * 7 % len(VALUES)]]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
        shutil.copy(whole, path)
        with sqlite3.connect(path) as damaged:
            damaged.execute("PRAGMA ignore_check_constraints = ON")
            try:
                damaged.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?', (value,))
            except sqlite3.IntegrityError:
                continue  # SQLite itself holds this column to its word
        began = time.monotonic()
        for asked, (status, detail) in ask(path).items():
            assert status != 500, f"{asked} with {str(value)[:40]!r}: {detail}\n{capsys.readouterr().out[-3000:]}"
            if status == 503:
                assert "damaged" in detail or "fails" in detail or "cannot be opened" in detail, f"{asked}: {detail}"
                assert len(detail) < 1_000
        assert time.monotonic() - began < 20, f"{str(value)[:40]!r} takes far too long"


@pytest.mark.parametrize(
    "program",
    [
        "DROP TABLE contexts; CREATE VIEW contexts AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS id, 1 AS run, x'' AS token_ids, '[]' AS tokens, x'' AS loss, x'' AS entropy, x'' AS rank FROM n",
        "DROP TABLE models; CREATE VIEW models AS SELECT 1 AS slug",
        "CREATE TRIGGER t AFTER INSERT ON jobs BEGIN DELETE FROM runs; END",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
    ],
)
def test_stored_queries_are_refused(program: str, whole: Path, ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(whole, path)
    with sqlite3.connect(path) as altered:
        altered.executescript(program)
    began = time.monotonic()
    for place, (status, detail) in ask(path).items():
        assert status == 503, place
        assert "no atlas holds stored queries" in detail
    with pytest.raises(AtlasUnusable, match="stored queries"):
        Atlas.open(path)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("alteration", ["DROP TABLE histograms", "ALTER TABLE contexts DROP COLUMN rank"])
def test_what_lacks_a_table_or_a_column_is_refused(alteration: str, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(whole, path)
    with sqlite3.connect(path) as altered:
        altered.execute(alteration)
    with pytest.raises(AtlasUnusable, match=r"damaged.*lacks"):
        Atlas.open(path, read_only=True)


def test_a_read_that_does_not_end_is_interrupted(whole: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("backend.atlas.connect._READ_SECONDS", 0.0)
    monkeypatch.setattr("backend.atlas.connect._STEPS", 1)
    with pytest.raises(AtlasUnusable, match="interrupted"), Atlas.open(whole, read_only=True) as atlas:
        atlas.neurons.columns(1, ["total_effect"])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_refused_or_read_as_far_as_it_is_whole(
    share: float, whole: Path, ask: Ask, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    statuses = {status for status, _ in ask(path).values()}
    assert 503 in statuses
    assert statuses <= {200, 404, 503}


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_do_no_harm(seed: int, whole: Path, ask: Ask, tmp_path: Path) -> None:
    content, rng = bytearray(whole.read_bytes()), random.Random(seed)
    for _ in range(40):
        content[rng.randrange(100, len(content))] = rng.randrange(256)
    path = tmp_path / "a.db"
    path.write_bytes(content)
    for place, (status, detail) in ask(path).items():
        assert status in (200, 404, 503), f"{place}: {detail}"


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "pipe.db")
    for name in ("pipe.db", "folder.db", "link.db"):
        for read_only in (True, False):
            with pytest.raises(AtlasUnusable, match="not an atlas"):
                Atlas.open(tmp_path / name, read_only=read_only)


def test_an_atlas_on_a_disk_that_is_read_only_is_read(
    tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SQLite's files beside it, which cannot be made there."""
    path = tmp_path / "a.db"
    with sqlite3.connect(tiny_atlas.path) as source, sqlite3.connect(path) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
    for beside in tmp_path.glob("a.db-*"):
        beside.unlink()
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != tmp_path and access(place, mode))
    with Atlas.open(path, read_only=True) as atlas:
        assert atlas.runs.get(1).status == "finished"
    assert list(tmp_path.iterdir()) == [path], "nothing was written beside it"


@pytest.mark.parametrize(
    "shape", [(10**12,), (10**12, 0), (0, 10**12), (2**63,), (2**64 - 1, 2**64 - 1), (65_536, 65_536, 0)]
)
def test_an_array_that_claims_more_than_it_has_is_refused(shape: tuple[int, ...]) -> None:
    axes = b"".join(axis.to_bytes(8, "little") for axis in shape)
    with pytest.raises(MalformedArray, match="damaged"):
        unpack(b"CAL1" + bytes([1, len(shape)]) + axes)
