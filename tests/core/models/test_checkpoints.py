"""Which weights a model is: what is told of each of the places that weights come from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backend.core.models.checkpoints import Checkpoint, quantisation_of
from backend.core.models.downloads import sha256_of
from backend.core.models.sources import PACKAGED_MODELS, ModelFiles
from tests.reference.tiny_gguf import write_gguf


def test_a_packaged_model_is_told_apart_from_the_model_that_was_published(tmp_path: Path) -> None:
    packaged = PACKAGED_MODELS["smollm2-135m"]
    found = Checkpoint.of(ModelFiles(tmp_path, packaged.name, "packaged", short="smollm2-135m"))
    assert found.described == "SmolLM2-135M-Instruct, Q4_1 (4-bit) dequantised to float32"
    assert (found.requirement, found.file) == (packaged.requirement, "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert (found.file_sha256, found.licence) == (packaged.member_sha256, "Apache-2.0")


def test_a_hub_model_is_its_repository_and_commit(tmp_path: Path, tiny_files: Callable[[str], ModelFiles]) -> None:
    commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    folder = tmp_path / "models--someone--tiny" / "snapshots" / commit
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tiny_files("gpt2").folder)
    found = Checkpoint.of(ModelFiles(folder, "someone/tiny", "hub"))
    assert (found.repository, found.commit) == ("someone/tiny", commit)
    assert found.described == "someone/tiny at commit 607a30d783df, float32"


@pytest.mark.parametrize(
    ("dtype", "words"), [(torch.bfloat16, "bfloat16 converted to float32"), (torch.float32, "float32")]
)
def test_a_folder_tells_how_its_weights_are_kept(tmp_path: Path, dtype: torch.dtype, words: str) -> None:
    weights = {"large": torch.zeros(4, 4, dtype=dtype), "small": torch.zeros(2, dtype=torch.float32)}
    save_file(weights, tmp_path / "model.safetensors")
    found = Checkpoint.of(ModelFiles(tmp_path, "mine", "folder"))
    assert found.described == f"mine, a folder, {words}"
    assert str(tmp_path) not in str(found)


@pytest.mark.parametrize("file_type", [None, 3])
def test_a_gguf_file_says_how_it_keeps_its_weights(
    tmp_path: Path, tiny_files: Callable[[str], ModelFiles], file_type: int | None
) -> None:
    """In its own word where it has one (3 is Q4_1), else by the type of most of its weights."""
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf", file_type=file_type)
    kept = "F32" if file_type is None else "Q4_1"
    assert quantisation_of(gguf) == kept
    files = replace(tiny_files("llama"), origin="gguf", gguf=gguf)
    found = Checkpoint.of(files)
    assert (found.file, found.file_sha256, found.quantisation) == ("tiny.gguf", sha256_of(gguf), kept)
    assert found.described == f"tiny.gguf, {'float32' if kept == 'F32' else 'Q4_1 (4-bit) dequantised to float32'}"
