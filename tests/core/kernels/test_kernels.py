"""Every kernel gives the same numbers, and the series knows when it cannot."""

from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.kernels import choose as engine
from backend.core.kernels import plain as kernels
from backend.core.kernels import rows as compiled
from backend.core.kernels import rows_compiled as native
from backend.core.kernels import series, survey
from backend.core.kernels.engine import EffectsEngine
from backend.core.kernels.problem import Ablations, Along, Before, DirectPath
from backend.core.metrics.effects import EffectSums, PairStatistics
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.predictions import Predictions
from tests.core.readouts import random_batch, random_readout

D_VOCAB = 900


def _before(problem: Ablations) -> Before:
    return Before.of(problem.logits, problem.targets, problem.b_U)


def small_problem(
    seed: int,
    *,
    strength: float,
    bias: bool = False,
    tokens: int = 18,
    neurons: int = 300,
    d_vocab: int = D_VOCAB,
    device: str = "cpu",
) -> Ablations:
    """Logits with a peaked head and a long tail; effects of the size that `strength` says."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(tokens, d_vocab, generator=g)
    c = strength * torch.randn(tokens, neurons, generator=g)
    r = 1 + 0.02 * strength * torch.randn(tokens, neurons, generator=g)
    W_out, W_U = torch.randn(neurons, 40, generator=g) / 40**0.5, torch.randn(40, d_vocab, generator=g)
    targets = torch.randint(0, d_vocab, (tokens,), generator=g)
    b_U = torch.randn(d_vocab, generator=g) if bias else None
    c, r, logits, targets = c.to(device), r.clamp_min(0.2).to(device), logits.to(device), targets.to(device)
    path = DirectPath.of(W_out.to(device), W_U.to(device))
    return Ablations(logits, targets, c, r, path, None if b_U is None else b_U.to(device))


def _exact(problem: Ablations, t: int, i: int) -> tuple[float, float, float, float]:
    L, a = problem.logits[t].double(), problem.path.A[i].double()
    b = torch.zeros(1).double() if problem.b_U is None else problem.b_U.double()
    target = int(problem.targets[t])

    def told(y: torch.Tensor) -> tuple[float, float]:
        log_p = y.log_softmax(0)
        return -float(log_p[target]), -float((log_p.exp() * log_p).sum())

    loss, entropy = told(L)
    frozen = L + problem.c[t, i].double() * a
    total = told((frozen - b) * problem.r[t, i].double() + b)
    held = told(frozen)
    return total[0] - loss, held[0] - loss, total[1] - entropy, held[1] - entropy


COARSE = series.Accuracy(order=2, half_from=2, tolerance=4e-4)
KERNELS = {"series": engine.by_series, "rows": engine.by_rows, "plain": kernels.every_pair}


def _worst(problem: Ablations, found: PairStatistics) -> float:
    worst = 0.0
    for t in range(len(problem.logits)):
        for i in range(0, problem.c.shape[1], 17):
            deltas = (found.delta_loss, found.delta_loss_frozen, found.delta_entropy, found.delta_entropy_frozen)
            worst = max(worst, *(abs(float(d[t, i]) - e) for d, e in zip(deltas, _exact(problem, t, i), strict=True)))
    return worst


@pytest.mark.parametrize("strength", [0.0, 1e-3, 0.02, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_agrees_with_float64(strength: float, bias: bool, kernel: str) -> None:
    problem = small_problem(1, strength=strength, bias=bias)
    worst = _worst(problem, KERNELS[kernel](problem, _before(problem)))
    assert worst < 5e-6 + 5e-6 * strength, "the certificate's tolerance and float32 rounding"


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("accuracy", [series.EXACT, COARSE], ids=["exact", "coarse"])
@pytest.mark.parametrize("strength", [1e-3, 5e-3, 0.02, 0.1])
def test_a_certificate_is_a_bound(
    strength: float, accuracy: series.Accuracy, bias: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certified pairs alone, without the rows that repair the others; every width of the products."""
    monkeypatch.setattr(series, "half_precision", lambda _: torch.bfloat16 if half else None)
    problem = small_problem(6, strength=strength, bias=bias)
    found = problem.room()
    certified = series.Series(problem, Predictions.of(problem.logits, problem.targets, problem.b_U), accuracy).fill(
        found
    )
    rows = engine.by_rows(problem, _before(problem))
    for name in ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen"):
        errors = (getattr(found, name) - getattr(rows, name)).abs()[certified]
        assert not len(errors) or float(errors.max()) < accuracy.tolerance + 2e-6, name
    share = float(certified.float().mean())
    assert share > 0.99 or strength > 1e-3
    assert share < 0.5 or strength < 0.1


def _assert_ranks(problem: Ablations, found: PairStatistics) -> None:
    """Ranks and argmax changes are those of float64, where no other token comes within float32 rounding."""
    before = _before(problem)
    b = torch.zeros(D_VOCAB) if problem.b_U is None else problem.b_U
    for t in range(len(problem.logits)):
        y = problem.logits[t].double() + problem.c[t, :, None].double() * problem.path.A.double()
        if problem.along is not None:
            v = problem.along.v.double()
            y = y + problem.along.e[t, :, None].double() * (v if v.ndim == 1 else v[t])
        y = (y - b) * problem.r[t, :, None].double() + b
        for token, low, high in (
            (problem.targets[t], found.rank[t] - 1, found.rank[t] - 1),
            (before.top[t], found.changed[t].long(), found.changed[t] * D_VOCAB),
        ):
            beats = y - y[:, token, None]
            margin = 3e-6 * y.abs().amax(dim=1, keepdim=True)
            assert bool(((beats > margin).sum(dim=1) <= high).all())
            assert bool(((beats > -margin).sum(dim=1) - 1 >= low).all())


@pytest.mark.parametrize("strength", [1e-3, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_ranks_and_argmax_changes_are_exact(strength: float, bias: bool, kernel: str) -> None:
    problem = small_problem(2, strength=strength, bias=bias)
    found = KERNELS[kernel](problem, _before(problem))
    _assert_ranks(problem, found)
    if strength >= 0.5:
        assert bool(found.changed.any())
        assert bool((found.rank != _before(problem).rank[:, None]).any())


@pytest.mark.parametrize("most", [None, 0, 120, 10_000])
@pytest.mark.parametrize("bias", [False, True])
def test_ranks_from_windows_are_exact_for_all_that_is_asked(
    bias: bool, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = small_problem(4, strength=0.3, bias=bias)
    if most is not None:
        monkeypatch.setattr(compiled, "_FEW_COLUMNS", most)
        path = DirectPath.of(problem.path.W_out, problem.path.W_U, keep_powers=True)
        path.columns()
        problem = replace(problem, path=path)
    found = problem.room()
    compiled.fill_ranks(problem, _before(problem), torch.ones_like(problem.c, dtype=torch.bool), found)
    _assert_ranks(problem, found)


@pytest.mark.parametrize("cuts", [(100,), (30, 100, 300), (100, 10_000)])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 0.02, 0.1, 0.5, 3.0])
def test_a_survey_stays_within_its_bound(
    strength: float, bias: bool, half: bool, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "half_precision", lambda _: torch.bfloat16 if half else None)
    monkeypatch.setattr(survey, "_CUTS", cuts)
    whole: list[int] = []
    fill_rows = compiled.fill_rows

    def counting(*arguments: Any) -> torch.Tensor:
        whole.append(int(arguments[3].sum()))
        return fill_rows(*arguments)

    monkeypatch.setattr(compiled, "fill_rows", counting)
    problem = small_problem(9, strength=strength, bias=bias, tokens=20)
    problem.logits.mul_(1.5)  # a head of 100 of 900 tokens with most of the mass
    found = survey.every_pair(problem, _before(problem))
    assert _worst(problem, found) < survey.TOLERANCE + 5e-6 * strength
    _assert_ranks(problem, found)
    share = whole[0] / problem.c.numel()
    if cuts[-1] > D_VOCAB:
        assert share < 0.3 or strength > 0.5, "with all tokens in the head little is left out"
        return
    assert share < 0.3 or strength > 0.02, "the bound lets weak ablations pass"
    assert share > 0.3 or strength < 0.5, "and strong ones not"


def test_polynomials_of_every_degree_are_needed_and_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are summed with the degree that their reach and the tiles' mass ask for, and with the highest."""
    problem = small_problem(7, strength=0.3)
    before, predictions = _before(problem), Predictions.of(problem.logits, problem.targets, problem.b_U)
    expansion = series.Series(problem, predictions)
    expansion.fill(problem.room())
    rows, neurons = torch.ones_like(problem.c).nonzero(as_tuple=True)
    pairs = (rows, neurons)
    reach = compiled.Reach.of(problem, predictions, expansion.mean_a, None)
    spread = compiled.Spread(expansion.spread, 4)
    degrees = compiled.Degrees.of(reach, problem, predictions, pairs, spread)
    narrow = {native.THIRD, native.SIXTH, native.TWELFTH, native.FAR}
    assert narrow <= set(degrees.of_pairs.tolist())
    assert np.isfinite(degrees.mass).all()
    own, _ = compiled._sums(problem, before, (None, None), expansion.mean_a, pairs, degrees)
    highest = replace(degrees, of_pairs=torch.full_like(degrees.of_pairs, native.FAR + 1), allowed=-1.0)
    exact, _ = compiled._sums(problem, before, (None, None), expansion.mean_a, pairs, highest)
    assert float(((own - exact).abs() / (1 + exact.abs())).max()) < 3e-6


def test_the_choice_of_a_kernel_says_why() -> None:
    exact, survey = (engine.choose_kernel(torch.device("cpu"), mode) for mode in ("exact", "survey"))
    assert "3e-06 nats" in exact.reason
    assert "0.0008 nats" in survey.reason


@pytest.mark.parametrize(
    ("memory", "n_neurons", "d_model", "d_vocab"),
    [
        (4 * 10**9, 1536, 576, 49_152),
        (4 * 10**9, 4864, 896, 151_936),
        (4 * 10**9, 16_384, 2048, 256_000),
        (2 * 10**9, 11_008, 4096, 32_000),
        (200 * 10**6, 3072, 768, 50_257),
    ],
)
def test_tiles_fit_into_the_memory(memory: int, n_neurons: int, d_model: int, d_vocab: int) -> None:
    tiles = engine.Tiles.within(memory, n_neurons, d_model, d_vocab)
    assert 8 <= tiles.tokens <= 256
    assert 64 <= tiles.neurons <= n_neurons
    assert tiles.neurons == n_neurons or tiles.block >= min(1000, 8 * tiles.tokens), "A is formed seldom"
    more = engine.Tiles.within(4 * memory, n_neurons, d_model, d_vocab)
    assert more.tokens >= tiles.tokens
    assert more.neurons >= tiles.neurons or more.tokens > tiles.tokens


@pytest.mark.parametrize("bias", [False, True])
def test_tiles_do_not_change_effects(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    readout = random_readout(3, bias=bias, neurons=150, d_model=24, d_vocab=500)
    readout.W_U.mul_(0.1)  # logits of the size that models have: larger ones round more
    batch = random_batch(3, readout, tokens=40)
    whole = EffectsEngine(readout).effects(batch, torch.zeros(150))
    monkeypatch.setattr(engine.Tiles, "within", lambda *_: engine.Tiles(17, 64, keep_powers=bias, block=30))
    tiled = EffectsEngine(readout).effects(batch, torch.zeros(150))
    for name, values in vars(whole).items():
        if values is None:
            assert getattr(tiled, name) is None
        else:
            torch.testing.assert_close(getattr(tiled, name).double(), values.double(), atol=6e-6, rtol=0)


def test_sums_by_tiles_are_those_of_all_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    readout = random_readout(3, bias=True, neurons=150, d_model=24, d_vocab=500)
    batch, unigram = random_batch(3, readout, tokens=40), Unigram.of_counts(torch.arange(500))
    monkeypatch.setattr(engine.Tiles, "within", lambda *_: engine.Tiles(17, 64, block=30))
    tiled = EffectsEngine(readout, unigram=unigram)
    effects = tiled.effects(batch, torch.zeros(150))
    groups, chosen = np.arange(40) // 9, torch.arange(40) % 7 == 2
    advances: list[int] = []
    sums, some = tiled.sums(batch, torch.zeros(150), groups, chosen, advances.append)
    assert sum(advances) == 40
    assert len(advances) > 5
    whole_groups = [sums.of_group(place, group) for place, group in enumerate(np.unique(groups))]
    assert reduce(EffectSums.plus, whole_groups).columns().keys() == sums.columns().keys()
    np.testing.assert_array_equal(
        reduce(EffectSums.plus, whole_groups).by_group.totals["total_effect"], sums.by_group.totals["total_effect"]
    )
    whole = EffectSums.of(effects, groups).columns()
    for name, values in sums.columns().items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-9, atol=1e-12, err_msg=name)
    for name, values in vars(effects).items():
        torch.testing.assert_close(getattr(some, name), values[chosen], atol=0, rtol=0)


def _tilted_exactly(problem: Ablations) -> dict[str, torch.Tensor]:
    """All three tilts written out in float64, row by row: y = l + q·(l − b) + d·A_i + Σ e·v."""
    b = torch.zeros(1).double() if problem.b_U is None else problem.b_U.double()
    names = ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen", "delta_loss_freq")
    exact = {name: torch.empty(problem.c.shape, dtype=torch.float64) for name in names}

    def loss_and_entropy(y: torch.Tensor, target: int) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = y.log_softmax(-1)
        return -log_p[..., target], -(log_p.exp() * log_p).sum(-1)

    for t, l in enumerate(problem.logits.double()):  # noqa: E741 - the letter of problem.py
        target = int(problem.targets[t])
        loss, entropy = loss_and_entropy(l, target)
        c, r = problem.c[t, :, None].double(), problem.r[t, :, None].double()
        frozen = l + c * problem.path.A.double()
        if problem.along is not None:
            v = problem.along.v.double()
            frozen = frozen + problem.along.e[t, :, None].double() * (v if v.ndim == 1 else v[t])
        total = l + (r - 1) * (l - b) + r * (frozen - l)
        for suffix, y in (("", total), ("_frozen", frozen)):
            loss_after, entropy_after = loss_and_entropy(y, target)
            exact[f"delta_loss{suffix}"][t] = loss_after - loss
            exact[f"delta_entropy{suffix}"][t] = entropy_after - entropy
        if problem.fixed_direction is not None:
            v = problem.fixed_direction.double()
            v = v if v.ndim == 1 else v[t]
            beside = total - ((total - l) @ v)[:, None] * v
            exact["delta_loss_freq"][t] = loss_and_entropy(beside, target)[0] - loss
    return exact


def _directions(seed: int, problem: Ablations, *, each: bool) -> torch.Tensor:
    """Of length 1 and mean 0: one for all tokens, or one a token."""
    shape = problem.logits.shape if each else problem.logits.shape[1:]
    v = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()
    v -= v.mean(dim=-1, keepdim=True)
    unit: torch.Tensor = v / v.norm(dim=-1, keepdim=True)
    return unit.float()


@pytest.mark.parametrize("strength", [1e-3, 0.2, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kernel", [*KERNELS, "survey"])
def test_a_fixed_direction_of_each_tokens_own_agrees_with_float64(strength: float, bias: bool, kernel: str) -> None:
    problem = small_problem(5, strength=strength, bias=bias)
    problem = replace(problem, fixed_direction=_directions(3, problem, each=True))
    found = (KERNELS | {"survey": survey.every_pair})[kernel](problem, _before(problem)).delta_loss_freq
    assert found is not None
    exact = _tilted_exactly(problem)["delta_loss_freq"]
    tolerance = survey.TOLERANCE if kernel == "survey" else 5e-6
    assert float((found - exact).abs().max()) < tolerance + 5e-6 * strength
    one = replace(problem, fixed_direction=_directions(3, problem, each=True)[0])
    other = kernels.every_pair(one, _before(one)).delta_loss_freq
    assert other is not None
    assert float((other[1:] - found[1:]).abs().max()) > 1e-2 * strength, "each token's own direction must matter"


def moved_problem(seed: int, *, strength: float, bias: bool, fixed: bool, each: bool, tokens: int = 18) -> Ablations:
    """As a norm after the MLP moves the logits: along a direction, sizes of both kinds over four decades."""
    problem = small_problem(seed, strength=1.0, bias=bias, tokens=tokens)
    g = torch.Generator().manual_seed(9)
    size = strength * 10 ** (4 * torch.rand(problem.c.shape, generator=g) - 4)
    along = Along(3 * _directions(7, problem, each=each), size * 3 * torch.randn(problem.c.shape, generator=g))
    direction = _directions(3, problem, each=each) if fixed else None
    c, r = size * problem.c, 1 + size * (problem.r - 1)
    return replace(problem, c=c, r=r, along=along, fixed_direction=direction)


@pytest.mark.parametrize("kernel", [*KERNELS, "survey"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_logits_moved_along_a_direction_agree_with_float64(
    strength: float, fixed: bool, bias: bool, each: bool, kernel: str
) -> None:  # fmt: skip
    """As a norm after the MLP moves them: frozen, total, and beside a fixed direction."""
    problem = moved_problem(5, strength=strength, bias=bias, fixed=fixed, each=each)
    before = _before(problem)
    found, exact = (KERNELS | {"survey": survey.every_pair})[kernel](problem, before), _tilted_exactly(problem)
    tolerance = survey.TOLERANCE if kernel == "survey" else 5e-6
    for name, values in exact.items():
        if name != "delta_loss_freq" or fixed:
            assert float((getattr(found, name) - values).abs().max()) < tolerance + 5e-6 * strength, name
    without = kernels.every_pair(replace(problem, along=None), before)
    assert float((without.delta_loss - found.delta_loss).abs().max()) > 1e-2 * strength
    _assert_ranks(problem, found)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("accuracy", [series.EXACT, COARSE], ids=["exact", "coarse"])
def test_a_certificate_is_a_bound_where_logits_are_moved_along_a_direction(
    accuracy: series.Accuracy, bias: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certified pairs alone; what each token's own direction and a fixed one leave out is in their bounds."""
    monkeypatch.setattr(series, "half_precision", lambda _: torch.bfloat16 if half else None)
    problem = moved_problem(6, strength=0.3, bias=bias, fixed=True, each=True)
    found, rows = problem.room(), engine.by_rows(problem, _before(problem))
    expansion = series.Series(problem, _before(problem).predictions, accuracy)
    certified = expansion.fill(found)
    for name in _tilted_exactly(problem):
        some = expansion.fixed_certified if name == "delta_loss_freq" else certified
        assert 0.3 < float(some.float().mean()) < 0.99, name
        assert float((getattr(found, name) - getattr(rows, name)).abs()[some].max()) < accuracy.tolerance + 2e-6, name


def test_what_series_take_of_the_predictions_serves_other_neurons() -> None:
    problem = moved_problem(6, strength=0.3, bias=True, fixed=True, each=True)
    found, again, before = problem.room(), problem.room(), _before(problem)
    series.Series(problem, before.predictions, remembered=before.remembered).fill(found)
    later = before.without_rows().with_rows(problem.logits)
    assert later.remembered
    series.Series(problem, later.predictions, remembered=later.remembered).fill(again)
    for name in _tilted_exactly(problem):
        assert torch.equal(getattr(found, name), getattr(again, name)), name


def test_the_total_tilt_recomputes_the_norm_of_the_frozen_one() -> None:
    problem = small_problem(5, strength=0.2)
    v, e = _directions(7, problem, each=True), torch.ones_like(problem.c)
    tilt = replace(problem, along=Along(v, e)).total
    torch.testing.assert_close(tilt.q, problem.r - 1)
    torch.testing.assert_close(tilt.d, problem.r * problem.c)
    torch.testing.assert_close(tilt.along[0].e, problem.r * e)


def test_what_a_kernel_does_not_compute_comes_from_the_plain_one() -> None:
    problem = small_problem(5, strength=0.2)

    def forgetful(problem: Ablations, before: Before) -> PairStatistics:
        return replace(engine.by_rows(problem, before), delta_entropy=torch.full_like(problem.c, torch.nan))

    kernel = engine.completed(engine.Kernel("forgetful", "for a test", forgetful), engine._FAST - {"delta_entropy"})
    found, plain = kernel.every_pair(problem, _before(problem)), kernels.every_pair(problem, _before(problem))
    assert torch.equal(found.delta_entropy, plain.delta_entropy)
    assert not torch.equal(found.delta_loss, plain.delta_loss)
    assert kernel.reason == "for a test; delta_entropy row by row"
