"""`POST texts/{id}/generate` over a real socket: a stream that grows, stops with its listener, and tells of errors."""

import json
import threading
import time
from typing import Any

import httpx
import pytest

from backend.client import ApiError, Client, calls
from backend.live.engine import LiveEngine
from backend.live.streams import LiveStream
from backend.schemas import (
    GenerateRequest,
    GenerationEnd,
    GenerationProblem,
    GenerationStart,
    GenerationStep,
    InterventionRequest,
)
from tests.conftest import TinyAtlas

V1 = "/api/v1"


@pytest.fixture
def text(client: Client, tiny_atlas: TinyAtlas) -> str:
    return client.send(calls.trace_text(tiny_atlas.slug, "The lamp is lit.")).id


def events(client: Client, text: str, **asked: Any) -> list[Any]:
    return [event.root for event in client.stream(calls.generate(text, GenerateRequest(**asked)))]


def test_both_continuations_come_and_the_seed_holds(client: Client, text: str, tiny_atlas: TinyAtlas) -> None:
    neuron = f"{tiny_atlas.layer}.3"
    strong = [InterventionRequest(neuron=neuron, kind="value", value=80)]
    start, *steps, end = events(client, text, interventions=strong, seed=6, max_tokens=12)
    assert isinstance(start, GenerationStart)
    assert f"run {tiny_atlas.run}" in start.reference
    assert all(isinstance(step, GenerationStep) for step in steps)
    assert isinstance(end, GenerationEnd)
    assert (end.reason, end.steps) == ("length", 12)
    again = events(client, text, seed=6, max_tokens=12)[1:-1]
    assert [step.plain for step in again] == [step.plain for step in steps]
    assert all(step.changed is None for step in again)
    assert [step.changed for step in steps] != [step.plain for step in steps]
    same = [InterventionRequest(neuron=neuron, kind="scale", value=1)]
    assert all(s.plain == s.changed for s in events(client, text, interventions=same, seed=6, max_tokens=12)[1:-1])
    elsewhere = events(client, text, interventions=[InterventionRequest(neuron="L0H1")], max_tokens=1)
    assert "over this text" in elsewhere[0].reference


def test_tokens_come_as_they_are_made(address: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all at the end: neither compression nor a buffer may hold them back."""
    slow, gate = LiveStream.step, threading.Event()

    def step(self: LiveStream[Any]) -> Any:
        if self.steps == 2:
            assert gate.wait(20), "the first two steps must have arrived before the third is made"
        return slow(self)

    monkeypatch.setattr(LiveStream, "step", step)
    with (
        httpx.Client(base_url=address, timeout=30, headers={"accept-encoding": "gzip"}) as http,
        http.stream("POST", f"{V1}/texts/{text}/generate", json={"max_tokens": 5}) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = 0
        for line in response.iter_lines():
            if line:
                seen += 1
                json.loads(line.removeprefix("data: "))
            if seen == 3:
                gate.set()
        assert seen == 1 + 5 + 1


def test_a_client_that_leaves_stops_the_generation(
    address: str, text: str, engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, made = LiveStream.step, []

    def step(self: LiveStream[Any]) -> Any:
        time.sleep(0.05)
        made.append(1)
        return slow(self)

    monkeypatch.setattr(LiveStream, "step", step)
    with (
        httpx.Client(base_url=address, timeout=30) as http,
        http.stream("POST", f"{V1}/texts/{text}/generate", json={"max_tokens": 200}) as response,
    ):
        next(response.iter_lines())
    deadline = time.monotonic() + 10
    while engine._generations.open and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine._generations.open == 0
    stopped_at = len(made)
    assert stopped_at < 150
    time.sleep(0.3)
    assert len(made) == stopped_at


def test_an_error_on_the_way_ends_the_stream_with_a_problem(
    client: Client, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: LiveStream[Any]) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(LiveStream, "step", step)
    *_, last = events(client, text)
    assert isinstance(last, GenerationProblem)
    assert last.problem.status == 500
    assert "secret" not in last.problem.detail
    assert "secret inside" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": 201}, 422, "max_tokens"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"seed": -1}, 422, "seed"),
        ({"interventions": [{"neuron": "99.1"}]}, 422, "does not exist"),
        ({"interventions": [{"neuron": "1.1", "kind": "value"}]}, 422, "needs a number"),
        ({"run": 999}, 404, "no run 999"),
        ({"sed": 1}, 422, "sed"),
    ],
)
def test_what_cannot_be_generated_is_a_problem_document(
    asked: dict[str, Any], status: int, words: str, address: str, text: str, engine: LiveEngine
) -> None:
    response = httpx.post(f"{address}{V1}/texts/{text}/generate", json=asked)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert engine._generations.open == 0


def test_a_forgotten_text_and_a_dead_service_are_told(client: Client) -> None:
    with pytest.raises(ApiError, match="send the text again"):
        events(client, "unknown")
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(ApiError, match="got no answer"):
        events(nobody, "unknown")
