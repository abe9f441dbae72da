"""One row a neuron, with every metric and its standard error: CSV, Parquet or JSON."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from backend.atlas.store import Atlas, NotInAtlas
from backend.glossary import METRIC_COLUMNS

Format = Literal["csv", "parquet", "json"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/json",
}


def run_table(atlas: Atlas, run: int) -> pa.Table:
    """All neurons of a run; a metric that is not measured, or not finite, is null.

    Raises:
        NotInAtlas: no such run.
    """
    record = atlas.run(run)
    columns = atlas.columns(run, list(METRIC_COLUMNS))
    index = columns["index"].astype(np.int64)
    table = {
        "neuron": pa.array([f"{record.layer}.{i}" for i in index], pa.string()),
        "layer": pa.array(np.full(len(index), record.layer), pa.int64()),
        "index": pa.array(index, pa.int64()),
        "neuron_class": pa.array(atlas.classes(run), pa.string()),
        "effect_tokens": pa.array(columns["effect_tokens"].astype(np.int64), pa.int64()),
    }
    for name in METRIC_COLUMNS:
        table[name] = pa.array(columns[name], pa.float64(), mask=~np.isfinite(columns[name]))
    return pa.table(table)


def write_table(table: pa.Table, format: Format, sink: BinaryIO) -> None:
    """A table into an open binary file."""
    writers: dict[Format, Callable[[], object]] = {
        "csv": lambda: pacsv.write_csv(table, sink),
        "parquet": lambda: pq.write_table(table, sink),
        "json": lambda: sink.write(orjson.dumps(table.to_pylist(), option=orjson.OPT_INDENT_2)),
    }
    writers[format]()


def export_run(atlas: Atlas, run: int | None, format: Format, path: Path) -> None:
    """A run into a file, which appears only when it is whole.

    Raises:
        NotInAtlas: no such run, or none at all.
    """
    if run is None:
        raise NotInAtlas("The atlas has no run to export yet.")
    table = run_table(atlas, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # not mkstemp, whose files nobody else can read
    try:
        with part.open("xb") as sink:
            write_table(table, format, sink)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
