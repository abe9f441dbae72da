"""One row a neuron, in every format the same."""

import json
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from backend.answers import export
from backend.answers.runs import run_summary
from backend.atlas.database import NotInAtlas
from backend.atlas.store import Atlas
from backend.glossary import METRIC_COLUMNS
from backend.schemas import RunSummary
from tests.conftest import TinyAtlas


def test_formats_agree_and_have_the_glossarys_columns(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        for format in ("csv", "parquet", "json"):
            export.export_run(atlas, tiny_atlas.run, format, tmp_path / f"out.{format}")
        expected = atlas.neurons.columns(tiny_atlas.run, ["total_effect"])["total_effect"]
    tables = [pq.read_table(tmp_path / "out.parquet"), pacsv.read_csv(tmp_path / "out.csv")]
    rows = [table.to_pylist() for table in tables] + [json.loads((tmp_path / "out.json").read_text())["neurons"]]
    assert rows[0][3]["neuron"] == rows[2][3]["neuron"] == f"{tiny_atlas.layer}.3"
    for table in rows:
        assert len(table) == tiny_atlas.neurons
        assert set(METRIC_COLUMNS) <= set(table[0])
        assert (table[3]["layer"], table[3]["index"]) == (tiny_atlas.layer, 3)
        np.testing.assert_allclose([row["total_effect"] for row in table], expected)


def test_every_format_says_what_was_measured(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    """In a Parquet file's metadata, in a JSON file's object, beside a CSV, which has no line but its head and rows."""
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        expected = run_summary(atlas.runs.get(tiny_atlas.run))
        for format in ("parquet", "json"):
            written = export.export_run(atlas, tiny_atlas.run, format, tmp_path / f"out.{format}")
            assert written == [tmp_path / f"out.{format}"]
        written = export.export_run(atlas, tiny_atlas.run, "csv", tmp_path / "out.csv")
    assert written == [tmp_path / "out.csv", tmp_path / "out.csv.json"]
    told = [
        pq.read_schema(tmp_path / "out.parquet").metadata[export.RUN_KEY],
        json.dumps(json.loads((tmp_path / "out.json").read_text())["run"]),
        (tmp_path / "out.csv.json").read_text(),
    ]
    for one in told:
        assert RunSummary.model_validate_json(one) == expected
        assert str(tiny_atlas.path.parent) not in str(one), "no folder of the machine that measured it"
    assert expected.card is not None
    assert expected.card.checkpoint.name == "llama"
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + tiny_atlas.neurons


def test_a_failure_leaves_no_file(tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(export, "write_table", fail)
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas, pytest.raises(OSError, match="disk full"):
        export.export_run(atlas, tiny_atlas.run, "csv", tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_what_the_users_mask_lets_them(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        export.export_run(atlas, tiny_atlas.run, "csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_atlas_has_nothing_to_export(tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas, pytest.raises(NotInAtlas, match="no run to export"):
        export.export_run(atlas, atlas.runs.newest(), "csv", tmp_path / "out.csv")


def test_a_name_that_says_another_format_is_refused(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        with pytest.raises(export.WrongEnding, match="add --format parquet"):
            export.export_run(atlas, tiny_atlas.run, "csv", tmp_path / "new" / "out.parquet")
        assert list(tmp_path.iterdir()) == []
        export.export_run(atlas, tiny_atlas.run, "csv", tmp_path / "out.txt")
