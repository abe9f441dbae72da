"""`reproduce`: the paper's figures for a model, measured first where the atlas lacks them."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.measuring import precompute
from app.cli.options import AtlasFile, Bos, Device, settings_of
from backend.core.errors import BadConfig, CalibroscopeError
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.schemas import Job

_SILENT_AFTER = timedelta(minutes=2)
"""A worker that has written no sign of life for so long has gone."""


def reproduce(
    model: Annotated[
        list[str],
        typer.Option(help="A model as `precompute` takes it, or as the atlas calls it; a second one for figure 6."),
    ],
    figures: Annotated[str, typer.Option(help="all, or the paper's numbers with commas: 1,2a,5b,9.")] = "all",
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("report"),
    induction: Annotated[
        int,
        typer.Option(min=0, max=2_000, help="Sequences for what the induction figures lack; 0: measure nothing more."),
    ] = 20,
    bos: Bos = "auto",
    atlas: AtlasFile = None,
    device: Device = "auto",
) -> None:
    """Redraw the paper's figures for a model, and set its claims beside what was measured.

    Takes the newest finished run of the model's last layer in the atlas, and for the figures on induction its newest
    finished jobs; what is missing is measured first.
    """
    import anyio

    from app.cli.engine import live_engine
    from app.reproduce.parts import chosen_parts
    from app.reproduce.report import queue_induction, write_report
    from backend.client import AsyncClient
    from backend.service import create_service

    if len(model) > 2:
        raise BadConfig("--model can be given twice: the model, and one beside it in figure 6.")
    try:
        parts = chosen_parts(figures)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    settings = settings_of(atlas=atlas, device=device)
    settings = settings.model_copy(update={"models": [*settings.models, *model]})  # who names a model confirms it
    runs = [_measured(name, settings, bos) for name in model]
    engine = live_engine(settings)
    try:
        client = AsyncClient(service=create_service(settings, engine=engine), timeout=600)
        if induction:
            _carry_out(anyio.run(queue_induction, client, runs[0], parts, induction), settings)
        page = anyio.run(write_report, client, runs, parts, out, typer.echo)
    finally:
        engine.close()
    typer.echo(f"The report is {page}.")


def _measured(name: str, settings: Settings, bos: str) -> int:
    """The run of a model to reproduce from; measured now if the atlas has none."""
    from backend.atlas.connect import AtlasMissing
    from backend.atlas.store import Atlas

    def finished() -> int | None:
        try:
            with Atlas.open(settings.atlas, read_only=True) as atlas:
                return atlas.runs.newest_finished(name)
        except AtlasMissing:
            return None

    run = finished()
    if run is None:
        typer.echo(f"The atlas has no finished run of the last layer of {name}: it is measured now.")
        precompute(model=name, bos=bos, induction=0, out=str(settings.atlas), device=settings.device)
        run = finished()
    if run is None:
        raise CalibroscopeError(f"{name} was measured, but the atlas does not have it under that name.")
    return run


def _carry_out(queued: "list[Job]", settings: Settings) -> None:
    """Do jobs here and now; one that another worker is at is waited for."""
    from backend.atlas.store import Atlas
    from backend.core.models.trust import KnownSources
    from precompute.progress import reporting
    from precompute.worker import POLL_SECONDS, Worker

    if not queued:
        return
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        known = KnownSources(settings.cache_dir, settings.models)
        worker = Worker(atlas, settings.cache_dir, reporter, settings.device, known)
        for job in queued:
            if job.worker_is_alive:
                reporter.say(f"Another worker is at job {job.id}: waiting for it.")
            while (now := atlas.jobs.get(job.id)).status == "running" and datetime.now(
                UTC
            ) - now.heartbeat < _SILENT_AFTER:
                time.sleep(POLL_SECONDS)
            if now.status in ("queued", "running"):
                worker.do(atlas.jobs.begin(job.id))
