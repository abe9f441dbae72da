"""`POST models/{model}/induction` over a real socket: parts as they are ready, a work that stops with its listener."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import create_engine, text

from backend.atlas.store import Atlas
from backend.client import ApiError, Client, calls
from backend.live.engine import LiveEngine
from backend.live.streams import LiveStream
from backend.schemas import (
    InductionAttribution,
    InductionChange,
    InductionClip,
    InductionCurves,
    InductionEnd,
    InductionHeads,
    InductionKnockout,
    InductionProblem,
    InductionProgress,
    InductionRequest,
    InductionStart,
)
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1"
EVERY = ["curves", "clip", "change", "heads", "bos", "mean_output", "attribution"]


def events(client: Client, atlas: TinyAtlas, **asked: Any) -> list[Any]:
    """All but progress; the order of that is checked here."""
    request = InductionRequest.model_validate({"sequences": 4, "span": 9, **asked})
    found = [event.root for event in client.stream(calls.induction(atlas.slug, request))]
    progress = [event for event in found if isinstance(event, InductionProgress)]
    assert [event.done for event in progress] == list(range(1, len(progress) + 1))
    assert progress[-1].done == progress[-1].of
    return [event for event in found if not isinstance(event, InductionProgress)]


def test_every_part_of_a_doubled_stretch_comes(client: Client, tiny_atlas: TinyAtlas) -> None:
    neurons = [f"{tiny_atlas.layer}.3", f"{tiny_atlas.layer}.5"]
    start, *parts, end = events(client, tiny_atlas, neurons=neurons, parts=EVERY, top_heads=2)
    assert isinstance(start, InductionStart)
    assert (start.sequences, start.repeats, start.span, start.neurons) == (4, 4, 9, neurons)
    assert "text.txt" in start.summary
    assert "mean over the first occurrences" in start.summary
    assert isinstance(end, InductionEnd)
    kinds = [type(part) for part in parts]
    curves = parts[kinds.index(InductionCurves)]
    assert len(curves.loss.mean) == len(curves.activations[neurons[0]].se) == 18
    assert curves.loss.mean[-1] is None
    assert None not in curves.loss.mean[:-1] + curves.entropy.mean
    sample = curves.samples[0]
    assert len(sample.tokens) == len(sample.loss) == 19
    assert sample.tokens[slice(*sample.first[0])] == sample.tokens[slice(*sample.second[0])]
    clips = [part for part in parts if isinstance(part, InductionClip)]
    assert [clip.neuron for clip in clips] == neurons
    for clip in clips:
        assert clip.reference == pytest.approx(curves.reference_means[clip.neuron])
        assert len(clip.points) == 4 * 8
        for place in range(8):
            before = curves.loss.mean[9 + place]
            after, change = clip.loss.mean[place], clip.delta_loss.mean[place]
            assert after is not None
            assert change is not None
            assert after - change == pytest.approx(before, abs=1e-4)
    change = parts[kinds.index(InductionChange)]
    assert len(change.change) == tiny_atlas.neurons
    own = curves.activations[neurons[0]].mean
    assert change.change[3] == pytest.approx(np.mean(own[9:]) - np.mean(own[:9]), abs=1e-4)
    heads = parts[kinds.index(InductionHeads)]
    scores = np.array(heads.prefix_matching)
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    assert heads.chosen[0] == f"L{layer}H{head}"
    assert len(heads.chosen) == 2
    knockouts = [part for part in parts if isinstance(part, InductionKnockout)]
    asked = [k.heads for k in knockouts if (k.how, k.role) == ("bos", "induction")]
    assert asked == [[heads.chosen[0]], [heads.chosen[1]], heads.chosen]
    assert any(k.how == "mean_output" for k in knockouts)
    assert all(len(k.loss.mean) == 18 for k in knockouts)
    attributions = [part for part in parts if isinstance(part, InductionAttribution)]
    assert [a.reads for a in attributions] == ["up", "gate"]
    for told in attributions:
        assert told.components[-2:] == ["Embedding", "Biases"]
        assert told.prefix_matching[told.components.index(heads.chosen[0])] == pytest.approx(scores.max())
        assert len(told.induction[neurons[1]]) == len(told.components)


def test_the_seed_holds_and_heads_can_be_named(client: Client, tiny_atlas: TinyAtlas) -> None:
    asked = {"neurons": [f"{tiny_atlas.layer}.1"], "parts": ["curves", "bos"], "heads": ["L1H3"], "source": "random"}
    one, again, other = (events(client, tiny_atlas, seed=seed, **asked)[:-1] for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert [part.chosen for part in one if isinstance(part, InductionHeads)] == [["L1H3"]]


def test_without_neurons_the_runs_own_are_taken(client: Client, tiny_atlas: TinyAtlas) -> None:
    start, *_ = events(client, tiny_atlas, parts=["change"])
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        columns, classes = (
            atlas.neurons.columns(tiny_atlas.run, ["total_effect", "null_fraction"]),
            atlas.neurons.classes(1),
        )
    entropy = [index for index, name in enumerate(classes) if name == "entropy"]
    best = sorted(entropy, key=lambda index: -columns["total_effect"][index])[:6]
    best = best or list(np.argsort(-columns["null_fraction"])[:6])
    assert start.neurons == [f"{tiny_atlas.layer}.{index}" for index in best]


def test_natural_and_own_text_are_clipped_to_the_runs_means(client: Client, tiny_atlas: TinyAtlas) -> None:
    neuron = f"{tiny_atlas.layer}.7"
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        means, _ = atlas.runs.reference_means(tiny_atlas.slug, None)
    assert means is not None
    for asked in ({"source": "natural", "span": 2}, {"source": "text", "span": 5, "text": "one lamp and one lamp."}):
        start, *parts, _ = events(client, tiny_atlas, neurons=[neuron], **asked)
        assert f"run {tiny_atlas.run}" in start.summary
        (clip,) = [part for part in parts if isinstance(part, InductionClip)]
        assert clip.reference == pytest.approx(means[7], rel=1e-5)
        sample = next(part for part in parts if isinstance(part, InductionCurves)).samples[0]
        curves = next(part for part in parts if isinstance(part, InductionCurves))
        assert curves.after is not None
        assert [len(one.mean) for one in (curves.after.loss, curves.after.entropy)] == [2, 2]
        assert list(curves.after.activations) == [neuron]
        assert len(curves.loss.mean) == 2 * start.span
        assert clip.after is not None
        assert len(clip.after.loss.mean) == 1
        was = curves.after.loss.mean[1]
        if was is None:
            assert clip.after.loss.mean == clip.after.delta_loss.mean == [None]
        else:
            assert (clip.after.loss.mean[0] or 0) - (clip.after.delta_loss.mean[0] or 0) == pytest.approx(was, abs=1e-4)
        words = ["".join(sample.tokens[slice(*place)]) for place in (sample.first[0], sample.second[0])]
        assert words[0] == words[1]
        if asked["source"] == "text":
            assert words[0] == "one lamp"
            assert start.sequences == start.repeats == 1
            assert all(se is None for se in clip.loss.se)
            assert curves.after.loss.mean[0] is not None
            assert curves.after.loss.mean[1] is None, "“.” ends the text: nothing is known of what follows"
            assert curves.after.entropy.mean[1] is not None


def test_what_follows_is_null_where_the_text_ends_with_the_repeat(client: Client, tiny_atlas: TinyAtlas) -> None:
    neuron = f"{tiny_atlas.layer}.7"
    asked = {"source": "text", "span": 5, "text": "one lamp and one lamp", "neurons": [neuron]}
    _, *parts, _ = events(client, tiny_atlas, parts=["curves", "clip"], **asked)
    curves = next(part for part in parts if isinstance(part, InductionCurves))
    assert curves.after is not None
    for curve in (curves.after.loss, curves.after.entropy, curves.after.activations[neuron]):
        assert curve.mean[0] is not None
        assert curve.mean[1] is None
    (clip,) = [part for part in parts if isinstance(part, InductionClip)]
    assert clip.after is not None
    assert clip.after.delta_entropy.mean == [None]
    *_, doubled, _ = events(client, tiny_atlas, parts=["curves"], source="random", neurons=[neuron])
    assert doubled.after is None


def test_parts_come_as_they_are_ready_and_a_listener_that_leaves_stops_the_work(
    address: str, tiny_atlas: TinyAtlas, engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, gate = LiveStream.step, threading.Event()
    made: list[int] = []

    def step(self: LiveStream[Any]) -> Any:
        if len(made) == 3:
            assert gate.wait(20), "the first events must have arrived before the third is made"
        made.append(1)
        time.sleep(0.02)
        return own(self)

    monkeypatch.setattr(LiveStream, "step", step)
    body = {"sequences": 100, "span": 20, "parts": EVERY, "neurons": [f"{tiny_atlas.layer}.1"], "source": "random"}
    with (
        httpx.Client(base_url=address, timeout=30, headers={"accept-encoding": "gzip"}) as http,
        http.stream("POST", f"{V1}/models/{tiny_atlas.slug}/induction", json=body) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in response.iter_lines() if line)
        kinds = [json.loads(next(lines).removeprefix("data: "))["kind"] for _ in range(3)]
        assert kinds == ["start", "progress", "progress"]
        assert engine._experiments.open == 1
        gate.set()
    deadline = time.monotonic() + 10
    while engine._experiments.open and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine._experiments.open == 0
    stopped_at = len(made)
    time.sleep(0.3)
    assert len(made) == stopped_at


def test_only_so_many_run_at_once(
    client: Client, tiny_atlas: TinyAtlas, engine: LiveEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine._experiments, "open", 2)
    with pytest.raises(ApiError, match="2 induction experiments run already") as refused:
        events(client, tiny_atlas)
    assert refused.value.problem.status == 503


def test_an_error_on_the_way_ends_the_stream_with_a_problem(
    client: Client, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(self: LiveStream[Any]) -> Any:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(LiveStream, "step", step)
    request = InductionRequest(source="random", sequences=1, span=4)
    *_, last = [event.root for event in client.stream(calls.induction(tiny_atlas.slug, request))]
    assert isinstance(last, InductionProblem)
    assert last.problem.status == 500
    assert "secret" not in last.problem.detail
    assert "secret inside" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"span": 201}, 422, "span"),
        ({"span": 100}, 422, "span of 31 or less"),
        ({"sequences": 101}, 422, "sequences"),
        ({"parts": []}, 422, "parts"),
        ({"parts": ["dance"]}, 422, "parts"),
        ({"span": 9, "neurons": ["99.1"]}, 422, "does not exist"),
        ({"span": 9, "neurons": ["0.1"]}, 422, "not of the last layer"),
        ({"span": 9, "heads": ["L0H99"]}, 422, "Head L0H99 does not exist"),
        ({"span": 9, "run": 999}, 404, "no run 999"),
        ({"span": 9, "run": 2**70}, 422, "run"),
        ({"source": "text"}, 422, "no text to look for repeats in"),
        ({"source": "text", "text": "abc"}, 422, "come twice"),
        ({"source": "natural", "span": 15}, 422, "smaller span"),
        ({"sourc": "text"}, 422, "sourc"),
    ],
)
def test_what_cannot_be_measured_is_a_problem_document(
    asked: dict[str, Any], status: int, words: str, address: str, tiny_atlas: TinyAtlas, engine: LiveEngine
) -> None:
    response = httpx.post(f"{address}{V1}/models/{tiny_atlas.slug}/induction", json=asked, timeout=30)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert engine._experiments.open == 0


def test_without_a_run_random_tokens_and_own_text_work(
    tiny_atlas: TinyAtlas, engine: LiveEngine, tmp_path: Path
) -> None:
    """A model that the atlas knows, and no run of it."""
    from fastapi.testclient import TestClient

    path = tmp_path / "bare.db"
    path.write_bytes(tiny_atlas.path.read_bytes())
    database = create_engine(f"sqlite:///{path}")
    with database.begin() as connection:
        for table in ("traces", "contexts", "neurons", "runs"):
            connection.execute(text(f"DELETE FROM {table}"))
    database.dispose()
    service = create_service(Settings(atlas=str(path)), engine=engine)
    with TestClient(service) as http:
        url = f"{V1}/models/{tiny_atlas.slug}/induction"
        for source in ("synthetic", "natural"):
            answer = http.post(url, json={"source": source, "span": 4})
            assert answer.status_code == 404
            assert "analyse it first" in answer.json()["detail"]
        unnamed = http.post(url, json={"source": "random", "span": 4})
        assert unnamed.status_code == 422
        assert "name some" in unnamed.json()["detail"]
        named = {"span": 4, "sequences": 2, "neurons": [f"{tiny_atlas.layer}.1"]}
        for more in ({"source": "random"}, {"source": "text", "text": "one lamp, one lamp"}):
            answer = http.post(url, json=named | more)
            assert answer.status_code == 200
            lines = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
            assert lines[-1]["kind"] == "end"
            assert "mean over the first occurrences" in lines[0]["summary"]
        assert http.post(f"{V1}/models/nobody/induction", json=named).status_code == 404


def test_the_atlas_hands_out_whole_sequences(tiny_atlas: TinyAtlas) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        found = atlas.contexts.sequences(tiny_atlas.run, 1)
        assert found.shape == (12, 32)
        assert (found[:, 0] == 0).all()
        assert np.array_equal(atlas.contexts.sequences(tiny_atlas.run, 2).reshape(12, 32), found)
        assert atlas.contexts.sequences(tiny_atlas.run, 5).shape == (2, 160), "a sequence stored in part is left out"
        assert len(atlas.contexts.sequences(999, 1)) == 0
    assert not math.isnan(found.sum())
