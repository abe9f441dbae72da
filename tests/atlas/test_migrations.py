"""Atlases of older versions open, and lose nothing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from typer.testing import CliRunner

from app.cli import app
from backend.atlas import connect
from backend.atlas.connect import AtlasMissing, AtlasOlder
from backend.atlas.store import Atlas
from tests.atlas.plans import MODEL

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def migrated(engine: sa.Engine, revision: str, direction: Any = command.upgrade) -> None:
    config = connect._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        direction(config, revision)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """An atlas whose finished run has a job's results in its neurons' own rows, as they were kept up to 0007."""
    path = tmp_path / "older.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    migrated(engine, "0007")
    counted = ("sequences", "seq_len", "seed", "null_dim", "tokens_sampled", "tokens_counted")
    run: dict[str, Any] = dict.fromkeys(counted, 1)
    run |= {"tokens_total": 1, "id": 1, "model": "tiny", "layer": 1, "status": "finished", "stage": "done"}
    run |= {"fingerprint": "f", "corpus": "words", "corpus_hash": "c", "weights_hash": "w", "progress": 1.0}
    run |= {"created_at": NOW, "heartbeat": NOW, "finished_at": NOW, "revision": 7, "config": {}, "versions": {}}
    names = ("weight_norm", "induction_change", "induction_change_se")
    neurons = [(1.0, 0.5, 0.1), (2.0, -1.0, None), (3.0, 0.0, 0.2)]
    rows = [
        {"run": 1, "layer": 1, "index": index, "neuron_class": "plain", "effect_tokens": 0}
        | dict(zip(names, neuron, strict=True))
        for index, neuron in enumerate(neurons)
    ]
    tables = sa.MetaData()
    tables.reflect(engine)
    models = tables.tables["models"]
    model = {name: value for name, value in vars(MODEL).items() if name in models.columns}
    with engine.begin() as connection:
        connection.execute(sa.insert(models), [model])
        connection.execute(sa.insert(tables.tables["runs"]), [run])
        connection.execute(sa.insert(tables.tables["neurons"]), rows)
    engine.dispose()
    return path


def test_what_jobs_measured_is_kept_when_it_gets_a_table_of_its_own(older: Path) -> None:
    with pytest.raises(AtlasOlder, match="calibroscope upgrade"):
        Atlas.open(older, read_only=True)
    Atlas.open(older).close()
    with Atlas.open(older, read_only=True) as atlas:
        found = atlas.neurons.columns(1, ["weight_norm", "induction_change", "induction_change_se"])
        assert found["weight_norm"].tolist() == [1.0, 2.0, 3.0]
        assert found["induction_change"].tolist() == [0.5, -1.0, 0.0]
        assert str(found["induction_change_se"].tolist()) == "[0.1, nan, 0.2]"
        assert atlas.runs.get(1).revision == "7"


def test_the_way_back_keeps_it_too(older: Path) -> None:
    Atlas.open(older).close()
    engine = sa.create_engine(f"sqlite:///{older}")
    migrated(engine, "0007", command.downgrade)
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT induction_change, induction_change_se FROM neurons")).fetchall()
    assert [tuple(row) for row in kept] == [(0.5, 0.1), (-1.0, None), (0.0, 0.2)]
    engine.dispose()


def test_the_command_brings_an_atlas_up_to_date_once(older: Path) -> None:
    first, second = (CliRunner().invoke(app, ["upgrade", "--atlas", str(older)]) for _ in range(2))
    assert (first.exit_code, first.output) == (0, "The atlas is up to date now.\n")
    assert (second.exit_code, second.output) == (0, "The atlas is up to date already.\n")
    with Atlas.open(older, read_only=True) as atlas:
        assert atlas.runs.get(1).model == "tiny"


def test_the_command_makes_no_atlas_where_there_is_none(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["upgrade", "--atlas", str(tmp_path / "none.db")])
    assert isinstance(refused.exception, AtlasMissing)
    assert not list(tmp_path.iterdir())
