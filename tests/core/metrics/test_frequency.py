"""Token frequency: P_freq and its direction, the loss with that direction held, the distance from P_freq."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.interventions.forward import ablate_each
from backend.core.kernels import choose as engine
from backend.core.kernels import plain as kernels
from backend.core.kernels import residuals, series, survey
from backend.core.kernels.engine import EffectsEngine, UnigramReadout, ablation_effects
from backend.core.kernels.problem import Ablations, Before, DirectPath
from backend.core.metrics import frequency
from backend.core.metrics.effects import Effects, EffectSums, PairStatistics, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import NormKind, Readout
from backend.core.models.sources import ModelFiles
from tests.core.kernels.test_kernels import small_problem
from tests.core.readouts import random_batch, random_readout
from tests.reference.brute_force import FrequencyReference, Reference
from tests.reference.tiny_models import ENDINGS, FAMILIES, RELATIVES, VOCAB

SEEDS = st.integers(0, 2**31)
NORMS: st.SearchStrategy[NormKind] = st.sampled_from(["LayerNorm", "RMSNorm"])
quick = settings(max_examples=25, deadline=None)


def zipf(seed: int, d_vocab: int) -> Unigram:
    """Counts that fall off as words' do, shuffled; the rarest tokens are not seen at all."""
    counts = (1e4 / torch.arange(1, d_vocab + 1)).floor()
    counts[-d_vocab // 5 :] = 0
    return Unigram.of_counts(counts[torch.randperm(d_vocab, generator=torch.Generator().manual_seed(seed))])


def with_direction(problem: Ablations) -> Ablations:
    direction = zipf(4, problem.logits.shape[1]).direction
    return replace(problem, fixed_direction=direction.float().to(problem.logits.device))


def _before(problem: Ablations) -> Before:
    return Before.of(problem.logits, problem.targets, problem.b_U)


def _exact(problem: Ablations) -> torch.Tensor:
    """Eq. 8 written out in float64, [tokens, n_neurons]."""
    assert problem.fixed_direction is not None
    v = problem.fixed_direction.double()
    b = torch.zeros(1).double() if problem.b_U is None else problem.b_U.double()
    found = torch.empty(problem.c.shape, dtype=torch.float64)
    for t, L in enumerate(problem.logits.double()):
        y = L + problem.c[t, :, None].double() * problem.path.A.double()
        y = (y - b) * problem.r[t, :, None].double() + b
        held = y - ((y - L) @ v)[:, None] * v
        target = problem.targets[t]
        found[t] = L.log_softmax(0)[target] - held.log_softmax(1)[:, target]
    return found


KERNELS: dict[str, Callable[[Ablations, Before], PairStatistics]] = {
    "series": engine.by_series, "rows": engine.by_rows, "plain": kernels.every_pair, "survey": survey.every_pair,
}  # fmt: skip


@pytest.mark.parametrize("strength", [0.0, 1e-3, 0.02, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_agrees_with_float64(strength: float, bias: bool, kernel: str) -> None:
    problem = with_direction(small_problem(1, strength=strength, bias=bias))
    found = KERNELS[kernel](problem, _before(problem)).delta_loss_freq
    assert found is not None
    tolerance = survey.TOLERANCE if kernel == "survey" else 5e-6
    assert float((found - _exact(problem)).abs().max()) < tolerance + 5e-6 * strength


@pytest.mark.parametrize("strength", [1e-3, 0.2, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_frequency_changes_no_other_number(strength: float, bias: bool, kernel: str) -> None:
    """Of a survey beyond rounding: beside a direction its whole rows are summed in another order."""
    allowed = 2e-6 if kernel == "survey" else 0.0
    problem = small_problem(3, strength=strength, bias=bias)
    off, on = (KERNELS[kernel](p, _before(p)) for p in (problem, with_direction(problem)))
    assert off.delta_loss_freq is None
    for name, values in vars(off).items():
        if values is not None:
            torch.testing.assert_close(getattr(on, name), values, rtol=allowed, atol=allowed, msg=name)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("losses_only", [True, False])
@pytest.mark.parametrize("accuracy", [series.EXACT, survey._FIXED], ids=["exact", "survey"])
@pytest.mark.parametrize("strength", [1e-3, 5e-3, 0.02, 0.1])
def test_a_certificate_is_a_bound(
    strength: float, accuracy: series.Accuracy, losses_only: bool, bias: bool, half: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Certified pairs alone, without the rows that repair the others; every width of the products."""
    monkeypatch.setattr(series, "half_precision", lambda _: torch.bfloat16 if half else None)
    problem = with_direction(small_problem(6, strength=strength, bias=bias))
    found = problem.room()
    expansion = series.Series(problem, _before(problem).predictions, accuracy, losses_only=losses_only)
    expansion.fill_fixed(found, torch.ones_like(problem.c, dtype=torch.bool))
    assert found.delta_loss_freq is not None
    certified = expansion.fixed_certified
    errors = (found.delta_loss_freq - _exact(problem)).abs()[certified]
    assert not len(errors) or float(errors.max()) < accuracy.tolerance + 2e-6
    share = float(certified.float().mean())
    assert share > 0.99 or strength > 1e-3
    assert share < 0.7 or strength < 0.1


@pytest.mark.parametrize("family", FAMILIES | RELATIVES)
def test_effects_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), (FAMILIES | RELATIVES)[family])
    tokens = torch.randint(2, VOCAB, (18,), generator=torch.Generator().manual_seed(3))
    trace = model.trace(tokens[None])
    means = trace.activations[0].mean(dim=0)
    d_vocab = model.readout.W_U.shape[1]
    unigram = zipf(5, d_vocab)
    batch = TokenBatch(trace.residual[0, :-1], trace.activations[0, :-1], tokens[1:])
    effects = ablation_effects(model.readout, batch, means, unigram)
    assert effects.before_kl is not None
    before = reference.frequency(tokens, unigram.p.numpy())
    torch.testing.assert_close(effects.before_kl, before.divergence(None), atol=2e-5, rtol=0)
    for neuron in range(model.d_mlp):
        _agree(effects, neuron, before, reference.ablated_logits(tokens, neuron, float(means[neuron])))
    assert effects.delta_kl is not None
    assert float(effects.delta_kl.abs().max()) > 1e-2, "ablations must matter, or agreement says nothing"


def _agree(effects: Effects, neuron: int, before: FrequencyReference, after: torch.Tensor) -> None:
    assert effects.delta_kl is not None
    assert effects.delta_loss_freq is not None
    expected = before.divergence(after) - before.divergence(None)
    torch.testing.assert_close(effects.delta_kl[:, neuron], expected, atol=2e-5, rtol=0)
    held = effects.delta_loss_freq[:, neuron].double()
    torch.testing.assert_close(held, before.held_loss(after), atol=2e-5, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi", *ENDINGS])
def test_effects_of_an_earlier_layer_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    tokens = torch.randint(2, VOCAB, (12,), generator=torch.Generator().manual_seed(3))
    unigram = zipf(5, model.readout.W_U.shape[1])
    targets, positions = torch.zeros(model.d_mlp), torch.arange(11)
    told = UnigramReadout.of(model.readout, unigram)
    effects = ablate_each(model, tokens, 0, targets, positions, frequency=told)
    before = reference.frequency(tokens, unigram.p.numpy())
    torch.testing.assert_close(effects.before_kl, before.divergence(None), atol=2e-5, rtol=0)
    for neuron in range(model.d_mlp):
        _agree(effects, neuron, before, reference.ablated_logits(tokens, neuron, 0.0, layer=0))


@quick
@given(SEEDS, NORMS, st.booleans())
def test_a_neuron_that_neither_writes_along_the_direction_nor_scales_has_no_share(
    seed: int, norm: NormKind, bias: bool
) -> None:
    """The residual stream's mirror image keeps its length (r = 1), and A_i·v̂ = 0."""
    readout = random_readout(seed, norm=norm, bias=bias)
    unigram = zipf(seed, 31)
    W_U = readout.W_U.double()
    along = W_U @ unigram.direction
    readout = replace(readout, W_out=_without(readout, along.float()))
    batch = random_batch(seed, readout, tokens=1)
    mirror = -2 * (readout.centred(batch.residual) @ readout.W_out.T) / readout.W_out.square().sum(dim=1)
    effects = ablation_effects(readout, batch, batch.activations[0] + mirror[0], unigram)
    assert effects.delta_loss_freq is not None
    assert float(effects.delta_loss.abs().max()) > 1e-3
    torch.testing.assert_close(effects.delta_loss_freq, effects.delta_loss, atol=3e-4, rtol=1e-4)


def _without(readout: Readout, along: torch.Tensor) -> torch.Tensor:
    rows = readout.W_out
    if readout.norm == "LayerNorm":
        along = along - along.mean()  # rows have mean 0 already, and must keep it
    return rows - (rows @ along / along.square().sum())[:, None] * along


@quick
@given(SEEDS, NORMS, st.booleans())
def test_divergence_is_not_negative_and_its_change_ends_at_what_is_left(seed: int, norm: NormKind, bias: bool) -> None:
    readout, unigram = random_readout(seed, norm=norm, bias=bias), zipf(seed, 31)
    batch = random_batch(seed, readout)
    effects = ablation_effects(readout, batch, torch.zeros(7), unigram)
    assert effects.before_kl is not None
    assert effects.delta_kl is not None
    assert bool((effects.before_kl >= 0).all())
    assert float((effects.before_kl[:, None] + effects.delta_kl).min()) > -2e-5


@quick
@given(SEEDS, st.booleans())
def test_holding_the_direction_twice_is_holding_it_once(seed: int, bias: bool) -> None:
    """What is left of A after v̂ is taken out of it has the same effect with v̂ held, where the norm does not change."""
    problem = with_direction(small_problem(seed, strength=0.2, bias=bias, tokens=4, neurons=9, d_vocab=60))
    problem = replace(problem, r=torch.ones_like(problem.r))
    assert problem.fixed_direction is not None
    v = problem.fixed_direction
    A = problem.path.A
    bare = A - (A @ v)[:, None] * v
    # A residual stream as wide as the vocabulary can write exactly that.
    path = DirectPath.of_rows(bare, torch.eye(60), bare)
    once = kernels.every_pair(problem, _before(problem)).delta_loss_freq
    twice = kernels.every_pair(replace(problem, path=path), _before(problem))
    fast = engine.by_rows(replace(problem, path=path), _before(problem))
    for found in (twice.delta_loss, twice.delta_loss_freq, fast.delta_loss_freq):
        torch.testing.assert_close(found, once, atol=1e-5, rtol=0)


@quick
@given(SEEDS)
def test_the_direction_has_length_one_and_mean_zero(seed: int) -> None:
    unigram = zipf(seed, 200)
    assert abs(float(unigram.p.sum()) - 1) < 1e-12
    assert abs(float(unigram.direction.norm()) - 1) < 1e-12
    assert abs(float(unigram.direction.sum())) < 1e-10
    order = unigram.p.argsort()
    assert bool((unigram.direction[order].diff() >= 0).all()), "more frequent tokens are further along it"


def test_smoothing_is_what_it_says() -> None:
    unigram = Unigram.of_counts(np.array([3.0, 0.0, 1.0]), smoothing=0.5)
    np.testing.assert_allclose(unigram.p, np.array([3.5, 0.5, 1.5]) / 5.5)
    assert float(Unigram.of_counts(torch.ones(5)).direction.abs().max()) == 0, "nothing is more frequent"
    for counts, smoothing in (([1.0, -1.0], 2.0), ([1.0, 0.0], 0.0), ([float("nan"), 1.0], 1.0), ([1.0], -1.0)):
        with pytest.raises(ValueError, match="count"):
            Unigram.of_counts(np.array(counts), smoothing)


def test_without_frequencies_there_are_none() -> None:
    readout = random_readout(2)
    effects = ablation_effects(readout, random_batch(2, readout), torch.zeros(7))
    assert effects.delta_kl is effects.delta_loss_freq is effects.before_kl is None
    assert not [name for name in EffectSums.of(effects).columns() if "freq" in name or "kl" in name]


def test_sums_carry_frequency_and_its_errors() -> None:
    readout, unigram = random_readout(5), zipf(5, 31)
    effects = ablation_effects(readout, random_batch(5, readout, tokens=400), torch.zeros(7), unigram)
    sums = EffectSums.of(effects, np.arange(400) % 50)
    columns = EffectSums.from_arrays(sums.to_arrays()).columns()
    assert effects.delta_kl is not None
    assert effects.delta_loss_freq is not None
    total, held = effects.delta_loss.double().abs().numpy(), effects.delta_loss_freq.double().abs().numpy()
    kl = effects.delta_kl.numpy()
    for name, values in (("direct_effect_freq", held), ("delta_kl", kl), ("abs_delta_kl", np.abs(kl))):
        np.testing.assert_allclose(columns[name], values.mean(axis=0), rtol=1e-9)
        by_group = values.reshape(8, 50, -1).mean(axis=0)
        np.testing.assert_allclose(columns[f"{name}_se"], by_group.std(axis=0, ddof=1) / 50**0.5, rtol=1e-6)
    np.testing.assert_allclose(columns["freq_mediated"], 1 - held.mean(axis=0) / total.mean(axis=0))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 400, 400) for _ in range(600)]
    shares = np.array([1 - held[d].mean(axis=0) / total[d].mean(axis=0) for d in draws])
    np.testing.assert_allclose(columns["freq_mediated_se"], shares.std(axis=0), rtol=0.3)
    twice = sums.plus(sums).columns()
    np.testing.assert_allclose(twice["freq_mediated"], columns["freq_mediated"])


@pytest.mark.parametrize("bias", [False, True])
def test_tiles_do_not_change_effects(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    readout = random_readout(3, bias=bias, neurons=150, d_model=24, d_vocab=500)
    readout.W_U.mul_(0.1)
    batch, unigram = random_batch(3, readout, tokens=40), zipf(1, 500)
    whole = EffectsEngine(readout, unigram=unigram).effects(batch, torch.zeros(150))
    monkeypatch.setattr(engine.Tiles, "within", lambda *_: engine.Tiles(17, 64))
    tiled = EffectsEngine(readout, unigram=unigram).effects(batch, torch.zeros(150))
    for name, values in vars(whole).items():
        torch.testing.assert_close(getattr(tiled, name).double(), values.double(), atol=6e-6, rtol=0)


def test_alignment_is_a_cosine_with_the_direction() -> None:
    readout, unigram = random_readout(6), zipf(6, 31)
    readout.W_out[2] = 0
    A = (readout.W_out @ readout.W_U).double()
    expected = torch.nn.functional.cosine_similarity(A, unigram.direction[None], dim=1)
    found = frequency.alignment(readout.W_out, readout.W_U, unigram)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert float(found[2]) == 0


@pytest.mark.parametrize("bias", [False, True])
def test_a_moved_residual_stream_agrees_between_kernels(bias: bool) -> None:
    readout = random_readout(7, bias=bias, neurons=5, d_model=16, d_vocab=80)
    readout.W_U.mul_(0.3)
    batch = random_batch(7, readout)
    unablated = residuals.Unablated.of(readout, batch.residual, batch.targets, UnigramReadout.of(readout, zipf(7, 80)))
    change = torch.randn(9, 16, generator=torch.Generator().manual_seed(1)) / 10
    r = torch.linspace(0.9, 1.1, 9)
    fast, plain = (kernel(readout, unablated, change, r) for kernel in (residuals._compiled, residuals._plain))
    assert plain.delta_loss_freq is not None
    torch.testing.assert_close(fast.delta_loss_freq, plain.delta_loss_freq, atol=5e-6, rtol=0)
    assert float((plain.delta_loss_freq - plain.delta_loss).abs().max()) > 1e-3
