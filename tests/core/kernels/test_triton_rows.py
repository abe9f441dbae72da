"""The CUDA kernel under Triton's interpreter, where it runs on any machine: against float64 and the plain kernel."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from backend.core.kernels import plain as kernels
from backend.core.kernels.problem import Ablations
from backend.core.metrics.effects import PairStatistics
from tests.core.kernels.tilts import LOSSES_AND_ENTROPIES, before_of, exactly, tilted_problem

pytest.importorskip("triton", reason="Triton has no wheel for this platform")

import triton

from backend.core.kernels import triton_rows as gpu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAYS = (None, "one", "each")
pytestmark = [pytest.mark.cuda] if torch.cuda.is_available() else []
"""On a card they are among the tests that need one: there the kernel is compiled."""


def _found(problem: Ablations) -> PairStatistics:
    return gpu.every_pair(problem, before_of(problem))


def _worst(problem: Ablations, found: PairStatistics) -> float:
    """The largest difference of a loss or an entropy from float64, in nats; NaN where one is not finite."""
    exact = exactly(problem)
    names = [*LOSSES_AND_ENTROPIES, *(name for name in ("delta_loss_freq", "delta_kl") if name in exact)]
    return float(torch.stack([(getattr(found, name) - exact[name]).abs().max() for name in names]).max())


@pytest.mark.parametrize(("along", "fixed", "softcap"), product(WAYS, WAYS, (None, 9.0)))
@pytest.mark.parametrize("bias", [False, True])
def test_every_tilt_agrees_with_float64(
    bias: bool, along: str | None, fixed: str | None, softcap: float | None
) -> None:
    """Sizes that no block divides; logits reach 9, so that the soft-cap bends them."""
    problem = tilted_problem(
        8, strength=0.6, bias=bias, along=along, fixed=fixed, softcap=softcap, device=DEVICE
    )  # fmt: skip
    found, exact = _found(problem), exactly(problem)
    assert _worst(problem, found) < 3e-6
    assert torch.equal(found.rank, exact["rank"])
    assert torch.equal(found.changed, exact["changed"])
    assert (found.delta_loss_freq is None) == (fixed is None)
    assert found.changed.any(), "the ablations must be large enough to change predictions"


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("strength", [0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("softcap", [None, 9.0])
def test_ablations_of_every_size_keep_their_digits(strength: float, softcap: float | None) -> None:
    problem = tilted_problem(
        3, strength=strength, bias=True, along="each", fixed="one", softcap=softcap, sizes=(3, 9, 700), device=DEVICE
    )
    found, largest = _found(problem), float(exactly(problem)["delta_loss"].abs().max())
    assert _worst(problem, found) < 2e-7 + 1e-7 * largest + (5e-6 if largest > 1 else 0)
    if strength == 0:
        assert torch.equal(found.rank, before_of(problem).rank[:, None].expand_as(found.rank))
        assert not found.changed.any()


@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value")
@pytest.mark.parametrize(
    ("along", "fixed", "softcap"), [(None, "one", None), ("each", "each", None), ("one", "one", 9.0)]
)
def test_changes_that_no_exponential_can_hold_are_finite(
    along: str | None, fixed: str | None, softcap: float | None
) -> None:  # fmt: skip
    """Logits are moved by hundreds of nats."""
    problem = tilted_problem(
        5, strength=100.0, bias=True, along=along, fixed=fixed, softcap=softcap, sizes=(3, 9, 300), device=DEVICE
    )
    problem = replace(problem, r=problem.r.clamp(0.3, 2.5))
    largest = float(exactly(problem)["delta_loss"].max())
    assert largest > (150 if softcap is None else 10)
    assert _worst(problem, _found(problem)) < 3e-6 * largest


@pytest.mark.parametrize("strength", [0.02, 1.0])
def test_a_direction_changes_no_other_number(strength: float) -> None:
    held = tilted_problem(8, strength=strength, bias=True, fixed="one", device=DEVICE)
    found, without = _found(held), _found(replace(held, fixed_direction=None))
    assert found.delta_loss_freq is not None
    assert float((found.delta_loss_freq - found.delta_loss).abs().max()) > 1e-3
    for name, values in vars(without).items():
        assert values is None or torch.equal(getattr(found, name), values), name


@pytest.mark.parametrize("bias", [False, True])
def test_the_kernel_agrees_with_the_plain_one(bias: bool) -> None:
    problem = tilted_problem(2, strength=0.5, bias=bias, along="each", fixed="one", device=DEVICE)
    plain, found = kernels.every_pair(problem, before_of(problem)), _found(problem)
    for name, values in vars(plain).items():
        torch.testing.assert_close(getattr(found, name), values, atol=5e-6, rtol=2e-6)


@pytest.mark.parametrize("softcap", [None, 9.0])
def test_sizes_of_blocks_change_no_bit(softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tuning them does not, and a run that goes on elsewhere ends as one that did not."""
    problem = tilted_problem(4, strength=0.3, bias=True, along="one", fixed="one", softcap=softcap, device=DEVICE)
    found = {}
    for tokens, neurons in ((4, 8), (8, 4), (2, 16)):
        blocks = [triton.Config({"T": tokens, "N": neurons, "STAGES": 1}, num_warps=4)]
        monkeypatch.setattr(gpu, "_tuned", triton.autotune(blocks, ["d_vocab"])(gpu._rows))
        found[tokens, neurons] = _found(problem)
    for name, values in vars(found[4, 8]).items():
        for other in found.values():
            assert values is None or torch.equal(getattr(other, name), values), name


def test_equal_logits_stay_equal() -> None:
    """Padding of the vocabulary: tokens that an ablation moves alike never pass the correct one."""
    problem = tilted_problem(4, strength=0.3, bias=True, device=DEVICE)
    assert problem.b_U is not None
    alike = slice(100, 140)
    for rows in (problem.logits, problem.path.A):
        rows[:, alike] = rows[:, 100, None]
    problem.b_U[alike] = problem.b_U[100]
    problem.targets.fill_(120)
    assert torch.equal(_found(problem).rank, exactly(problem)["rank"])
