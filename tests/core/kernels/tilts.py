"""Problems of every kind of tilt at random, and their effects in float64, row by row, from the definition alone."""

from dataclasses import replace

import torch
from torch import Tensor

from backend.core.kernels.problem import Ablations, Along, Before
from tests.core.kernels.test_kernels import small_problem

LOSSES_AND_ENTROPIES = ("delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen")


def direction(seed: int, shape: tuple[int, ...], *, unit: bool = True) -> Tensor:
    """Of mean 0, as heavy in a few tokens as token frequencies are; of length 1 unless asked otherwise."""
    v = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()
    v -= v.mean(dim=-1, keepdim=True)
    return (v / v.norm(dim=-1, keepdim=True) if unit else v).float()


def tilted_problem(
    seed: int,
    *,
    strength: float,
    bias: bool,
    along: str | None = None,
    fixed: str | None = None,
    softcap: float | None = None,
    sizes: tuple[int, int, int] = (3, 9, 140),
    device: str = "cpu",
) -> Ablations:
    """sizes: tokens, neurons, vocabulary. along, fixed: `one` direction for all tokens, `each` a direction a token."""
    tokens, neurons, d_vocab = sizes
    problem = small_problem(
        seed, strength=strength, bias=bias, tokens=tokens, neurons=neurons, d_vocab=d_vocab, device=device
    )
    shapes: dict[str | None, tuple[int, ...]] = {"one": (d_vocab,), "each": (tokens, d_vocab)}
    problem = replace(problem, softcap=softcap)
    if along is not None:
        e = strength * torch.randn(tokens, neurons, generator=torch.Generator().manual_seed(seed + 1))
        problem = replace(problem, along=Along(direction(seed + 2, shapes[along], unit=False).to(device), e.to(device)))
    if softcap is not None:
        p_freq = torch.rand(d_vocab, generator=torch.Generator().manual_seed(seed + 4)) ** 4
        problem = replace(problem, p_freq=(p_freq / p_freq.sum()).to(device))
    if fixed is not None:
        problem = replace(problem, fixed_direction=direction(seed + 3, shapes[fixed]).to(device))
    return problem


def capped(problem: Ablations, y: Tensor) -> Tensor:
    """The final logits of y."""
    return y if problem.softcap is None else problem.softcap * (y / problem.softcap).tanh()


def before_of(problem: Ablations) -> Before:
    """The predictions without ablation."""
    return Before.of(capped(problem, problem.logits), problem.targets, problem.b_U)


def exactly(problem: Ablations) -> dict[str, Tensor]:
    """All effects of a problem in float64, each [tokens, neurons]; ranks and changed predictions as well."""
    b = 0.0 if problem.b_U is None else problem.b_U.double()
    found: dict[str, list[Tensor]] = {}
    for t, l in enumerate(problem.logits.double()):  # noqa: E741 - the letter of problem.py
        target = int(problem.targets[t])
        before = capped(problem, l)
        loss, entropy = _loss_and_entropy(before, target)
        c, r = problem.c[t, :, None].double(), problem.r[t, :, None].double()
        frozen = l + c * problem.path.A.double()
        if problem.along is not None:
            v = problem.along.v.double()
            frozen = frozen + problem.along.e[t, :, None].double() * (v if v.ndim == 1 else v[t])
        total = r * (frozen - b) + b
        for suffix, y in (("", total), ("_frozen", frozen)):
            loss_after, entropy_after = _loss_and_entropy(capped(problem, y), target)
            found.setdefault(f"delta_loss{suffix}", []).append(loss_after - loss)
            found.setdefault(f"delta_entropy{suffix}", []).append(entropy_after - entropy)
        found.setdefault("rank", []).append((total > total[:, target, None]).sum(dim=1) + 1)
        found.setdefault("changed", []).append(total.argmax(dim=1) != l.argmax())
        if problem.p_freq is not None:
            grown = capped(problem, total).log_softmax(-1) - before.log_softmax(-1)
            found.setdefault("delta_kl", []).append(-grown @ problem.p_freq.double())
        if problem.fixed_direction is not None:
            v = problem.fixed_direction.double()
            v, after = v if v.ndim == 1 else v[t], capped(problem, total)
            beside = after - ((after - before) @ v)[:, None] * v
            found.setdefault("delta_loss_freq", []).append(_loss_and_entropy(beside, target)[0] - loss)
    return {name: torch.stack(rows) for name, rows in found.items()}


def _loss_and_entropy(y: Tensor, target: int) -> tuple[Tensor, Tensor]:
    log_p = y.log_softmax(-1)
    return -log_p[..., target], -(log_p.exp() * log_p).sum(-1)
