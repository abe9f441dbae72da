"""The CUDA kernel under Triton's interpreter, where it runs on any machine, against the plain kernel."""

import pytest
import torch

from backend.core.metrics import kernels
from backend.core.metrics.kernels import Before
from tests.core.test_kernels import small_problem

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

from backend.core.metrics import gpu

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
