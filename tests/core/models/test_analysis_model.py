"""Loading a model: what is refused, and that the self-check fires."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge

from backend.core.errors import ModelTooLarge, SelfCheckFailed, SourceError, UnsupportedModel
from backend.core.models import analysis_model as model_module
from backend.core.models import loading
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.devices import choose_device
from backend.core.models.devices import refusing_memory_errors as _refusing
from backend.core.models.readout import Readout
from backend.core.models.sources import ModelFiles
from tests.reference.tiny_models import D_MLP, D_MODEL, FAMILIES, LAYERS, RELATIVES, VOCAB, build


def test_a_trace_has_the_shapes_it_says(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("gpt2")
    trace = model.trace(torch.randint(2, VOCAB, (3, 10)))
    assert trace.residual.shape == (3, 10, D_MODEL)
    assert trace.activations.shape == (3, 10, D_MLP)
    assert (model.last_layer, model.d_vocab, model.norm) == (LAYERS - 1, VOCAB, "LayerNorm")
    shapes = {name: tuple(getattr(model.readout, name).shape) for name in ("W_out", "W_U")}
    assert shapes == {"W_out": (D_MLP, D_MODEL), "W_U": (D_MODEL, VOCAB)}


def test_a_trace_stops_after_the_last_block(tiny_model: Callable[[str], AnalysisModel]) -> None:
    """What a vocabulary of logits costs is a sixth of a small model's forward pass, and its memory more than that."""
    model, tokens = tiny_model("llama"), torch.arange(2, 20)[None]
    whole = model.run(tokens, model.residual_point)[1][model.residual_point]
    unembedded: list[str] = []
    handle = model.bridge.unembed.register_forward_hook(lambda *_: unembedded.append("logits"))
    try:
        residual = model.trace(tokens).residual
        observed = model.observed(tokens, [])
        assert not unembedded
        model.run(tokens)
        assert unembedded, "the hook sees what it is for"
    finally:
        handle.remove()
    assert torch.equal(residual, whole)
    assert torch.equal(observed, whole)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("deepseek-v3", r"not supported \(DeepseekV3MoE\)"),
        ("qwen2-moe-mixed", "only some of its layers have experts"),
        ("vaultgemma", "compatibility mode"),
    ],
)
def test_what_the_closed_forms_do_not_cover_is_refused(family: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        AnalysisModel.load(build(family, tmp_path), "cpu")


def test_a_processed_model_that_predicts_otherwise_is_refused(
    tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = loading.boot

    def boot_spoilt(*arguments: Any) -> Any:
        bridge = boot(*arguments)
        bridge.unembed.W_U.data[:, 7] += 0.5
        return bridge

    monkeypatch.setattr(model_module, "boot", boot_spoilt)
    with pytest.raises(SelfCheckFailed, match="log-probabilities differ"):
        AnalysisModel.load(tiny_files("llama"), "cpu")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: replace(r, W_U=r.W_U * 1.1), "logits are not norm"),
        (lambda r: replace(r, b_U=torch.linspace(0, 1, VOCAB)), "logits are not norm"),
        (lambda r: replace(r, W_out=r.W_out * 1.1), "not activations · W_out"),
        (lambda r: replace(r, W_out=r.W_out.flip(0)), "not activations · W_out"),
        (lambda r: replace(r, norm="LayerNorm"), "not activations · W_out"),
        (
            lambda r: replace(r, norm="LayerNorm", W_out=r.W_out - r.W_out.mean(1, keepdim=True)),
            "final norm is neither",
        ),
        (lambda r: replace(r, eps=0.5), "final norm is neither"),
    ],
    ids=["unembedding", "bias", "size of W_out", "order of neurons", "kind of norm", "kind of norm, centred", "eps"],
)
def test_a_readout_that_is_not_the_models_is_refused(
    spoil: Callable[[Readout], Readout],
    reason: str,
    tiny_files: Callable[[str], ModelFiles],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = AnalysisModel._readout
    monkeypatch.setattr(AnalysisModel, "_readout", lambda self: spoil(original(self)))
    with pytest.raises(UnsupportedModel, match=reason):
        AnalysisModel.load(tiny_files("llama"), "cpu")


@pytest.mark.parametrize("family", ["gpt2", "xglm"])
def test_output_weights_are_centred_where_the_norm_centres(family: str, tmp_path: Path) -> None:
    """Where TransformerLens leaves them uncentred (XGLM), weight metrics would measure what no norm lets pass."""
    readout = AnalysisModel.load(build(family, tmp_path), "cpu").readout
    assert readout.norm == "LayerNorm"
    assert float(readout.W_out.mean(dim=1).abs().max()) < 1e-6


def test_output_weights_are_not_centred_where_the_norm_does_not(tiny_model: Callable[[str], AnalysisModel]) -> None:
    readout = tiny_model("llama").readout
    assert readout.norm == "RMSNorm"
    assert float(readout.W_out.mean(dim=1).abs().max()) > 1e-2


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


def test_a_broken_configuration_gets_a_sentence(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_files("gpt2").folder, broken)
    (broken / "config.json").write_text('{"model_type": "no-such-family"}')
    with pytest.raises(SourceError, match="could not be read as a causal language model"):
        AnalysisModel.load(ModelFiles(broken, "broken", "folder"), "cpu")


def test_an_incomplete_download_is_refused(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    """transformers would only warn, and the self-check would compare the random model with itself."""
    broken = tmp_path / "incomplete"
    shutil.copytree(tiny_files("llama").folder, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lacks 1 of its tensors \(such as model\.norm\.weight\)"):
        AnalysisModel.load(ModelFiles(broken, "incomplete", "folder"), "cpu")


@pytest.mark.parametrize("family", FAMILIES | RELATIVES)
def test_the_width_of_the_mlp_is_that_of_its_weights(family: str, tiny_model: Callable[[str], AnalysisModel]) -> None:
    assert tiny_model(family).d_mlp == (FAMILIES | RELATIVES)[family].d_mlp


@pytest.mark.parametrize("content", [b"", b"junk junk junk junk", None], ids=["empty", "junk", "cut short"])
def test_damaged_weights_get_a_sentence(
    content: bytes | None, tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    weights = (folder := _copy(tiny_files("gpt2"), tmp_path)) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000] if content is None else content)
    with pytest.raises(SourceError, match=r"could not be read as a causal language model|weights are damaged"):
        AnalysisModel.load(ModelFiles(folder, "gpt2", "folder"), "cpu")


def test_weights_that_are_not_numbers_are_refused(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    folder = _copy(tiny_files("gpt2"), tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.ln_f.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SelfCheckFailed, match="nan nats"):
        AnalysisModel.load(ModelFiles(folder, "gpt2", "folder"), "cpu")


def test_a_folder_without_a_tokenizer_is_refused(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> None:
    folder = _copy(tiny_files("gpt2"), tmp_path)
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(SourceError, match=r"no tokenizer.*tokenizer\.json"):
        AnalysisModel.load(ModelFiles(folder, "gpt2", "folder"), "cpu")


def _copy(files: ModelFiles, where: Path) -> Path:
    return Path(shutil.copytree(files.folder, where / "copy"))


@pytest.mark.parametrize("name", ["abacus", "", "mps", "meta", "xpu"])
def test_a_device_that_has_not_been_measured_gets_a_sentence(name: str) -> None:
    with pytest.raises(SourceError, match="use auto, cpu, or cuda"):
        choose_device(name)


def test_a_gpu_that_is_not_there_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SourceError, match="no CUDA GPU"):
        choose_device("cuda")
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SourceError, match="last GPU is cuda:1"):
        choose_device("cuda:2")
    assert choose_device("cuda:1") == torch.device("cuda:1")


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


@pytest.mark.parametrize(
    "step", ["transformers.AutoModelForCausalLM.from_pretrained", "backend.core.models.analysis_model.boot"]
)
def test_running_out_of_memory_while_loading_is_not_a_damaged_model(
    step: str, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(step, fail)
    with pytest.raises(ModelTooLarge, match="Loading gpt2 ran out of memory"):
        AnalysisModel.load(tiny_files("gpt2"), "cpu")


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"), _refusing("Running x"):
        raise RuntimeError("shapes do not match")
