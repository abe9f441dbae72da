"""The doctor finds a whole atlas well, and names what is damaged in another one."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from backend.atlas.inspection import inspect_atlas
from tests.conftest import TinyAtlas


@pytest.fixture
def copy(tiny_atlas: TinyAtlas, tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with sqlite3.connect(tiny_atlas.path) as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


def test_a_whole_atlas_is_well(copy: Path) -> None:
    found = list(inspect_atlas(str(copy)))
    assert all(finding.is_well for finding in found), found
    assert any("run 1" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE histograms SET counts = x'00' WHERE \"index\" = 3", "neuron 3"),
        ("UPDATE spectra SET singular_values = x'00'", "spectrum"),
        ('DELETE FROM neurons WHERE "index" = 43', "neurons"),
        ("UPDATE models SET vocabulary = '[]'", "model"),
        ("UPDATE contexts SET token_ids = 5", "text"),
        ("CREATE VIEW v AS SELECT 1", "atlas"),
        ("DROP TABLE unigrams", "atlas"),
    ],
)
def test_what_is_damaged_is_named(change: str, named: str, copy: Path) -> None:
    with sqlite3.connect(copy) as damaged:
        damaged.execute(change)
    wrong = [finding for finding in inspect_atlas(str(copy)) if not finding.is_well]
    assert any(named in finding.what for finding in wrong), wrong


def test_a_file_that_is_cut_short_is_found(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    assert not all(finding.is_well for finding in inspect_atlas(str(copy)))


def test_nothing_is_changed(copy: Path) -> None:
    before = shutil.copy(copy, copy.with_name("before.db"))
    list(inspect_atlas(str(copy)))
    assert copy.read_bytes() == Path(before).read_bytes()
