"""Connections over a real socket: closed while waiting, and used again after an error."""

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from backend.atlas.neurons import Neurons
from backend.live.engine import LiveEngine
from tests.conftest import TinyAtlas

V1 = "/api/v1"


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@contextmanager
def occupied(engine: LiveEngine) -> Iterator[None]:
    """The model at work for somebody until the body ends."""
    go_on, began = threading.Event(), threading.Event()

    def work() -> bool:
        began.set()
        return go_on.wait(60)

    thread = threading.Thread(target=lambda: engine.join().turn(work))
    thread.start()
    assert began.wait(30)
    try:
        yield
    finally:
        go_on.set()
        thread.join(30)


def asked_and_left(address: str, method: str, path: str, body: Any = None) -> None:
    """A request whose answer is not waited for longer than half a second."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.request(method, address + V1 + path, json=body, timeout=httpx.Timeout(30, read=0.5))


def test_whoever_leaves_the_line_to_the_model_gives_the_place_back(
    address: str, engine: LiveEngine, tiny_atlas: TinyAtlas
) -> None:
    asked: list[str] = []
    text = httpx.post(f"{address}{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp"}, timeout=60).json()
    with occupied(engine), pytest.MonkeyPatch.context() as patch:
        for name in ("trace", "sweep", "generate"):
            patch.setattr(LiveEngine, name, lambda *_, name=name, **__: asked.append(name))
        asked_and_left(address, "POST", f"/models/{tiny_atlas.slug}/texts", {"text": "nobody waits for this"})
        asked_and_left(address, "POST", f"/texts/{text['id']}/sweep", {})
        asked_and_left(address, "POST", f"/texts/{text['id']}/generate", {})
        until(lambda: engine.waiting == 1)
    until(lambda: engine.waiting == 0)
    engine.join().turn(lambda: None)  # whatever was left in line would have come before
    assert asked == [], "what nobody waits for is not done"
    assert engine._generations.open == 0
    again = httpx.post(f"{address}{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is"}, timeout=60)
    assert again.status_code == 200


def test_whoever_leaves_the_readers_lane_is_not_read_for(
    address: str, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, read, asked = threading.Event(), Neurons.page, []

    def wait(self: Neurons, run: int, query: Any) -> Any:
        asked.append(query.limit)
        assert go_on.wait(60)
        return read(self, run, query)

    monkeypatch.setattr(Neurons, "page", wait)
    page = f"/runs/{tiny_atlas.run}/neurons?limit="
    slow = [
        threading.Thread(target=httpx.get, args=(f"{address}{V1}{page}1",), kwargs={"timeout": 60}) for _ in range(8)
    ]
    for one in slow:
        one.start()
    until(lambda: len(asked) >= 2)
    for _ in range(3):
        asked_and_left(address, "GET", f"{page}7")
    go_on.set()
    for one in slow:
        one.join(30)
    assert httpx.get(f"{address}{V1}{page}3", timeout=30).status_code == 200
    assert 7 not in asked


def test_a_connection_can_be_used_again_after_an_error_that_nobody_expected(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.answers.glossary.glossary", lambda: 1 / 0)
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    for path, status in ((f"{V1}/glossary", 500), (f"{V1}/health", 200)) * 2:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == status
        assert answer.getheader("connection") != "close"
        answer.read()
        assert connection.sock is not None
        time.sleep(0.05)  # until the server would have closed it
    connection.close()
