"""Loading keeps one copy of the weights, in the type that was asked for; what does not fit is said beforehand."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from backend.core.errors import BadConfig, ModelTooLarge, SourceError
from backend.core.models import conversions, dtypes
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.checkpoints import Checkpoint
from backend.core.models.dtypes import TOLERANCES, choose_dtype, needed
from backend.core.models.sizes import stored
from backend.core.models.sources import ModelFiles, find_model
from tests.reference.tiny_gguf import write_gguf
from tests.reference.tiny_models import byte_tokenizer

CPU = torch.device("cpu")
_MEASURE = """
import gc, sys
from pathlib import Path
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

small, large, dtype = sys.argv[1:]
AnalysisModel.load(ModelFiles(Path(small), "small", "folder"), "cpu")  # libraries are in memory from here on
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now
before = status("VmRSS")
model = AnalysisModel.load(ModelFiles(Path(large), "large", "folder"), "cpu", dtype)
print(status("VmHWM") - before)
"""


def _saved(folder: Path, *, tied: bool) -> Path:
    """A LLaMA of some 100 MB. An unembedding of its own is there twice while it is folded: as in larger models, whose
    unembedding is a smaller part of them, it is small."""
    config = transformers.LlamaConfig(
        vocab_size=8000 if tied else 2000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8 if tied else 10,
        num_attention_heads=8,
        tie_word_embeddings=tied, architectures=["LlamaForCausalLM"], bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux has it")
@pytest.mark.parametrize("tied", [True, False])
def test_loading_takes_the_memory_of_the_weights(
    tied: bool, tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    """Of the whole process, files that are mapped included. A tied unembedding is folded and so a matrix of its own."""
    folder = _saved(tmp_path / "large", tied=tied)
    command = [sys.executable, "-c", _MEASURE, str(tiny_files("llama").folder), str(folder), "float32"]
    # As for the larger tensors of larger models: glibc would keep some freed megabytes of these for itself, and each
    # thread some more.
    alone = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    given_back = os.environ | alone
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=given_back)
    peak = int(done.stdout)
    weights = 4 * (stored(folder).elements + (8000 * 512 if tied else 0))
    assert weights < 1.2e8 * 1.3
    assert peak <= 1.2 * weights, f"{peak / weights:.2f} times the weights"


def test_the_model_does_not_follow_its_files(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    """A training run that writes its next checkpoint over the one that is loaded changes nothing in memory."""
    folder = Path(shutil.copytree(tiny_files("llama").folder, tmp_path / "model"))
    model = AnalysisModel.load(ModelFiles(folder, "model", "folder"), "cpu")
    tokens = torch.arange(2, 22)[None]
    before = model.trace(tokens)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    after = model.trace(tokens)
    assert torch.equal(before.residual, after.residual)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "phi", "gemma"])
def test_half_precision_keeps_the_readout_in_float32(
    dtype: str, family: str, tiny_files: Callable[[str], ModelFiles], tiny_model: Callable[[str], AnalysisModel]
) -> None:
    """The unembedding is that of float32 weights rounded once; what is read of the model is float32."""
    model, exact = AnalysisModel.load(tiny_files(family), "cpu", dtype), tiny_model(family)
    assert str(model.dtype) == f"torch.{dtype}"
    trace = model.trace(torch.arange(2, 22)[None])
    parts = (model.readout.W_U, model.readout.W_out, trace.residual, trace.activations)
    assert {part.dtype for part in parts} == {torch.float32}
    coarse = torch.finfo(model.dtype).eps
    assert (model.readout.W_U - exact.readout.W_U).abs().max() < 2 * coarse * exact.readout.W_U.abs().max()
    assert (model.readout.W_U - exact.readout.W_U).abs().max() > 0, "weights were rounded"
    assert model.self_check.log_probs < TOLERANCES[dtype].log_probs  # type: ignore[index]


def test_hooks_and_halves_go_together(tiny_files: Callable[[str], ModelFiles]) -> None:
    """A forward pass from a layer on, with a hook that returns float32, ends where the whole pass does."""
    model, tokens = AnalysisModel.load(tiny_files("llama"), "cpu", "bfloat16"), torch.arange(2, 22)[None]
    whole = model.trace(tokens).residual
    again = model.continued(
        model.residual_before(tokens, 1), 1, [("blocks.1.mlp.hook_post", lambda value, hook: value * 1.0)]
    )
    assert torch.equal(whole, again)


def test_auto_is_float32_where_it_fits_else_as_stored(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_files("llama").folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert choose_dtype("auto", tmp_path, "x", CPU) == torch.float32
    monkeypatch.setattr(dtypes, "free_memory", lambda device: needed(stored(tmp_path), torch.float32) - 1)
    assert choose_dtype("auto", tmp_path, "x", CPU) == torch.bfloat16
    with pytest.raises(ModelTooLarge, match=r"x needs \d+\.\d GB .*float32.*--dtype bfloat16 takes \d+\.\d GB"):
        choose_dtype("float32", tmp_path, "x", CPU)
    monkeypatch.setattr(dtypes, "free_memory", lambda device: 1)
    with pytest.raises(ModelTooLarge, match=r"bfloat16, and 0\.0 GB are free on CPU.*a machine with more"):
        choose_dtype("auto", tmp_path, "x", CPU)


def test_a_type_that_is_none_or_that_the_device_lacks_is_refused(
    tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_files("llama").folder
    with pytest.raises(BadConfig, match="--dtype takes auto, float32, bfloat16, float16, not 'int4'"):
        choose_dtype("int4", folder, "x", CPU)
    monkeypatch.setattr(dtypes, "_computes_in", lambda device, dtype: dtype == torch.float32)
    with pytest.raises(SourceError, match=r"CPU.* does not compute in bfloat16: use --dtype float32"):
        choose_dtype("bfloat16", folder, "x", CPU)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        ({"quant_method": "awq", "bits": 4}, "quantised by awq.*take the checkpoint that it was made from"),
        ({"quant_method": "gptq", "bits": 4}, "quantised by gptq.*bitsandbytes, or a .gguf file"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "pip install bitsandbytes"),
    ],
)
def test_a_quantised_checkpoint_that_cannot_be_read_names_what_is_missing(
    method: dict[str, object], sentence: str, tiny_files: Callable[[str], ModelFiles], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(tiny_files("llama").folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": method}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("backend.core.models.quantised.find_spec", lambda name: None)
    with pytest.raises(SourceError, match=sentence):
        AnalysisModel.load(ModelFiles(folder, "model", "folder"), "cpu")
    described = Checkpoint.of(ModelFiles(folder, "model", "folder"), "float32").described
    assert described == f"model, a folder, {method['quant_method']} (4-bit) dequantised to float32"


def test_tensor_by_tensor_a_gguf_file_becomes_the_folder_that_transformers_writes(
    tiny_files: Callable[[str], ModelFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: so that weights which were converted before keep their checksum."""
    gguf = write_gguf(tiny_files("llama"), tmp_path / "tiny.gguf")
    (tmp_path / "at-once").mkdir()
    assert not conversions._write_at_once(gguf, tmp_path / "at-once")
    monkeypatch.setattr(conversions, "_write_at_once", lambda *_: pytest.fail("all tensors were read together"))
    found = find_model(str(gguf), tmp_path / "cache", lambda line: None)
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        assert (found.folder / name).read_bytes() == (tmp_path / "at-once" / name).read_bytes(), name
