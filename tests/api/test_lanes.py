"""Those who read and those who wait for the model do not hold each other up, whatever the others do."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from backend.atlas.neurons import Neurons
from backend.client import ApiError, AsyncClient, calls
from backend.live.engine import LiveEngine
from backend.routes import lanes
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1"
LIMIT = 4


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path, device="cpu", queue_limit=LIMIT, queue_seconds=3600)
    yield engine
    engine.close()


@pytest.fixture
def service(tiny_atlas: TinyAtlas, engine: LiveEngine) -> FastAPI:
    return create_service(Settings(atlas=str(tiny_atlas.path)), engine=engine)


@asynccontextmanager
async def asking(service: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=service)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as http:
        yield http


@contextmanager
def slow_model(engine: LiveEngine) -> Iterator[threading.Event]:
    """The model at work for somebody, until the event is set."""
    go_on, began = threading.Event(), threading.Event()

    def work() -> bool:
        began.set()
        return go_on.wait(60)

    thread = threading.Thread(target=lambda: engine.join().turn(work))
    thread.start()
    assert began.wait(30)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join(30)


@contextmanager
def slow_atlas(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An atlas that answers no reader's question about neurons until the event is set."""
    go_on, read = threading.Event(), Neurons.page

    def wait(*given: Any) -> Any:
        assert go_on.wait(60)
        return read(*given)

    monkeypatch.setattr(Neurons, "page", wait)
    try:
        yield go_on
    finally:
        go_on.set()


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_readers_are_answered_while_the_model_is_at_work_and_its_line_is_full(
    service: FastAPI, engine: LiveEngine, tiny_atlas: TinyAtlas
) -> None:
    async with asking(service) as http, asyncio.TaskGroup() as people:
        with slow_model(engine):
            waiting = [
                people.create_task(http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": f"Lamp {n}"}))
                for n in range(LIMIT - 1)
            ]
            await until(lambda: engine.waiting == LIMIT)
            pages = await asyncio.gather(*(http.get(f"{V1}/runs/{tiny_atlas.run}/neurons") for _ in range(60)))
            assert {page.status_code for page in pages} == {200}
            assert not any(one.done() for one in waiting)
    assert {one.result().status_code for one in waiting} == {200}
    assert engine.waiting == 0


@pytest.mark.anyio
async def test_a_text_is_answered_while_more_people_read_than_there_are_threads(
    service: FastAPI, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(service) as http, asyncio.TaskGroup() as people:
        with slow_atlas(monkeypatch):
            readers = [
                people.create_task(http.get(f"{V1}/runs/{tiny_atlas.run}/neurons?limit={n + 1}")) for n in range(60)
            ]
            await asyncio.sleep(0.2)
            answer = await http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is lit."})
            assert answer.status_code == 200
            assert (await http.get(f"{V1}/health")).json()["queue"] == 0
            assert not any(one.done() for one in readers)
    assert {one.result().status_code for one in readers} == {200}


@pytest.mark.anyio
async def test_the_pages_client_takes_the_same_lanes_and_does_not_lock_itself_out(
    service: FastAPI, engine: LiveEngine, tiny_atlas: TinyAtlas
) -> None:
    """Dash asks the service from within it."""
    client = AsyncClient(service=service)
    with slow_model(engine):
        runs = await asyncio.gather(*(client.send(calls.run(tiny_atlas.run)) for _ in range(40)))
        assert {run.id for run in runs} == {tiny_atlas.run}
        waiting = [asyncio.create_task(client.send(calls.trace_text(tiny_atlas.slug, f"a {n}"))) for n in range(LIMIT)]
        await until(lambda: any(one.done() for one in waiting))
        with pytest.raises(ApiError, match=f"{LIMIT} requests wait.*place {LIMIT + 1} in the line"):
            await next(one for one in waiting if one.done())
    traces = await asyncio.gather(*(one for one in waiting if not one.done() or one.exception() is None))
    assert len(traces) == LIMIT - 1
    await client.close()


@pytest.mark.anyio
async def test_a_full_line_refuses_at_once_with_the_place_and_when_to_come_back(
    service: FastAPI, engine: LiveEngine, tiny_atlas: TinyAtlas
) -> None:
    async with asking(service) as http:
        text = (await http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp"})).json()["id"]
        with slow_model(engine):
            places = [engine.join() for _ in range(LIMIT - 1)]
            neuron, run = f"{tiny_atlas.layer}.3", tiny_atlas.run
            asked: list[tuple[str, str, Any]] = [
                ("POST", f"/models/{tiny_atlas.slug}/texts", {"text": "a"}),
                ("POST", f"/texts/{text}/ablate", {"interventions": [{"neuron": neuron}]}),
                ("POST", f"/texts/{text}/activations", {"neurons": [neuron]}),
                ("POST", f"/texts/{text}/sweep", {}),
                ("POST", f"/texts/{text}/generate", {}),
                ("POST", f"/models/{tiny_atlas.slug}/induction", {"source": "random", "neurons": [neuron]}),
                ("POST", f"/runs/{run}/neurons/{neuron}/contexts/1/ablate", {"kind": "mean"}),
                ("GET", f"/runs/{run}/promoters?token_id=5", None),
            ]
            for method, path, body in asked:
                began = time.monotonic()
                answer = await http.request(method, V1 + path, json=body)
                assert answer.status_code == 503, path
                assert time.monotonic() - began < 5
                assert int(answer.headers["retry-after"]) >= 1
                problem = answer.json()
                assert (problem["title"], problem["place"], problem["limit"]) == ("Busy", LIMIT + 1, LIMIT)
            assert (await http.get(f"{V1}/texts/{text}")).status_code == 200, "needs no model"
            for place in places:
                place.leave()
        assert engine.waiting == 0


@pytest.mark.anyio
async def test_each_request_takes_one_turn(
    service: FastAPI, engine: LiveEngine, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, submit = [], engine._line.submit

    def counted(work: Callable[[], Any]) -> Any:
        turns.append(work)
        return submit(work)

    monkeypatch.setattr(engine._line, "submit", counted)
    async with asking(service) as http:
        traced = await http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is"})
        assert traced.json()["values"]["kl"] is not None, "its distances from the token frequencies are in the turn"
        assert len(turns) == 1
        context = (await http.get(f"{V1}/runs/{tiny_atlas.run}/neurons/{tiny_atlas.layer}.3/contexts")).json()
        path = f"{V1}/runs/{tiny_atlas.run}/neurons/{tiny_atlas.layer}.3/contexts/{context['contexts'][0]['id']}/ablate"
        assert (await http.post(path, json={"kind": "mean"})).status_code == 200
        assert len(turns) == 2


@pytest.mark.anyio
async def test_too_many_readers_are_told_so(
    service: FastAPI, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.state.reading = lanes.Lane("to read the atlas", 1, 2)
    page = f"{V1}/runs/{tiny_atlas.run}/neurons"
    async with asking(service) as http, asyncio.TaskGroup() as people:
        with slow_atlas(monkeypatch):
            readers = [people.create_task(http.get(page)) for _ in range(3)]
            await asyncio.sleep(0.2)
            refused = await http.get(page)
            assert refused.status_code == 503
            assert "2 requests wait already to read the atlas" in refused.json()["detail"]
            assert (refused.json()["place"], refused.headers["retry-after"]) == (3, "2")
    assert [one.result().status_code for one in readers] == [200] * 3
