"""A model of random weights has no neuron of any class, whatever its family and size."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.atlas.store import Atlas
from backend.core.metrics import chance, weights
from backend.core.metrics.classes import ChanceLines, classify, paper_criterion
from backend.core.metrics.frequency import ReadDirection, Unigram
from backend.core.models.readout import NormKind
from backend.core.models.sources import ModelFiles
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from tests.reference import tiny_models

TEXT = "".join(f"Lamp {n} hangs by hook {n % 5}; the {'old' if n % 3 else 'new'} one is lit.\n" for n in range(80))


def _classes(files: ModelFiles, folder: Path, sequences: int = 12) -> tuple[list[str], list[bool | None], float]:
    """The classes and marks of a run, and the median total effect."""
    (folder / "text.txt").write_text(TEXT)
    config = RunConfig(str(files.folder), str(folder / "text.txt"), sequences=sequences, seq_len=32)
    with Atlas.open(folder / "noise.db") as atlas:
        run = pipeline.run(config, atlas, folder / "cache", folder / "work", Silent(), "cpu")
        effects = atlas.neurons.columns(run, ["total_effect"])["total_effect"]
        return atlas.neurons.classes(run), atlas.neurons.marks(run), float(np.median(effects))


@pytest.mark.parametrize(("family", "seed"), [("gpt2", 8), ("gpt-neox", 9), ("llama", 8), ("gemma", 8)])
def test_tiny_models_without_structure(family: str, seed: int, tmp_path: Path) -> None:
    """Seeds are fixed, since of every twenty one has a neuron beyond a line by chance, as the last test here counts."""
    classes, marks, effect = _classes(tiny_models.build(family, tmp_path, seed=seed), tmp_path)
    assert set(classes) == {"plain"}
    assert not any(marks)
    assert effect > 0.01, "not because ablating them would do nothing"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_larger_model_without_structure(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    larger = tiny_models.Family(
        "LlamaConfig",
        "model.layers.-1.mlp.down_proj",
        "model.norm",
        {
            "hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 48, "max_position_embeddings": 64,
        },
    )  # fmt: skip
    monkeypatch.setitem(tiny_models.EVERY, "larger", larger)
    classes, marks, effect = _classes(tiny_models.build("larger", tmp_path, vocab=1000, seed=seed), tmp_path, 8)
    shutil.rmtree(tmp_path / "larger")
    assert len(classes) == 768
    assert set(classes) == {"plain"}
    assert not any(marks)
    assert effect > 0.001


@pytest.mark.parametrize("norm", ["RMSNorm", "LayerNorm"])
def test_of_many_models_few_have_one_by_chance(norm: NormKind) -> None:
    """Every line is crossed in one of twenty models, so that a class that rests on one line alone has a neuron that
    often. Here the effects are as large as can be, without any error: nothing but the lines keeps noise out."""
    generator, found = torch.Generator().manual_seed(3), []
    neurons = chance.RandomNeurons(120, 48, norm)
    for _ in range(100):
        W_U = torch.randn(48, 300, generator=generator)
        W_U = W_U - W_U.mean(dim=1, keepdim=True)
        W_out = torch.randn(120, 48, generator=generator)
        if norm == "LayerNorm":
            W_U, W_out = W_U - W_U.mean(dim=0, keepdim=True), W_out - W_out.mean(dim=1, keepdim=True)
        frequencies = Unigram(torch.randn(300, generator=generator, dtype=torch.float64).softmax(0))
        classes, marks = _at_their_best(W_out, W_U, ReadDirection.of(W_U, frequencies), neurons)
        kinds = ("entropy", "token_frequency", "prediction")
        found.append([*(kind in classes for kind in kinds), bool(marks.any())])
    rates = np.mean(found, axis=0)
    assert (rates <= 0.12).all(), rates
    assert rates[0] <= 0.05, "an entropy neuron has two lines to cross"


def _at_their_best(
    W_out: torch.Tensor, W_U: torch.Tensor, direction: ReadDirection, neurons: chance.RandomNeurons
) -> tuple[list[str], np.ndarray]:
    null_dim, ones = 2, np.ones(neurons.count)
    V0 = weights.unembedding_spectrum(W_U).null_directions(null_dim)
    low, high = chance.logit_var_lines(W_U, neurons)
    aligned = chance.freq_alignment_line(direction, neurons)
    rho = chance.null_fraction_line(null_dim, neurons)
    lines = ChanceLines(neurons.count, rho, logit_var_low=low, logit_var_high=high, freq_alignment=aligned)
    norm, variance = weights.weight_norm(W_out).numpy(), weights.logit_var(W_out, W_U).numpy()
    columns = {
        "null_fraction": weights.null_fraction(W_out, V0).numpy(),
        "logit_var": variance,
        "freq_alignment": direction.cosines(W_out).numpy(),
    }
    for name in ("ln_mediated", "freq_mediated", "total_effect", "abs_delta_kl"):
        columns |= {name: ones, f"{name}_se": 0 * ones}
    return list(classify(columns, lines, 50)), paper_criterion(norm, variance, lines)
