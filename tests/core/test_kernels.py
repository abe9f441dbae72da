"""The series kernel gives the plain kernel's numbers, and knows when it cannot."""

import pytest
import torch

from backend.core.metrics import kernels, series
from backend.core.metrics.kernels import Before, Problem

D_VOCAB = 900


def _problem(seed: int, *, strength: float, tokens: int = 12, neurons: int = 300) -> Problem:
    """Logits with a peaked head and a long tail; effects of the size that `strength` says."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(tokens, D_VOCAB, generator=g)
    c = strength * torch.randn(tokens, neurons, generator=g)
    r = 1 + 0.02 * strength * torch.randn(tokens, neurons, generator=g)
    A = torch.randn(neurons, D_VOCAB, generator=g)
    return Problem(logits, torch.randint(0, D_VOCAB, (tokens,), generator=g), c, r.clamp_min(0.2), A, None)


def _exact(problem: Problem, t: int, i: int) -> tuple[float, float, float, float]:
    L, a = problem.logits[t].double(), problem.A[i].double()
    target = int(problem.targets[t])

    def told(y: torch.Tensor) -> tuple[float, float]:
        log_p = y.log_softmax(0)
        return -float(log_p[target]), -float((log_p.exp() * log_p).sum())

    loss, entropy = told(L)
    frozen = L + problem.c[t, i].double() * a
    total = told(frozen * problem.r[t, i].double())
    held = told(frozen)
    return total[0] - loss, held[0] - loss, total[1] - entropy, held[1] - entropy


@pytest.mark.parametrize("strength", [0.0, 1e-3, 0.02, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("half", [True, False])
def test_the_series_agrees_with_float64(strength: float, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "half_precision", lambda _: torch.bfloat16 if half else None)
    problem = _problem(1, strength=strength)
    found = series.every_pair(problem, Before.of(problem))
    worst = 0.0
    for t in range(12):
        for i in range(0, 300, 17):
            deltas = (found.delta_loss, found.delta_loss_frozen, found.delta_entropy, found.delta_entropy_frozen)
            worst = max(worst, *(abs(float(d[t, i]) - e) for d, e in zip(deltas, _exact(problem, t, i), strict=True)))
    assert worst < 8e-6, "the certificate's tolerance and float32 rounding"


@pytest.mark.parametrize("strength", [1e-3, 0.05, 0.5, 3.0])
def test_ranks_and_argmax_changes_are_those_of_the_plain_kernel(strength: float) -> None:
    problem = _problem(2, strength=strength)
    before = Before.of(problem)
    plain, fast = kernels.every_pair(problem, before), series.every_pair(problem, before)
    assert torch.equal(plain.rank, fast.rank)
    assert torch.equal(plain.changed, fast.changed)
    if strength >= 0.5:
        assert bool(plain.changed.any())
        assert bool((plain.rank != before.rank[:, None]).any())


def test_strong_ablations_are_not_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    recomputed: list[int] = []
    plain = kernels.chosen_pairs

    def counting(problem: Problem, before: Before, t: int, neurons: torch.Tensor, out: kernels.PairStatistics) -> None:
        recomputed.append(len(neurons))
        plain(problem, before, t, neurons, out)

    monkeypatch.setattr(series, "chosen_pairs", counting)
    weak, strong = _problem(3, strength=1e-3), _problem(3, strength=5.0)
    series.every_pair(weak, Before.of(weak))
    assert sum(recomputed) == 0
    series.every_pair(strong, Before.of(strong))
    assert sum(recomputed) > 0.9 * strong.c.numel()


def test_a_wide_window_falls_back_to_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "_MOST_WINDOW", 5)
    problem = _problem(4, strength=0.3)
    before = Before.of(problem)
    plain, fast = kernels.every_pair(problem, before), series.every_pair(problem, before)
    assert torch.equal(plain.rank, fast.rank)
    assert torch.equal(plain.changed, fast.changed)


def test_the_series_refuses_a_bias() -> None:
    problem = _problem(5, strength=0.1)
    biased = Problem(problem.logits, problem.targets, problem.c, problem.r, problem.A, torch.ones(D_VOCAB))
    with pytest.raises(ValueError, match="b_U = 0"):
        series.every_pair(biased, Before.of(biased))
