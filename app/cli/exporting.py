"""`export`: a run's neurons as a table."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import AtlasFile, settings_of


class Format(StrEnum):
    csv = "csv"
    parquet = "parquet"
    json = "json"


def export(
    out: Annotated[Path, typer.Option(help="The file to write; folders that are not there are made.")],
    atlas: AtlasFile = None,
    format: Annotated[Format, typer.Option(help="csv, parquet or json.")] = Format.csv,
    run: Annotated[int | None, typer.Option(help="The run to export. [default: the newest]")] = None,
) -> None:
    """Write one row a neuron, with every metric and its standard error."""
    from backend.answers.export import export_run
    from backend.atlas.store import Atlas

    with Atlas.open(settings_of(atlas=atlas).atlas, read_only=True) as opened:
        chosen = opened.runs.newest() if run is None else run
        written = export_run(opened, chosen, format.value, out)
    typer.echo(f"Run {chosen} written to {' and '.join(str(path) for path in written)}.")
