"""Generations share the model with everyone: by steps, in turn, and only while somebody listens."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.core.errors import BadNeuron
from backend.core.interventions.generation import Sampling
from backend.core.interventions.kinds import Intervention
from backend.core.models.sources import ModelFiles
from backend.core.neurons import NeuronId
from backend.live.engine import LiveEngine, TooManyGenerations
from backend.live.queue import EngineBusy
from backend.live.streams import LiveStream, ModelPutAway
from backend.live.texts import LiveGenerationStep, LiveModel, LiveText

SAMPLING = Sampling(0.7, 1, 20)


@pytest.fixture
def model(tiny_files: Callable[[str], ModelFiles]) -> LiveModel:
    return LiveModel("llama", str(tiny_files("llama").folder))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path, device="cpu")
    yield engine
    engine.close()


@pytest.fixture
def text(engine: LiveEngine, model: LiveModel) -> LiveText:
    return engine.trace(model, "The lamp is lit.", 64)


def begun(engine: LiveEngine, text: LiveText) -> LiveStream[LiveGenerationStep]:
    return engine.generate(text, [Intervention(NeuronId(1, 3), "zero")], None, SAMPLING)


def test_others_are_answered_between_two_steps(engine: LiveEngine, model: LiveModel, text: LiveText) -> None:
    generation = begun(engine, text)
    generation.step()
    answered = []

    def ask() -> None:
        answered.append(engine.trace(model, "another text", 64))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(timeout=30)
    assert answered, "an open generation does not hold the queue"
    reasons = []
    while (step := generation.step()) is not None:
        reasons.append(step.ended)
    assert reasons == [None] * (SAMPLING.max_tokens - 2) + ["length"]
    assert generation.steps == SAMPLING.max_tokens


def test_so_many_at_once_and_a_closed_or_forgotten_one_makes_room(engine: LiveEngine, text: LiveText) -> None:
    running = [begun(engine, text) for _ in range(4)]
    with pytest.raises(TooManyGenerations, match="4 texts are being continued"):
        begun(engine, text)
    running[0].close()
    running[0].close()
    running[0] = begun(engine, text)
    with pytest.raises(EngineBusy):
        begun(engine, text)
    del running[1]  # nobody has read its answer
    gc.collect()
    running.append(begun(engine, text))
    running[0].close()
    with pytest.raises(BadNeuron):
        engine.generate(text, [Intervention(NeuronId(9, 3))], None, SAMPLING)
    begun(engine, text)


def test_a_generation_whose_model_made_room_stops_with_a_sentence(
    engine: LiveEngine, text: LiveText, tiny_files: Callable[[str], ModelFiles]
) -> None:
    generation = begun(engine, text)
    generation.step()
    engine.trace(LiveModel("other", str(tiny_files("gpt2").folder)), "The lamp", 64)
    with pytest.raises(ModelPutAway, match="Generate again"):
        generation.step()


def test_a_step_is_not_turned_away_from_a_full_queue(tmp_path: Path, model: LiveModel) -> None:
    engine = LiveEngine(tmp_path, device="cpu", queue_limit=1)
    text = engine.trace(model, "The lamp is lit.", 64)
    generation = begun(engine, text)
    go_on, started = threading.Event(), threading.Event()

    def occupy() -> None:
        started.set()
        go_on.wait(30)

    thread = threading.Thread(target=lambda: engine._in_turn(occupy))
    thread.start()
    started.wait(30)
    with pytest.raises(EngineBusy):
        engine.trace(model, "another", 64)
    step = threading.Thread(target=generation.step)
    step.start()
    go_on.set()
    step.join(30)
    thread.join(30)
    assert generation.steps == 1
    engine.close()
