"""Token frequencies of a run: from the model, from the corpus, from a file of counts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.atlas.records import windows_of
from backend.atlas.store import Atlas
from backend.core.errors import BadConfig, SourceError
from backend.core.kernels.engine import ablation_effects
from backend.core.metrics.effects import EffectSums, TokenBatch
from backend.core.metrics.frequency import Unigram, alignment
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from precompute import pipeline, unigrams
from precompute.config import RunConfig
from precompute.corpus import counted_positions, open_corpus, pack
from precompute.progress import Silent

TEXT = " ".join(f"Sentence {n} tells of the {n % 7} lamps, and of {n * n} other things." for n in range(60))
NAMES = ["direct_effect_freq", "freq_mediated", "delta_kl", "abs_delta_kl", "freq_alignment", "total_effect"]


@pytest.fixture
def config(tmp_path: Path, tiny_files: Callable[[str], ModelFiles], monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr(pipeline, "SHARD_TOKENS", 60)
    (tmp_path / "text.txt").write_text(TEXT)
    return RunConfig(str(tiny_files("llama").folder), str(tmp_path / "text.txt"), sequences=5, seq_len=32)


def _run(config: RunConfig, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], np.ndarray]:
    with Atlas.open(folder / "a.db") as atlas:
        run = pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")
        positions = atlas.positions.get(run)
        assert positions is not None
        assert positions.kl_before is not None
        return atlas.neurons.columns(run, NAMES), atlas.runs.get(run).config, positions.kl_before


def _expected(model: AnalysisModel, config: RunConfig, folder: Path, choose: Callable[..., Unigram]) -> dict[str, Any]:
    tokens = pack(open_corpus(config.dataset, folder, print), model, 5, 32, 0, model.bos)
    trace = model.trace(torch.from_numpy(tokens))
    residual, activations = trace.residual.flatten(0, 1), trace.activations.flatten(0, 1)
    readout = model.readout
    centred = readout.centred(residual)
    unigram = choose(readout.logits(centred, readout.scale(centred)).double().softmax(dim=1))
    counted = torch.from_numpy(np.flatnonzero(counted_positions(tokens, model.uncounted)))
    batch = TokenBatch(residual[counted], activations[counted], torch.from_numpy(tokens).flatten()[counted + 1])
    columns = EffectSums.of(ablation_effects(readout, batch, activations.mean(dim=0), unigram)).columns()
    return columns | {"freq_alignment": alignment(readout.W_out, readout.W_U, unigram).numpy()}


def _mean_prediction(model: AnalysisModel, config: RunConfig, folder: Path) -> np.ndarray:
    tokens = torch.from_numpy(pack(open_corpus(config.dataset, folder, print), model, 5, 32, 0, model.bos))
    readout, residual = model.readout, model.trace(tokens).residual.flatten(0, 1)
    centred = readout.centred(residual)
    return readout.logits(centred, readout.scale(centred)).double().softmax(dim=1).mean(dim=0).numpy()


def _assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in NAMES:
        np.testing.assert_allclose(found[name], expected[name], atol=5e-6, rtol=5e-4, err_msg=name)


def test_the_models_own_mean_prediction_is_the_default(
    config: RunConfig, tmp_path: Path, tiny_model: Callable[[str], AnalysisModel]
) -> None:
    found, told, kl = _run(config, tmp_path)
    expected = _expected(tiny_model("llama"), config, tmp_path, lambda p: Unigram.of_mean(p.sum(dim=0)))
    _assert_same(found, expected)
    with Atlas.open(tmp_path / "a.db", read_only=True) as atlas:
        kept = atlas.runs.unigram(1)
    mean = _mean_prediction(tiny_model("llama"), config, tmp_path)
    assert kept is not None
    np.testing.assert_allclose(kept, mean, rtol=1e-4, err_msg="P_freq itself is kept with the run")
    assert "the model's mean prediction over the sample" in str(told["frequency_source"])
    assert bool((kl >= 0).all())
    assert len(kl) > 60


def test_a_file_of_counts_is_taken_with_zeros_added(
    config: RunConfig, tmp_path: Path, tiny_model: Callable[[str], AnalysisModel]
) -> None:
    model = tiny_model("llama")
    counts = np.random.default_rng(0).zipf(1.6, model.d_vocab - 20)
    np.save(tmp_path / "seen.npy", counts)
    config = replace(config, frequency="counts", counts=str(tmp_path / "seen.npy"))
    found, told, _ = _run(config, tmp_path)
    padded = np.pad(counts.astype(float), (0, 20))
    _assert_same(found, _expected(model, config, tmp_path, lambda _: Unigram.of_counts(padded)))
    assert "seen.npy" in str(told["frequency_source"])
    assert str(tmp_path) not in str(told["frequency_source"])


def test_counts_of_the_corpus_are_those_of_its_tokens(
    config: RunConfig, tmp_path: Path, tiny_model: Callable[[str], AnalysisModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    ids = model.encode(TEXT)
    config = replace(config, frequency="corpus")
    for most in (10_000_000, 700):
        monkeypatch.setattr(unigrams, "MOST_COUNTED", most)
        counts = np.bincount(ids[:most], minlength=model.d_vocab)
        folder = tmp_path / str(most)
        folder.mkdir()
        found, told, _ = _run(config, folder)
        _assert_same(found, _expected(model, config, tmp_path, lambda _, c=counts: Unigram.of_counts(c)))
        assert f"{most:,}" in str(told["frequency_source"])


def test_other_counts_make_another_run(config: RunConfig, tmp_path: Path) -> None:
    with Atlas.open(tmp_path / "a.db") as atlas:
        runs = []
        for name, scale in (("one", 1), ("again", 1), ("two", 2)):
            np.save(tmp_path / "c.npy", scale * np.arange(1.0, 100.0))
            chosen = replace(config, frequency="counts", counts=str(tmp_path / "c.npy"))
            runs.append((name, pipeline.run(chosen, atlas, tmp_path / "cache", tmp_path / "work", Silent(), "cpu")))
    assert [run for _, run in runs] == [1, 1, 2]


def test_a_corpus_that_counts_differently_makes_another_run_though_its_sample_is_the_same(
    config: RunConfig, tmp_path: Path
) -> None:
    """The sample is drawn from a corpus's beginning; all of it is counted."""
    text = tmp_path / "growing.txt"
    chosen = replace(config, dataset=str(text), sequences=1, frequency="corpus")
    runs, samples = [], []
    with Atlas.open(tmp_path / "a.db") as atlas:
        for end in ("", "", "zebra zebra zebra"):
            text.write_text(TEXT * 4 + end)
            runs.append(pipeline.run(chosen, atlas, tmp_path / "cache", tmp_path / "work", Silent(), "cpu"))
            samples.append(atlas.contexts.sequences(runs[-1], windows_of(atlas.runs.get(runs[-1]))).tolist())
    assert samples[0] == samples[2]
    assert runs == [1, 1, 2]


def test_an_earlier_layer_has_them_too(config: RunConfig, tmp_path: Path) -> None:
    found, _, _ = _run(replace(config, layer=0, sequences=2), tmp_path)
    assert all(np.isfinite(column).all() for column in found.values())
    assert float(found["abs_delta_kl"].max()) > 1e-4


@pytest.mark.parametrize("dtype", ["<i4", "<u8", "<f4"])
@pytest.mark.parametrize("count", [1, 5, 9])
def test_the_reader_takes_any_kind_of_number(tmp_path: Path, dtype: str, count: int) -> None:
    np.save(tmp_path / "c.npy", np.arange(1, count + 1).astype(dtype))
    found = unigrams.read_counts(tmp_path / "c.npy", 9)
    assert found.tolist() == [*range(1, count + 1), *[0] * (9 - count)]
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones(10), "10 counts and the model's vocabulary 9"),
        (np.ones((3, 3)), "not one count a token"),
        (np.array(["a", "b"]), "not one count a token"),
        (np.ones(3, dtype=complex), "not one count a token"),
        (np.array([1.0, -1.0]), "none negative"),
        (np.array([1.0, np.nan]), "finite"),
        (np.array([1.0, np.inf]), "finite"),
        (np.zeros(4), "not all 0"),
        (np.zeros(0), r"not one count a token|not an \.npy file"),
        (np.array([{}, None]), r"not an \.npy file"),
    ],
)
def test_what_is_not_counts_is_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "c.npy", array, allow_pickle=True)
    with pytest.raises(SourceError, match=words):
        unigrams.read_counts(tmp_path / "c.npy", 9)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.ones(9))
    whole = (tmp_path / "c.npy").read_bytes()
    for damaged in (b"", b"junk", whole[:40], whole[:-8], whole.replace(b"(9,)", b"(9000000000000,)")):
        (tmp_path / "c.npy").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"not an \.npy file"):
            unigrams.read_counts(tmp_path / "c.npy", 9)
    with pytest.raises(SourceError, match="no file of counts"):
        unigrams.read_counts(tmp_path / "nothing.npy", 9)


@pytest.mark.parametrize("wrong", [{"frequency": "counts"}, {"counts": "a.npy"}])
def test_counts_and_their_file_belong_together(wrong: dict[str, str]) -> None:
    with pytest.raises(BadConfig, match="belong together"):
        RunConfig("gpt2", **wrong)  # type: ignore[arg-type]
