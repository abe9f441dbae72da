"""How far computed effects are from float64: that it is measured, and that it would be noticed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from backend.core.kernels.choose import Mode
from backend.core.kernels.engine import EffectsEngine
from backend.core.kernels.survey import TOLERANCE
from backend.core.metrics.effects import TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.precision import Precision, recomputed
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import NormKind
from tests.core.readouts import random_batch, random_readout
from tests.reference.tiny_models import ENDINGS


def _measured(model: AnalysisModel, mode: Mode = "exact") -> tuple[Precision, Callable[[float], Precision]]:
    """The precision of some effects, and that of the same effects when one of them is moved by so much."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(2, 200, (2, 24), generator=generator)
    trace = model.trace(tokens)
    batch = TokenBatch(
        trace.residual[:, :-1].flatten(0, 1), trace.activations[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
    )
    means = batch.activations.mean(dim=0)
    unigram = Unigram.of_counts(torch.rand(model.d_vocab, generator=generator).double())
    effects = EffectsEngine(model.readout, mode, unigram=unigram).effects(batch, means)
    every = (effects.delta_loss.shape[1], len(batch.targets))

    def of(moved: float) -> Precision:
        changed = effects.delta_entropy_frozen.clone()
        changed[5, 3] += moved
        other = replace(effects, delta_entropy_frozen=changed)
        return Precision.of(model.readout, batch, means, other, unigram, seed=0, size=every)

    return of(0.0), of


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi", *ENDINGS])  # RMSNorm; LayerNorm; a bias of the unembedding
def test_exact_effects_are_within_rounding_and_a_wrong_one_is_seen(
    family: str, tiny_model: Callable[[str], AnalysisModel]
) -> None:
    found, moved = _measured(tiny_model(family))
    assert max(found.total, found.frozen, found.frequency_held or 0.0) < 2e-5
    assert moved(0.01).frozen == pytest.approx(0.01, rel=0.01)
    assert moved(0.01).total == found.total


def test_a_survey_is_as_rough_as_it_says(tiny_model: Callable[[str], AnalysisModel]) -> None:
    found, _ = _measured(tiny_model("llama"), "survey")
    assert max(found.total, found.frozen, found.frequency_held or 0.0) < TOLERANCE + 2e-5


def test_the_neurons_of_largest_effect_are_always_among_those_computed_again(
    tiny_model: Callable[[str], AnalysisModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    seen: list[torch.Tensor] = []

    def noting(*arguments: Any) -> dict[str, torch.Tensor]:
        seen.append(arguments[3])
        return recomputed(*arguments)

    monkeypatch.setattr("backend.core.metrics.precision.recomputed", noting)
    tokens = torch.randint(2, 200, (1, 24), generator=torch.Generator().manual_seed(1))
    trace = model.trace(tokens)
    batch = TokenBatch(trace.residual[0, :-1], trace.activations[0, :-1], tokens[0, 1:])
    means = batch.activations.mean(dim=0)
    effects = EffectsEngine(model.readout).effects(batch, means)
    found = Precision.of(model.readout, batch, means, effects, None, seed=3, size=(8, 6))
    assert (found.neurons, found.tokens, found.frequency_held) == (8, 6, None)
    largest = effects.delta_loss.abs().mean(dim=0).argsort(descending=True)[:4]
    assert set(largest.tolist()) <= set(seen[0].tolist())
    assert len(set(seen[0].tolist())) == 8


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("post_norm", [None, "RMSNorm", "LayerNorm"])
@pytest.mark.parametrize("norm", ["RMSNorm", "LayerNorm", "none"])
@pytest.mark.parametrize("bias", [False, True])
def test_every_way_to_end_agrees_with_float64(
    norm: NormKind, post_norm: Literal["LayerNorm", "RMSNorm"] | None, softcap: float | None, bias: bool
) -> None:
    """Each with every other: a norm after the MLP, the last norm, a bias of the unembedding, a soft-cap."""
    readout = random_readout(3, norm=norm, bias=bias, post_norm=post_norm, softcap=softcap)
    batch, targets = random_batch(3, readout), torch.linspace(-2, 2, 7)
    unigram = Unigram.of_counts(torch.arange(1, 32).double())
    effects = EffectsEngine(readout, unigram=unigram).effects(batch, targets)
    again = recomputed(readout, batch, targets, torch.arange(7), unigram)
    for name, expected in again.items():
        torch.testing.assert_close(getattr(effects, name).double(), expected, atol=1e-5, rtol=1e-5)
    assert float(effects.delta_loss.abs().max()) > 0.1
    through_norm = float((effects.delta_loss - effects.delta_loss_frozen).abs().max())
    assert (through_norm < 1e-5) is (norm == "none")
    some = EffectsEngine(readout.of_neurons([5, 2]), unigram=unigram)
    raw = None if readout.post_norm is None else readout.post_norm.before(batch.activations)
    chosen = replace(batch, activations=batch.activations[:, [5, 2]], mlp_raw=raw)
    few = some.effects(chosen, targets[[5, 2]])
    assert few.delta_kl is not None
    assert effects.delta_kl is not None
    torch.testing.assert_close(few.delta_loss, effects.delta_loss[:, [5, 2]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(few.delta_kl, effects.delta_kl[:, [5, 2]], atol=1e-5, rtol=1e-5)
