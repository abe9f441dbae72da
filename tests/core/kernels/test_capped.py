"""Whole rows under a soft-cap agree with the plain kernel, and with float64."""

from dataclasses import replace

import pytest
import torch

from backend.core.kernels import choose, plain, rows_capped, survey
from backend.core.kernels.problem import Ablations, Along, Before
from tests.core.kernels.test_kernels import _directions, small_problem

CAP = 8.0
"""Of logits that reach ± 12: it bends many of them, and the highest most."""


def capped_problem(strength: float, *, bias: bool, fixed: bool, moved: bool) -> Ablations:
    """Sizes over four decades."""
    problem = small_problem(3, strength=1.0, bias=bias)
    g = torch.Generator().manual_seed(9)
    size = strength * 10 ** (4 * torch.rand(problem.c.shape, generator=g) - 4)
    problem = replace(problem, c=size * problem.c, r=1 + size * (problem.r - 1), softcap=CAP)
    if moved:
        problem = replace(problem, along=Along(3 * _directions(7, problem, each=True), 3 * size))
    if fixed:
        p_freq = torch.rand(problem.logits.shape[1], generator=g)
        problem = replace(
            problem, fixed_direction=_directions(3, problem, each=False), p_freq=p_freq / p_freq.sum()
        )  # fmt: skip
    return problem


def _before(problem: Ablations) -> Before:
    return Before.of(problem.logits, problem.targets, problem.b_U, problem.softcap)


def _exactly(problem: Ablations) -> dict[str, torch.Tensor]:
    """Written out in float64: the cap comes last, and the direction is one of the capped logits."""
    b = torch.zeros(1).double() if problem.b_U is None else problem.b_U.double()
    targets = problem.targets[:, None, None]

    def measured(y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_p = y.log_softmax(-1)
        return -log_p.gather(-1, targets.expand(*y.shape[:2], 1))[..., 0], -(log_p.exp() * log_p).sum(-1)

    l = problem.logits.double()[:, None]  # noqa: E741 - the letter of problem.py
    frozen = l + problem.c.double()[..., None] * problem.path.A.double()
    if problem.along is not None:
        frozen = frozen + problem.along.e.double()[..., None] * problem.along.v.double()[:, None]
    total = b + problem.r.double()[..., None] * (frozen - b)
    before, after = CAP * (l / CAP).tanh(), CAP * (total / CAP).tanh()
    loss, entropy = measured(before)
    found: dict[str, torch.Tensor] = {}
    for suffix, y in (("", after), ("_frozen", CAP * (frozen / CAP).tanh())):
        changed = measured(y)
        found |= {f"delta_loss{suffix}": changed[0] - loss, f"delta_entropy{suffix}": changed[1] - entropy}
    if problem.fixed_direction is not None and problem.p_freq is not None:
        v = problem.fixed_direction.double()
        found["delta_loss_freq"] = measured(after - ((after - before) @ v)[..., None] * v)[0] - loss
        found["delta_kl"] = (before.log_softmax(-1) - after.log_softmax(-1)) @ problem.p_freq.double()
    return found


@pytest.mark.parametrize("strength", [0.1, 10.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_a_soft_cap_agrees_with_float64(strength: float, bias: bool, fixed: bool, moved: bool) -> None:
    problem = capped_problem(strength, bias=bias, fixed=fixed, moved=moved)
    before = _before(problem)
    kernel = choose.choose_kernel(torch.device("cpu"), softcap=CAP)
    found, exact, slow = kernel.every_pair(problem, before), _exactly(problem), plain.every_pair(problem, before)
    for name, values in exact.items():
        assert float((getattr(found, name) - values).abs().max()) < 5e-6 + 5e-6 * strength, name
        assert float(values.abs().max()) > 1e-3 * strength, f"{name} must change, or agreement says nothing"
    assert float((found.rank != slow.rank).float().mean()) < 1e-3, "but for ties within rounding"
    assert float((found.changed != slow.changed).float().mean()) < 1e-3
    uncapped = plain.every_pair(
        replace(problem, softcap=None, p_freq=None), Before.of(problem.logits, problem.targets, problem.b_U)
    )
    assert float((uncapped.delta_loss - found.delta_loss).abs().max()) > 1e-3 * strength, "the cap must matter"


def test_most_pairs_are_summed_by_the_compiled_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = capped_problem(0.1, bias=True, fixed=True, moved=True)
    left = []
    monkeypatch.setattr(rows_capped, "chosen_pairs", lambda *arguments: left.append(len(arguments[3])))
    rows_capped.every_pair(problem, _before(problem))
    assert sum(left) < 0.05 * problem.c.numel()
    strong = capped_problem(10.0, bias=True, fixed=True, moved=True)
    left.clear()
    rows_capped.every_pair(strong, _before(strong))
    assert sum(left) > 0, "what takes the logits far is left to the plain kernel"


def test_the_choice_says_that_a_soft_cap_has_no_series() -> None:
    exact, surveyed = (choose.choose_kernel(torch.device("cpu"), mode, softcap=CAP) for mode in ("exact", "survey"))
    for kernel in (exact, surveyed):
        assert kernel.every_pair is rows_capped.every_pair
        assert "soft-cap" in kernel.reason
        assert "series" in kernel.reason


def test_a_kernel_without_a_soft_cap_refuses_one() -> None:
    problem = capped_problem(0.1, bias=False, fixed=False, moved=False)
    for kernel in (choose.by_series, choose.by_rows, survey.every_pair):
        with pytest.raises(NotImplementedError, match="no soft-cap"):
            kernel(problem, _before(problem))
