"""Loading a model: what is refused, and that the self-check fires."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge

from backend.core.devices import refusing_memory_errors as _refusing
from backend.core.errors import ModelTooLarge, SelfCheckFailed, SourceError, UnsupportedModel
from backend.core.model import AnalysisModel
from backend.core.sources import ModelFiles
from tests.reference.tiny_models import D_MLP, D_MODEL, FAMILIES, LAYERS, VOCAB, build


def test_a_trace_has_the_shapes_it_says(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("gpt2")
    trace = model.trace(torch.randint(2, VOCAB, (3, 10)))
    assert trace.residual.shape == (3, 10, D_MODEL)
    assert trace.activations.shape == (3, 10, D_MLP)
    assert (model.last_layer, model.d_vocab, model.norm) == (LAYERS - 1, VOCAB, "LayerNorm")


@pytest.mark.parametrize(
    ("family", "reason"), [("gemma2", "soft-cap"), ("gemma3", "norm follows the MLP"), ("mixtral", "experts")]
)
def test_what_the_closed_forms_do_not_cover_is_refused(family: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        AnalysisModel.load(build(family, tmp_path), "cpu")


def test_a_processed_model_that_predicts_otherwise_is_refused(
    tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AnalysisModel, "_check_against", _check_with_spoilt_weights(AnalysisModel._check_against))
    with pytest.raises(SelfCheckFailed, match="log-probabilities differ"):
        AnalysisModel.load(tiny_files("llama"), "cpu")


def _check_with_spoilt_weights(check: Callable[..., None]) -> Callable[..., None]:
    def spoilt(model: AnalysisModel, probe: torch.Tensor, expected: torch.Tensor) -> None:
        check(model, probe, expected.roll(1, dims=-1))

    return spoilt


def test_a_readout_that_does_not_give_the_logits_is_refused(
    tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AnalysisModel._readout
    monkeypatch.setattr(AnalysisModel, "_readout", lambda self: replace(original(self), W_U=original(self).W_U * 1.1))
    with pytest.raises(UnsupportedModel, match="closed forms"):
        AnalysisModel.load(tiny_files("llama"), "cpu")


def test_special_tokens_do_not_count(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    assert model.bos == 0
    assert model.uncounted == {0, 1}
    assert model.encode("ab") == [model.encode("a")[0], model.encode("b")[0]]


def test_half_a_character_has_a_string(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    ids = model.encode("é")
    assert len(ids) == 2
    assert model.token_strings(ids) == ["�", "�"]


def test_a_vocabulary_padded_past_the_tokenizers_is_fine(tmp_path: Path) -> None:
    model = AnalysisModel.load(build("gpt-neox", tmp_path, vocab=304), "cpu")
    assert model.d_vocab == 304
    assert model.token_strings([300]) == [""]


def test_writing_weights_that_were_not_centred_are(
    tiny_files: Callable[[str], ModelFiles], tiny_model: Callable[[str], AnalysisModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TransformerLens leaves some LayerNorm families as they are; the readout must be the same either way."""
    plain = TransformerBridge.enable_compatibility_mode

    def uncentred(bridge: TransformerBridge, **options: bool) -> None:
        plain(bridge, **options, center_writing_weights=False)

    monkeypatch.setattr(TransformerBridge, "enable_compatibility_mode", uncentred)
    model = AnalysisModel.load(tiny_files("gpt2"), "cpu")
    assert float(model.bridge.blocks[-1].mlp.W_out.mean(dim=1).abs().max()) > 1e-3, "the bridge did not centre"
    torch.testing.assert_close(model.readout.W_out, tiny_model("gpt2").readout.W_out, atol=1e-6, rtol=1e-5)


def test_an_incomplete_download_is_refused(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    broken = tmp_path / "incomplete"
    shutil.copytree(tiny_files("llama").folder, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 of its tensors \(such as model\.norm\.weight\)"):
        AnalysisModel.load(ModelFiles(broken, "incomplete", "folder"), "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_width_of_the_mlp_is_that_of_its_weights(family: str, tiny_model: Callable[[str], AnalysisModel]) -> None:
    assert tiny_model(family).d_mlp == D_MLP


def test_a_broken_configuration_gets_a_sentence(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_files("gpt2").folder, broken)
    (broken / "config.json").write_text('{"model_type": "no-such-family"}')
    with pytest.raises(SourceError, match="could not be read as a causal language model"):
        AnalysisModel.load(ModelFiles(broken, "broken", "folder"), "cpu")


def test_a_device_that_is_not_there_gets_a_sentence(tiny_files: Callable[[str], ModelFiles]) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(SourceError, match="no CUDA GPU"):
            AnalysisModel.load(tiny_files("gpt2"), "cuda")
    with pytest.raises(SourceError, match="is not a device"):
        AnalysisModel.load(tiny_files("gpt2"), "abacus")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_running_out_of_memory_is_a_sentence(error: Exception) -> None:
    with (
        pytest.raises(ModelTooLarge, match=r"x ran out of memory\."),
        _refusing("Running x"),
    ):
        raise error


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"), _refusing("Running x"):
        raise RuntimeError("shapes do not match")
