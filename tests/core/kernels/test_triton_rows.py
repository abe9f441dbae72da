"""The CUDA kernel under Triton's interpreter, where it runs on any machine, against the plain kernel."""

from dataclasses import replace

import pytest
import torch

from backend.core.kernels import plain as kernels
from backend.core.kernels.problem import Before
from tests.core.kernels.test_kernels import small_problem
from tests.core.metrics.test_frequency import with_direction

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

from backend.core.kernels import triton_rows as gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("strength", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_kernel_agrees_with_the_plain_one(strength: float, bias: bool) -> None:
    """Sizes that no tile divides."""
    problem = small_problem(8, strength=strength, bias=bias, tokens=5, neurons=11, d_vocab=201, device=DEVICE)
    before = Before.of(problem.logits, problem.targets, problem.b_U)
    plain, found = kernels.every_pair(problem, before), gpu.every_pair(problem, before)
    for name in ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), atol=5e-6, rtol=2e-6)
    assert torch.equal(found.rank, plain.rank)
    assert torch.equal(found.changed, plain.changed)
    assert found.delta_loss_freq is None


@pytest.mark.parametrize("strength", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("bias", [False, True])
def test_the_loss_with_a_direction_held_agrees_too(strength: float, bias: bool) -> None:
    problem = small_problem(8, strength=strength, bias=bias, tokens=5, neurons=11, d_vocab=201, device=DEVICE)
    before = Before.of(problem.logits, problem.targets, problem.b_U)
    held = with_direction(problem)
    plain, without, found = (
        kernels.every_pair(held, before), gpu.every_pair(problem, before), gpu.every_pair(held, before)
    )  # fmt: skip
    assert found.delta_loss_freq is not None
    torch.testing.assert_close(found.delta_loss_freq, plain.delta_loss_freq, atol=5e-6, rtol=2e-6)
    assert strength == 0 or float((found.delta_loss_freq - found.delta_loss).abs().max()) > 1e-3
    for name, values in vars(without).items():
        assert values is None or torch.equal(getattr(found, name), values), name


@pytest.mark.parametrize("bias", [False, True])
def test_each_token_may_have_a_direction_of_its_own(bias: bool) -> None:
    problem = small_problem(8, strength=0.2, bias=bias, tokens=5, neurons=11, d_vocab=201, device=DEVICE)
    before = Before.of(problem.logits, problem.targets, problem.b_U)
    v = torch.randn(5, 201, generator=torch.Generator().manual_seed(2))
    v -= v.mean(dim=1, keepdim=True)
    problem = replace(problem, fixed_direction=(v / v.norm(dim=1, keepdim=True)).to(DEVICE))
    plain, found = kernels.every_pair(problem, before).delta_loss_freq, gpu.every_pair(problem, before).delta_loss_freq
    torch.testing.assert_close(found, plain, atol=5e-6, rtol=2e-6)
