"""A configuration that claims more than the weights hold is refused before anything is built from it."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.core.errors import SourceError
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sizes import require_sizes
from backend.core.models.sources import ModelFiles
from tests.reference.tiny_models import EVERY


@pytest.fixture
def folder(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> Path:
    return Path(shutil.copytree(tiny_files("llama").folder, tmp_path / "model"))


def _change(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize("family", EVERY)
def test_models_as_they_are_pass(family: str, tiny_files: Callable[[str], ModelFiles]) -> None:
    require_sizes(tiny_files(family).folder, family)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**9}, {"hidden_size": 10**9}, {"vocab_size": 10**12}, {"intermediate_size": 1e300},
        {"max_position_embeddings": 10**10}, {"num_attention_heads": 10**9}, {"num_hidden_layers": float("inf")},
        {"num_hidden_layers": -(10**9)},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_sizes_are_refused_at_once(fields: dict[str, Any], folder: Path) -> None:
    _change(folder, **fields)
    began = time.monotonic()
    with pytest.raises(SourceError, match=next(iter(fields))):
        AnalysisModel.load(ModelFiles(folder, "model", "folder"), "cpu")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}"])
def test_a_configuration_that_is_none_is_refused(content: str, folder: Path) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(SourceError, match="damaged"):
        require_sizes(folder, "model")


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, (2**40).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"[]"])
def test_weights_that_are_none_are_refused(header: bytes, folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.write_bytes(header)
    with pytest.raises(SourceError):
        require_sizes(folder, "model")


def test_half_of_a_character_is_no_error(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    assert model.encode("lamp \ud83d lamp") == model.encode("lamp \ufffd lamp")
    assert model.encode("\ud83d\ude42") == model.encode("🙂")
