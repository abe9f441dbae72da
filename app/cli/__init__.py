"""The `calibroscope` command: a file a group of commands, and the list of them here.

Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

import os
import sys

import typer

from app.cli.capturing import capture, effects
from app.cli.exporting import export
from app.cli.inspecting import doctor, models
from app.cli.measuring import precompute, worker
from app.cli.reproducing import reproduce
from app.cli.serving import demo, serve
from app.cli.training import checkpoints
from app.cli.upgrading import upgrade
from backend.core.errors import BadConfig, CalibroscopeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See how a language model regulates its own confidence.",
)
for command in (
    demo, precompute, capture, effects, checkpoints, worker, serve, export, reproduce, upgrade, doctor, models,
):  # fmt: skip
    app.command()(command)


def main() -> None:
    """Run the command line; an error that a person can act on ends with its sentence, not with a traceback."""
    # Read by OpenMP when torch is imported. By default its threads spin while they wait, and the analysis and the live
    # service, side by side on a few cores, would spend most of their time spinning against each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for huge pages: less time in page faults
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    try:
        _require_text(sys.argv)
        app()
    except CalibroscopeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from None


def _require_text(arguments: list[str]) -> None:
    """Names of files may hold bytes that are no text; nothing could be kept or shown under such a name."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise BadConfig(f"{argument!a} is not text in UTF-8: rename the file or folder.") from None
