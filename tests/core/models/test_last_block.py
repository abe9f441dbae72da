"""The last block alone gives the readout of the whole model, to the last bit, without reading the other blocks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.core.errors import SourceError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.last_block import LastLayer
from backend.core.models.sources import ModelFiles
from tests.reference.tiny_models import FAMILIES, LAYERS

Loaded = Callable[[str], AnalysisModel]
Files = Callable[[str], ModelFiles]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readout_is_that_of_the_whole_model(family: str, tiny_model: Loaded, tiny_files: Files) -> None:
    whole, last = tiny_model(family).readout, LastLayer.load(tiny_files(family))
    assert last.is_alone, "the other blocks were read"
    assert (last.layer, last.family) == (LAYERS - 1, tiny_model(family).family)
    _require_equal(last.readout, whole)


def _require_equal(one: Any, other: Any) -> None:
    """Of dataclasses every field, of tensors every number."""
    assert type(one) is type(other)
    if is_dataclass(one):
        for field in fields(one):
            _require_equal(getattr(one, field.name), getattr(other, field.name))
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_another_block_may_hold_anything(tiny_model: Loaded, tiny_files: Files, tmp_path: Path) -> None:
    """What is not read cannot matter; in the last block it does."""
    folder = Path(shutil.copytree(tiny_files("llama").folder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    last = LastLayer.load(ModelFiles(folder, "copy", "folder"))
    assert torch.equal(last.readout.W_out, tiny_model("llama").readout.W_out)
    weights["model.layers.1.mlp.down_proj.weight"] *= 2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    last = LastLayer.load(ModelFiles(folder, "copy", "folder"))
    assert torch.equal(last.readout.W_out, 2 * tiny_model("llama").readout.W_out)


def test_weights_in_several_files_are_read_from_each(tiny_model: Loaded, tiny_files: Files, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_files("gpt2").folder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, {"format": "pt"})
    places = {name: file for file, held in parts.items() for name in held}
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    last = LastLayer.load(ModelFiles(folder, "copy", "folder"))
    assert last.is_alone
    assert torch.equal(last.readout.W_out, tiny_model("gpt2").readout.W_out)


def test_weights_that_do_not_name_their_blocks_are_read_whole_or_refused(tiny_files: Files, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_files("gpt2").folder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 of its tensors.*transformer\.h\.1"):
        LastLayer.load(ModelFiles(folder, "copy", "folder"))
