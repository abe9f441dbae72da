"""What the engine holds is of the files and the atlas as they are now, not of what once had their names."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.core.interventions.kinds import Intervention
from backend.core.models.sources import ModelFiles
from backend.core.neurons import NeuronId
from backend.live.cache import OtherWeights
from backend.live.engine import LiveEngine, TextForgotten
from backend.live.texts import LiveFrequencies, LiveModel, LiveText
from tests.reference.tiny_models import VOCAB

TEXT = "The lamp is lit."


@pytest.fixture
def folder(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_files("llama").folder, tmp_path / "model"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path, device="cpu")
    yield engine
    engine.close()


def train(folder: Path) -> None:
    """Other weights of the same shape under the same names."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def ablate(engine: LiveEngine, text: LiveText) -> torch.Tensor:
    return engine.ablate(text, [Intervention(NeuronId(1, 3), "zero")], None).result.total.loss[:-1]


@pytest.mark.parametrize("put_away", [False, True])
def test_a_model_that_was_trained_on_is_read_again(
    engine: LiveEngine, folder: Path, tiny_files: Callable[[str], ModelFiles], put_away: bool, tmp_path: Path
) -> None:
    """Texts that were traced by the old weights are forgotten, not ablated by the new ones."""
    model = LiveModel("model", str(folder))
    before = engine.trace(model, TEXT, 64)
    ablate(engine, before)
    if put_away:
        engine.trace(LiveModel("other", str(tiny_files("gpt2").folder)), TEXT, 64)
    train(folder)
    with pytest.raises(TextForgotten):
        ablate(engine, before)
    with pytest.raises(TextForgotten):
        engine.text(before.id)
    after = engine.trace(model, TEXT, 64)
    assert not torch.equal(after.traced.centred, before.traced.centred)
    fresh = LiveEngine(tmp_path, device="cpu")
    assert torch.equal(ablate(engine, after), ablate(fresh, fresh.trace(model, TEXT, 64)))
    fresh.close()


def test_a_sweep_after_training_is_of_the_new_weights(engine: LiveEngine, folder: Path, tmp_path: Path) -> None:
    model = LiveModel("model", str(folder))
    engine.sweep(engine.trace(model, TEXT, 64), 5, "zero", None)
    train(folder)
    fresh = LiveEngine(tmp_path, device="cpu")
    found, expected = (
        each.sweep(each.trace(model, TEXT, 64), 5, "zero", None).effects.delta_loss for each in (engine, fresh)
    )
    fresh.close()
    assert torch.equal(found, expected)


def test_files_that_were_only_touched_forget_nothing(engine: LiveEngine, folder: Path) -> None:
    text = engine.trace(LiveModel("model", str(folder)), TEXT, 64)
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes())
    ablate(engine, text)
    assert engine.text(text.id) is text


def test_weights_that_were_never_measured_are_not_taken_for_those_that_were(engine: LiveEngine, folder: Path) -> None:
    """An atlas tells of a folder; something else lies there now."""
    measured = ModelFiles(folder, "model", "folder").weights_hash()
    model = LiveModel("model", str(folder), weights=measured)
    text = engine.trace(model, TEXT, 64)
    train(folder)
    for asked in (
        lambda: engine.trace(model, TEXT, 64),
        lambda: ablate(engine, text),
        lambda: engine.token_weights(model, 1, 5),
    ):
        with pytest.raises(OtherWeights, match=r"not those that model was measured on.*precompute"):
            asked()


def test_two_models_of_one_name_share_no_text(
    engine: LiveEngine, folder: Path, tiny_files: Callable[[str], ModelFiles]
) -> None:
    one, other = LiveModel("model", str(folder)), LiveModel("model", str(tiny_files("gpt2").folder))
    assert engine.trace(one, TEXT, 64).id != engine.trace(other, TEXT, 64).id


def test_frequencies_are_told_apart_by_what_they_are(engine: LiveEngine, folder: Path) -> None:
    """Two runs of one number, of an atlas and of the one that took its place."""
    model = LiveModel("model", str(folder))
    text, chance = engine.trace(model, TEXT, 64), np.random.default_rng(0)
    first, second = (LiveFrequencies("run 1", chance.dirichlet(np.ones(VOCAB)).astype(np.float32)) for _ in range(2))
    one, other = engine.distances(text, first), engine.distances(text, second)
    assert not torch.equal(one, other)
    again = text.distances(first)
    assert again is not None
    assert torch.equal(again, one)
