"""One row a neuron, with every metric and its standard error: CSV, Parquet or JSON.

What was measured goes with the numbers: into a Parquet file's key-value metadata, into the object that a JSON file is,
and into a file beside a CSV, which stays free of comments.
"""

import io
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from backend.answers.runs import run_summary
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.records import RunRecord
from backend.atlas.store import Atlas
from backend.core.errors import CalibroscopeError
from backend.glossary import METRIC_COLUMNS, PAPER_CRITERION

Format = Literal["csv", "parquet", "json"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}


RUN_KEY = b"calibroscope.run"
"""Under which a Parquet file's metadata, and a table's, say what was measured: a run as the API has it, JSON."""


def run_table(atlas: Atlas, record: RunRecord) -> pa.Table:
    """All neurons of a run; a metric that is not measured, or not finite, is null. What was measured is the table's
    metadata."""
    columns = atlas.neurons.columns(record.id, list(METRIC_COLUMNS))
    index = columns["index"].astype(np.int64)
    table = {
        "neuron": pa.array([str(record.neuron(i)) for i in index.tolist()], pa.string()),
        "layer": pa.array(np.full(len(index), record.layer), pa.int64()),
        "index": pa.array(index, pa.int64()),
        "neuron_class": pa.array(atlas.neurons.classes(record.id), pa.string()),
        PAPER_CRITERION: pa.array(atlas.neurons.marks(record.id), pa.bool_()),
        "effect_tokens": pa.array(columns["effect_tokens"].astype(np.int64), pa.int64()),
    }
    for name in METRIC_COLUMNS:
        table[name] = pa.array(columns[name], pa.float64(), mask=~np.isfinite(columns[name]))
    return pa.table(table).replace_schema_metadata({RUN_KEY: about(record)})


def about(record: RunRecord) -> bytes:
    """What was measured, as JSON: the run with its card, as `GET /api/v1/runs/{run}` has it."""
    return run_summary(record).model_dump_json(indent=2).encode()


def write_table(table: pa.Table, format: Format, sink: BinaryIO) -> None:
    """A run's table into an open binary file."""
    writers: dict[Format, Callable[[], object]] = {
        "csv": lambda: pacsv.write_csv(table, sink),
        "parquet": lambda: pq.write_table(table, sink),
        "json": lambda: sink.write(_as_json(table)),
    }
    writers[format]()


def _as_json(table: pa.Table) -> bytes:
    run = orjson.Fragment(table.schema.metadata[RUN_KEY])
    return orjson.dumps({"run": run, "neurons": table.to_pylist()}, option=orjson.OPT_INDENT_2)


class WrongEnding(CalibroscopeError):
    """A file's name says another format than it is to have."""

    def __init__(self, path: Path, format: Format) -> None:
        ending = path.suffix.lower()
        super().__init__(f"{path.name} ends in {ending} but is to be {format}: add --format {ending[1:]} or rename it.")


def export_run(atlas: Atlas, run: int | None, format: Format, path: Path) -> list[Path]:
    """A run into a file, which appears only when it is whole; the files written, of a CSV also the one that says what
    was measured.

    Raises:
        NotInAtlas: no such run, or none at all.
        WrongEnding: the file's name ends as another format does.
    """
    if path.suffix.lower().removeprefix(".") in MEDIA_TYPES.keys() - {format}:
        raise WrongEnding(path, format)
    if run is None:
        raise NotInAtlas("The atlas has no run to export yet.")
    table = run_table(atlas, atlas.runs.get(run))
    contents: dict[Path, Callable[[BinaryIO], object]] = {path: lambda sink: write_table(table, format, sink)}
    if format == "csv":
        contents[path.with_name(f"{path.name}.json")] = lambda sink: sink.write(table.schema.metadata[RUN_KEY])
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {_part_of(whole): whole for whole in contents}
    try:
        for part, whole in parts.items():
            with part.open("xb") as sink:
                contents[whole](sink)
        for part, whole in parts.items():
            part.replace(whole)
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise
    return list(contents)


def _part_of(path: Path) -> Path:
    """A name beside a file for what is not whole yet; not mkstemp's, whose files nobody else can read."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


@damage.reading("a run's table")
def exported(atlas: Atlas, record: RunRecord, format: Format) -> bytes:
    """A run's table as the bytes of a file."""
    sink = io.BytesIO()
    write_table(run_table(atlas, record), format, sink)
    return sink.getvalue()
