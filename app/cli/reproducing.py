"""`reproduce`: the paper's figures for a model, measured first where the atlas lacks them."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.measuring import measure
from app.cli.options import AtlasFile, BosOrPreset, Device, settings_of
from backend.core.errors import BadConfig
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.schemas import Job

_SILENT_AFTER = timedelta(minutes=2)
"""A worker that has written no sign of life for so long has gone."""


def reproduce(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model as `precompute` takes it, or as the atlas calls it; a second one for figure 6."),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="One of the paper's models, measured with its settings (see `models`); a second one for figure 6. "
            "With as many --model beside it, those weights instead."
        ),
    ] = None,
    figures: Annotated[str, typer.Option(help="all, or the paper's numbers with commas: 1,2a,5b,9.")] = "all",
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("report"),
    induction: Annotated[
        int,
        typer.Option(min=0, max=2_000, help="Sequences for what the induction figures lack; 0: measure nothing more."),
    ] = 20,
    bos: BosOrPreset = None,
    atlas: AtlasFile = None,
    device: Device = None,
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

    wanted = _wanted(model or [], preset or [])
    try:
        parts = chosen_parts(figures)
    except ValueError as error:
        raise BadConfig(str(error)) from error
    settings = settings_of(atlas=atlas, device=device)
    named = [_source(one) for one in wanted]
    settings = settings.model_copy(update={"models": [*settings.models, *named]})  # who names a model confirms it
    runs = [_measured(one, settings, bos) for one in wanted]
    engine = live_engine(settings)
    try:
        client = AsyncClient(service=create_service(settings, engine=engine), timeout=600)
        if induction:
            _carry_out(anyio.run(queue_induction, client, runs[0], parts, induction), settings)
        page = anyio.run(write_report, client, runs, parts, out, typer.echo)
    finally:
        engine.close()
    typer.echo(f"The report is {page}.")


@dataclass(frozen=True)
class _Wanted:
    """A model to reproduce the figures for: named, or one of the paper's, or one measured as such."""

    model: str | None
    preset: str | None


def _wanted(models: list[str], presets: list[str]) -> list[_Wanted]:
    if max(len(models), len(presets)) > 2:
        raise BadConfig("--model and --preset can be given twice: the model, and one beside it in figure 6.")
    if not models and not presets:
        raise BadConfig("Name a model with --model, or one of the paper's with --preset.")
    if models and presets and len(models) != len(presets):
        raise BadConfig("Give as many --model as --preset, each in place of a preset's own, or no --model.")
    return [_Wanted(*pair) for pair in zip_longest(models, presets)]


def _source(wanted: _Wanted) -> str:
    from precompute.paper import paper_model

    return wanted.model if wanted.model is not None else paper_model(str(wanted.preset)).repository


def _measured(wanted: _Wanted, settings: Settings, bos: str | None) -> int:
    """The run of a model to reproduce from; measured now if the atlas has none. Of a preset it is the one that has the
    preset's settings."""
    from backend.atlas.connect import AtlasMissing
    from backend.atlas.store import Atlas

    name = _source(wanted)

    def finished() -> int | None:
        try:
            with Atlas.open(settings.atlas, read_only=True) as atlas:
                return atlas.runs.newest_finished(name)
        except AtlasMissing:
            return None

    run = finished() if wanted.preset is None else None
    if run is None:
        if wanted.preset is None:
            typer.echo(f"The atlas has no finished run of the last layer of {name}: it is measured now.")
        given = {"model": wanted.model, "bos": bos}
        given = {option: value for option, value in given.items() if value is not None}
        (run,) = measure(settings, wanted.preset, given)
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
