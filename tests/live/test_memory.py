"""Traced texts take no more memory than they may, also while they are worked on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.core.interventions.kinds import Intervention
from backend.core.models.sources import ModelFiles
from backend.core.neurons import NeuronId
from backend.live.engine import LiveEngine, TextForgotten, _bytes
from backend.live.texts import LiveModel


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path, device="cpu")
    yield engine
    engine.close()


def test_the_text_asked_for_longest_ago_makes_room_for_what_is_kept_of_another(
    engine: LiveEngine, tiny_files: Callable[[str], ModelFiles]
) -> None:
    model = LiveModel("llama", str(tiny_files("llama").folder))
    first, second, third = (engine.trace(model, f"Lamp {number} is lit.", 64) for number in range(3))
    engine._most_bytes = sum(map(_bytes, (first, second, third)))
    engine.text(first.id)
    engine.text(third.id)
    engine.ablate(third, [Intervention(NeuronId(1, 3), "zero"), Intervention(NeuronId(0, 2), "zero")], None)
    assert engine.text(first.id) is first
    with pytest.raises(TextForgotten):
        engine.text(second.id)
    engine._most_bytes = 0
    engine.text(third.id)
    engine.activations(third, [NeuronId(1, 5)])
    assert engine.text(third.id) is third, "the last one stays, however large"
    with pytest.raises(TextForgotten):
        engine.text(first.id)
