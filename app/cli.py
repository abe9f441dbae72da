"""The `calibroscope` command: demo, precompute, serve, export, reproduce, models.

Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from backend.core.errors import BadConfig, CalibroscopeError
from backend.settings import Settings, unusable

if TYPE_CHECKING:
    from backend.live.engine import LiveEngine
    from backend.schemas import Job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See how a language model regulates its own confidence.",
)

DEMO_SEQUENCES = 60


class Mode(StrEnum):
    exact = "exact"
    survey = "survey"


class Frequency(StrEnum):
    model = "model"
    corpus = "corpus"


class Format(StrEnum):
    csv = "csv"
    parquet = "parquet"
    json = "json"


Model = Annotated[
    str, typer.Option(help="A packaged model, a Hugging Face name, a model folder, or a .gguf file (see `models`).")
]
Dataset = Annotated[
    str, typer.Option(help="A packaged corpus, a .txt, .jsonl or .parquet file, or a Hugging Face dataset.")
]
Sequences = Annotated[int, typer.Option(min=1, help="Sequences to sample from the corpus.")]
SeqLen = Annotated[int, typer.Option(min=8, help="Tokens a sequence.")]
Seed = Annotated[int, typer.Option(help="Which sequences are drawn, and in which order positions are measured.")]
Bos = Annotated[
    str,
    typer.Option(
        help="What stands before each sequence: auto (a BOS or nothing, by the lower loss; else as the tokenizer "
        "does), always (the tokenizer's BOS), never, or a token: its text, or its number."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
AtlasFile = Annotated[str | None, typer.Option(help="The atlas: a SQLite file, or a database URL. [default: settings]")]
Host = Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. [default: 8050]")]


@app.command()
def demo(
    model: Model = "smollm2-135m",
    dataset: Dataset = "lee-news",
    sequences: Sequences = DEMO_SEQUENCES,
    seq_len: SeqLen = 256,
    bos: Bos = "auto",
    device: Device = "auto",
    atlas: AtlasFile = None,
    host: Host = None,
    port: Port = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Analyse a model and watch it happen: opens the dashboard at once and fills it while the analysis runs."""
    settings = _settings(atlas=atlas, host=host, port=port, device=device)
    _require_free_port(settings)
    command = [sys.executable, "-m", "app.cli", "precompute", "--model", model, "--dataset", dataset]
    command += ["--sequences", str(sequences), "--seq-len", str(seq_len), f"--bos={bos}", "--device", device]
    command += ["--out", str(settings.atlas)]
    with _beside(command) as analysis:
        _serve(settings, _open_page if browser else None, analysis)


@app.command()
def precompute(
    model: Model,
    dataset: Dataset = "lee-news",
    sequences: Sequences = 100,
    seq_len: SeqLen = 256,
    seed: Seed = 0,
    null_dim: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the null space. [default: 1 % of d_model]")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a Hugging Face dataset.")] = "train",
    field: Annotated[str, typer.Option(help="Field that holds the text.")] = "text",
    layers: Annotated[
        str, typer.Option(help="Layers to measure, from 0, with commas: each is a run. [default: the last]")
    ] = "",
    mode: Annotated[
        Mode, typer.Option(help="exact, or survey: faster, each token's effect within a stated bound.")
    ] = Mode.exact,
    frequency: Annotated[
        Frequency | None, typer.Option(help="Token frequencies: the model's mean prediction, or counts of the corpus.")
    ] = None,
    counts: Annotated[
        str | None, typer.Option(help="An .npy file of token counts by token id, instead of --frequency.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory for the effects. [default: 4GB]")] = None,
    bos: Bos = "auto",
    induction: Annotated[
        int, typer.Option(min=0, max=2_000, help="Sequences for the induction lab's figures, after all else; 0: none.")
    ] = 20,
    device: Device = "auto",
    out: AtlasFile = None,
) -> None:
    """Measure every neuron of a model's last layer, or of others; interrupted, it resumes where it stopped."""
    from backend.atlas.store import Atlas
    from precompute.config import RunConfig
    from precompute.pipeline import run
    from precompute.progress import reporting
    from precompute.worker import measure_induction

    if counts and frequency:
        raise BadConfig("--counts tells the token frequencies: leave --frequency out.")
    settings = _settings(atlas=out, device=device, memory=memory)
    scratch = settings.cache_dir / "work"
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        for layer in _layers(layers):
            config = RunConfig(
                model, dataset, sequences, seq_len, seed, null_dim, split, field, layer, mode.value,
                "counts" if counts else "model" if frequency is None else frequency.value, counts, bos,
            )  # fmt: skip
            done = run(config, atlas, settings.cache_dir, scratch, reporter, device, settings.memory)
            reporter.say(f"Run {done} is finished, in {settings.atlas}.")
            if induction:
                measure_induction(done, induction, atlas, settings.cache_dir, reporter, device)


@app.command()
def worker(
    atlas: AtlasFile = None,
    device: Device = "auto",
    once: Annotated[bool, typer.Option("--once", help="Stop when no job is waiting.")] = False,
) -> None:
    """Do the jobs that wait in the atlas; stopped, the job it was at waits again and keeps what it has found."""
    from backend.atlas.store import Atlas
    from backend.core.models.trust import KnownSources
    from precompute.progress import reporting
    from precompute.worker import Worker

    settings = _settings(atlas=atlas, device=device)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Atlas.open(settings.atlas) as opened, reporting() as reporter:
        known = KnownSources(settings.cache_dir, settings.models)
        taken = Worker(opened, settings.cache_dir, reporter, settings.device, known).work(once=once)
    typer.echo(f"{taken} jobs taken; none is waiting.")


@app.command()
def serve(atlas: AtlasFile = None, host: Host = None, port: Port = None, device: Device = "auto") -> None:
    """Serve the dashboard and the API on one port."""
    settings = _settings(atlas=atlas, host=host, port=port, device=device)
    _require_free_port(settings)
    _serve(settings, None)


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write.")],
    atlas: AtlasFile = None,
    format: Annotated[Format, typer.Option(help="csv, parquet or json.")] = Format.csv,
    run: Annotated[int | None, typer.Option(help="The run to export. [default: the newest]")] = None,
) -> None:
    """Write one row a neuron, with every metric and its standard error."""
    from backend.atlas.export import export_run
    from backend.atlas.store import Atlas

    with Atlas.open(_settings(atlas=atlas).atlas, read_only=True) as opened:
        chosen = opened.runs.newest() if run is None else run
        written = export_run(opened, chosen, format.value, out)
    typer.echo(f"Run {chosen} written to {' and '.join(str(path) for path in written)}.")


@app.command()
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
    settings = _settings(atlas=atlas, device=device)
    settings = settings.model_copy(update={"models": [*settings.models, *model]})  # who names a model confirms it
    runs = [_measured(name, settings, bos) for name in model]
    engine = _engine(settings)
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

    def known() -> int | None:
        try:
            with Atlas.open(settings.atlas, read_only=True) as atlas:
                return atlas.runs.newest_finished(name)
        except AtlasMissing:
            return None

    found = known()
    if found is None:
        typer.echo(f"The atlas has no finished run of the last layer of {name}: it is measured now.")
        precompute(model=name, bos=bos, induction=0, out=str(settings.atlas), device=settings.device)
        found = known()
    if found is None:
        raise CalibroscopeError(f"{name} was measured, but the atlas does not have it under that name.")
    return found


def _carry_out(queued: "list[Job]", settings: Settings) -> None:
    """Do jobs here and now; one that another worker is at is waited for."""
    from backend.atlas.store import Atlas
    from backend.core.models.trust import KnownSources
    from precompute.progress import reporting
    from precompute.worker import POLL_SECONDS, Worker

    silent = timedelta(minutes=2)
    if not queued:
        return
    with Atlas.open(settings.atlas) as atlas, reporting() as reporter:
        known = KnownSources(settings.cache_dir, settings.models)
        worker = Worker(atlas, settings.cache_dir, reporter, settings.device, known)
        for job in queued:
            if job.worker_is_alive:
                reporter.say(f"Another worker is at job {job.id}: waiting for it.")
            while (now := atlas.jobs.get(job.id)).status == "running" and datetime.now(UTC) - now.heartbeat < silent:
                time.sleep(POLL_SECONDS)
            if now.status in ("queued", "running"):
                worker.do(atlas.jobs.begin(job.id))


@app.command()
def doctor(atlas: AtlasFile = None, host: Host = None, port: Port = None, device: Device = "auto") -> None:
    """Check this installation, and with --atlas everything that an atlas holds; ends with 1 where something is wrong.

    Nothing is changed or mended: a damaged atlas is replaced by a whole copy, or measured again.
    """
    from itertools import chain

    from rich.console import Console
    from rich.text import Text

    from backend.atlas.inspection import inspect_atlas
    from precompute.installation import inspect_installation

    settings, console, wrong = _settings(atlas=atlas, host=host, port=port, device=device), Console(), 0
    here = inspect_installation(settings.cache_dir, settings.device, settings.host, settings.port)
    for finding in chain(here, inspect_atlas(settings.atlas) if atlas is not None else ()):
        wrong += not finding.is_well
        mark = Text("well   ", "green") if finding.is_well else Text("WRONG  ", "bold red")
        console.print(mark + Text(f"{finding.what}: {finding.sentence}"))  # as text: an atlas's words are no markup
    console.print(Text("All is well." if not wrong else f"{wrong} thing{' is' if wrong == 1 else 's are'} wrong."))
    raise typer.Exit(1 if wrong else 0)


@app.command()
def models() -> None:
    """List the models and corpora that need no hub."""
    from backend.core.models.sources import PACKAGED_MODELS
    from precompute.corpus import PACKAGED_CORPORA

    typer.echo("Models:")
    for name, model in PACKAGED_MODELS.items():
        typer.echo(f"  {name:<14} {model.megabytes:>4} MB  {model.licence}: {model.name}")
    typer.echo("Corpora:")
    for name, file in PACKAGED_CORPORA.items():
        typer.echo(f"  {name:<14} {file.megabytes:>4} MB  {file.licence}")
    typer.echo("Also: a Hugging Face name, a model folder with safetensors, a .gguf file.")


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


def _layers(listed: str) -> list[int | None]:
    """`3, 7` as numbers; nothing listed is the last layer."""
    try:
        return [int(part) for part in listed.split(",")] if listed.strip() else [None]
    except ValueError:
        raise typer.BadParameter(f"{listed!r} is not a list of layers: write 3,7 (from 0).") from None


def _settings(**given: object) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise BadConfig(unusable(error)) from None


def _require_free_port(settings: Settings) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise CalibroscopeError(
                f"Cannot listen on {settings.host}:{settings.port} ({error.strerror}). Is a dashboard running there "
                "already? Choose another port: --port 8051, or make demo PORT=8051."
            ) from error


def _serve(
    settings: Settings, when_ready: Callable[[str], None] | None, analysis: subprocess.Popen[bytes] | None = None
) -> None:
    import anyio

    from app.dashboard import create_dashboard, warm_up
    from backend.client import AsyncClient
    from backend.guards.connections import server_config
    from backend.guards.stopping import StoppingServer
    from backend.service import announce, create_service

    engine = _engine(settings)
    service = create_service(settings, engine=engine)
    create_dashboard(AsyncClient(service=service), service)
    anyio.run(warm_up, service)
    address = f"http://{settings.host}:{settings.port}/"
    typer.echo(f"Calibroscope is at {address} (stop with Ctrl-C)")
    if analysis is not None:
        threading.Thread(target=lambda: _tell(analysis, partial(announce, service)), daemon=True).start()
    if when_ready is not None:
        timer = threading.Timer(1.5, when_ready, [address])
        timer.daemon = True
        timer.start()
    with suppress(KeyboardInterrupt):
        StoppingServer(server_config(service, settings.host, settings.port), engine.close).run()
    engine.close()


def _engine(settings: Settings) -> "LiveEngine":
    from backend.core.models.trust import KnownSources
    from backend.live.engine import LiveEngine

    return LiveEngine(
        settings.cache_dir,
        device=settings.device,
        models=settings.models_in_memory,
        texts_mb=settings.texts_mb,
        queue_limit=settings.queue_limit,
        queue_seconds=settings.queue_seconds,
        memory=settings.memory,
        known=KnownSources(settings.cache_dir, settings.models),
    )


def _tell(analysis: subprocess.Popen[bytes], announce: Callable[[str], None]) -> None:
    """Wait for the analysis; if it ends with an error, the page should not go on promising neurons."""
    if analysis.wait() > 0:
        announce(
            "The analysis ended with an error. The terminal in which the demo was started says which, and what to do; "
            "started again, it resumes where it stopped."
        )


def _open_page(address: str) -> None:
    # Without a screen, webbrowser would start a text browser in this terminal.
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen:
        webbrowser.open(address)


@contextmanager
def _beside(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside the body, and stop it with the body; what it has finished is kept, the rest resumes."""
    # Without a handler, a termination signal would end this process before it could stop the other.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    child = subprocess.Popen(command)
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, child.pid, 10)  # a person at the page goes before the analysis
    try:
        yield child
    finally:
        child.terminate()
        child.wait(timeout=30)


if __name__ == "__main__":
    main()
