"""The service is asked to stop while somebody waits for the model and somebody follows a job: it ends all the same."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.guards.connections import server_config
from backend.guards.stopping import LAST_SECONDS, StoppingServer
from backend.live.engine import LiveEngine
from backend.live.queue import LineClosed
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1"


def test_nobody_who_waits_keeps_the_service_from_ending(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "a.db"
    path.write_bytes(tiny_atlas.path.read_bytes())
    engine, address = LiveEngine(tmp_path, device="cpu"), f"http://127.0.0.1:{port}{V1}"
    service = create_service(Settings(atlas=str(path), port=port), engine=engine)
    server = StoppingServer(server_config(service, "127.0.0.1", port), engine.close)
    serving = threading.Thread(target=server.run, daemon=True)
    serving.start()
    while not server.started:
        time.sleep(0.02)
    go_on, began, answers = threading.Event(), threading.Event(), list[httpx.Response]()

    def work() -> bool:
        began.set()
        return go_on.wait(60)

    def load() -> None:
        with pytest.raises(LineClosed):
            engine.join().turn(work)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    assert began.wait(20)

    def ask() -> None:
        body = {"text": "The lamp is lit."}
        answers.append(httpx.post(f"{address}/models/{tiny_atlas.slug}/texts", json=body, timeout=60))

    def follow(number: int) -> None:
        with (
            suppress(httpx.RemoteProtocolError),
            httpx.stream("GET", f"{address}/jobs/{number}/events", timeout=60) as stream,
        ):
            first.set()
            list(stream.iter_lines())

    first, asked = threading.Event(), threading.Thread(target=ask, daemon=True)
    job: dict[str, Any] = {"kind": "induction", "model": tiny_atlas.slug}
    job["induction"] = {"source": "random", "neurons": [f"{tiny_atlas.layer}.3"]}
    number = httpx.post(f"{address}/jobs", json=job, timeout=60).json()["id"]
    following = threading.Thread(target=follow, args=(number,), daemon=True)
    asked.start()
    following.start()
    assert first.wait(20)
    while engine.waiting < 2:
        time.sleep(0.02)
    server.should_exit, at = True, time.monotonic()
    serving.join(30)
    assert not serving.is_alive()
    assert time.monotonic() - at < LAST_SECONDS + 10
    asked.join(20)
    assert answers[0].status_code == 503
    assert "being stopped" in answers[0].json()["detail"]
    following.join(20)
    assert not following.is_alive()
    loading.join(20)
    assert not loading.is_alive(), "though what it asked for is not done yet"
    go_on.set()
