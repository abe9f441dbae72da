"""`demo` and `serve`: the dashboard and the API on one port, with an analysis beside them or without one."""

import os
import signal
import socket
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Annotated

import typer

from app.cli.options import AtlasFile, Bos, Dataset, Device, Host, Model, Port, Revision, SeqLen, Sequences, settings_of
from backend.core.errors import CalibroscopeError
from backend.settings import Settings

DEMO_SEQUENCES = 60


def demo(
    model: Model = "smollm2-135m",
    dataset: Dataset = "lee-news",
    sequences: Sequences = DEMO_SEQUENCES,
    seq_len: SeqLen = 256,
    bos: Bos = "auto",
    revision: Revision = None,
    device: Device = None,
    atlas: AtlasFile = None,
    host: Host = None,
    port: Port = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Analyse a model and watch it happen: opens the dashboard at once and fills it while the analysis runs."""
    settings = settings_of(atlas=atlas, host=host, port=port, device=device)
    _require_free_port(settings)
    command = [sys.executable, "-m", "app.cli", "precompute", "--model", model, "--dataset", dataset]
    command += ["--sequences", str(sequences), "--seq-len", str(seq_len), f"--bos={bos}", "--device", settings.device]
    command += ["--out", str(settings.atlas), *([] if revision is None else [f"--revision={revision}"])]
    with analysis_beside(command) as analysis:
        _serve(settings, _open_page if browser else None, analysis)


def serve(atlas: AtlasFile = None, host: Host = None, port: Port = None, device: Device = None) -> None:
    """Serve the dashboard and the API on one port."""
    settings = settings_of(atlas=atlas, host=host, port=port, device=device)
    _require_free_port(settings)
    _serve(settings, None)


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

    from app.cli.engine import live_engine
    from app.dashboard import create_dashboard, warm_up
    from backend.client import AsyncClient
    from backend.guards.connections import server_config
    from backend.guards.stopping import StoppingServer
    from backend.service import announce, create_service

    engine = live_engine(settings)
    service = create_service(settings, engine=engine)
    create_dashboard(AsyncClient(service=service), service)
    anyio.run(warm_up, service)
    address = f"http://{settings.host}:{settings.port}/"
    typer.echo(f"Calibroscope is at {address} (stop with Ctrl-C)")
    if analysis is not None:
        threading.Thread(target=announce_failure, args=(analysis, partial(announce, service)), daemon=True).start()
    if when_ready is not None:
        timer = threading.Timer(1.5, when_ready, [address])
        timer.daemon = True
        timer.start()
    with suppress(KeyboardInterrupt):
        StoppingServer(server_config(service, settings.host, settings.port), engine.close).run()
    engine.close()


def announce_failure(analysis: subprocess.Popen[bytes], announce: Callable[[str], None]) -> None:
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
def analysis_beside(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
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
