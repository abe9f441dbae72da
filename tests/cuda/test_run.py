"""A whole run on a card: the atlas that comes of it is that of the processor."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.atlas.store import Atlas
from backend.core.models.sources import ModelFiles
from backend.glossary import METRIC_COLUMNS
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent

Files = Callable[[str], ModelFiles]
pytestmark = pytest.mark.cuda


def _columns(config: RunConfig, folder: Path, device: str) -> dict[str, np.ndarray]:
    folder.mkdir()
    with Atlas.open(folder / "atlas.db") as atlas:
        run = pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), device)
        record = atlas.runs.get(run)
        assert record.status == "finished"
        return {
            name: np.asarray(values, dtype=float)
            for name, values in atlas.neurons.columns(run, list(METRIC_COLUMNS)).items()
        }


@pytest.mark.parametrize(("family", "layer"), [("llama", None), ("gpt2", 0)])
def test_a_run_on_a_card_finds_what_one_on_the_processor_does(
    family: str, layer: int | None, tiny_files: Files, tmp_path: Path
) -> None:
    """Of the last layer, and of an earlier one by forward passes."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Lamp {n} hangs by hook {n % 5}; <b>{n}</b> is lit.\n" for n in range(40)))
    config = RunConfig(str(tiny_files(family).folder), str(text), sequences=4, seq_len=24, layer=layer)
    here, there = _columns(config, tmp_path / "cpu", "cpu"), _columns(config, tmp_path / "card", "cuda:0")
    assert here.keys() == there.keys()
    for name, column in here.items():
        np.testing.assert_allclose(there[name], column, atol=2e-5, rtol=2e-3, err_msg=name)
