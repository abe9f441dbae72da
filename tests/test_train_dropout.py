"""The training of docs/training.md: pairs that differ in dropout alone, saved as checkpoints that can be measured."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from backend.atlas.store import Atlas
from precompute.corpus import Corpus
from precompute.progress import Silent
from precompute.training import TrainingRun, asked_steps

SCRIPT = Path(__file__).parent.parent / "docs" / "training" / "train_dropout.py"
STEPS = 12


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_dropout", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models after a few steps on a little text."""
    out = tmp_path_factory.mktemp("trained")
    lines = [f"Lamp {n} hangs by hook {n % 5}; it is lit where the road ends." for n in range(120)]
    corpus = Corpus("lamps", lambda: iter(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "open_corpus", lambda *_: corpus)
        patch.setattr(script, "D_MODEL", 16)
        patch.setattr(script, "LENGTH", 32)
        patch.setattr(sys, "argv", ["train_dropout", "--out", str(out), "--seeds", "3", "--steps", str(STEPS)])
        script.main()
    return out


def test_both_begin_alike_and_end_apart(trained: Path) -> None:
    weights = {
        (name, step): load_file(trained / f"{name}-3" / f"step{step}" / "model.safetensors")
        for name in ("plain", "dropout")
        for step in (0, STEPS)
    }
    assert all(torch.equal(weights["plain", 0][name], weights["dropout", 0][name]) for name in weights["plain", 0])
    assert not torch.equal(
        weights["plain", STEPS]["transformer.wte.weight"], weights["dropout", STEPS]["transformer.wte.weight"]
    )


def test_its_checkpoints_are_measured_and_have_the_spectrum_that_it_tells(
    trained: Path, script: ModuleType, tmp_path: Path
) -> None:
    folder = trained / "dropout-3"
    with Atlas.open(tmp_path / "a.db") as atlas:
        training = TrainingRun(str(folder), atlas, tmp_path, Silent())
        steps = [training.measure(asked) for asked in asked_steps(str(folder), "all")]
    assert [step.step for step in steps] == [0, 10, STEPS]
    model = script.GPT2LMHeadModel.from_pretrained(folder / f"step{STEPS}")
    assert np.allclose(steps[-1].singular_values[:-1], script.spectrum(model), rtol=1e-4)
    assert steps[-1].singular_values[-1] < 1e-5 * steps[-1].singular_values[0], "a LayerNorm leaves the mean unread"
