"""The fast kernel for b_U = 0: effects of all neurons from moments of A under the model's own prediction.

Let p be the prediction at a token, l = log p, a = A_i, and X_v = q·l_v + d·a_v. Both ablations are p tilted by e^X:
the frozen norm with (q, d) = (0, c), the recomputed norm with (q, d) = (r − 1, r·c). With

    F = Σ p·e^X,   F_l = Σ p·l·e^X,   F_a = Σ p·a·e^X

the loss changes by log F − X_correct and the entropy by log F − ((1 + q)·F_l + d·F_a)/F + Σ p·l. Ablations are
small tilts, so F and its derivatives are short series in q and d, whose coefficients are the moments

    J_jk[t, i] = Σ_v p_v·l_v^j·A_iv^k      (j + k ≤ 5)

and those, for all tokens and neurons at once, are matrix products (P∘l^j)·(A^k)ᵀ. High orders carry small factors, so
half precision suffices for them where the machine multiplies it faster.

Nothing is taken on trust: Taylor's theorem bounds what the series leaves out by moments that are there anyway, and a
pair whose bound exceeds `TOLERANCE` is recomputed row by row (`kernels.chosen_pairs`). Ranks and the argmax are exact:
only tokens whose logit lies within the neuron's reach of the correct (or top) token can change sides, and just those
are compared.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from backend.core.metrics.kernels import Before, PairStatistics, Problem, chosen_pairs, ranks_after

TOLERANCE = 3e-6
"""Largest truncation and rounding of the series that is let pass, in nats."""
_ORDER = 5
_FULL_PRECISION = frozenset({(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1), (1, 3), (2, 2)})
"""Moments whose factors are too large for half precision."""
_HALF_ERROR = 3 * 2.0**-9
"""Relative error of a half-precision product against the sum of its terms' sizes: both factors and the result are
rounded to 9 bits; sums are kept in float32."""
_NEURONS_AT_ONCE = 256
_MOST_WINDOW = 2_048
_WINDOW_QUANTILE = 0.97

Moments = dict[tuple[int, int], Tensor]


def every_pair(problem: Problem, before: Before) -> PairStatistics:
    """All pairs, within TOLERANCE and float32 rounding of the plain kernel; ranks and argmax changes exactly.

    Raises:
        ValueError: the unembedding has a bias, for which the tilt has another form.
    """
    if problem.b_U is not None:
        raise ValueError("The series kernel is for b_U = 0.")
    tokens, n_neurons = problem.c.shape
    out = PairStatistics.empty(tokens, n_neurons, problem.c.device)
    predictions = _Predictions.of(problem)
    certified = torch.empty(tokens, n_neurons, dtype=torch.bool, device=problem.c.device)
    for start in range(0, n_neurons, _NEURONS_AT_ONCE):
        part = slice(start, min(start + _NEURONS_AT_ONCE, n_neurons))
        certified[:, part] = _fill_by_series(problem, predictions, part, out)
    reach = _Reach.of(problem)
    for t in range(tokens):
        uncertain = ~certified[t]
        chosen_pairs(problem, before, t, uncertain.nonzero().squeeze(1), out)
        _fill_ranks(problem, before, reach, t, certified[t], out)
    return out


@dataclass(frozen=True)
class _Predictions:
    """What the moments need of the tokens."""

    log_p: Tensor
    weighted: list[Tensor]
    """p·l^j for j = 0 … 4, each [tokens, d_vocab]."""
    half: list[Tensor]
    alone: list[Tensor]
    """J_j0 = Σ p·l^j for j = 0 … 5, each [tokens, 1]."""
    deepest: Tensor
    """max |l|, [tokens, 1]"""

    @classmethod
    def of(cls, problem: Problem) -> "_Predictions":
        log_p = problem.logits.log_softmax(dim=1)
        p = log_p.exp()
        weighted = [p / p.sum(dim=1, keepdim=True)]  # rounding of log p is common to a row: 10⁻⁵ of its sum
        for _ in range(_ORDER - 1):
            weighted.append(weighted[-1] * log_p)
        alone = [w.sum(dim=1, keepdim=True) for w in weighted]
        alone.append(torch.linalg.vecdot(weighted[-1], log_p)[:, None])
        kind = half_precision(problem.A.device.type)
        half = weighted if kind is None else [w.to(kind) for w in weighted]
        return cls(log_p, weighted, half, alone, log_p.amin(dim=1, keepdim=True).abs())


@cache
def half_precision(device: str) -> torch.dtype | None:
    """The narrow type that this device multiplies faster than float32, or None."""
    if device != "cpu":  # CUDA may reduce bfloat16 products in bfloat16, which the bound does not allow for
        return None
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if has_bf16 is not None and has_bf16() else None


def _moments(problem: Problem, predictions: _Predictions, part: slice) -> Moments:
    """J_jk for 1 ≤ k, j + k ≤ 5, each [tokens, neurons]."""
    kind = half_precision(problem.A.device.type)
    A = problem.A[part]
    power, moments = A, {}
    for k in range(1, _ORDER + 1):
        narrow = power if kind is None else power.to(kind)
        for j in range(_ORDER + 1 - k):
            exact = (j, k) in _FULL_PRECISION
            left, right = (predictions.weighted, power) if exact else (predictions.half, narrow)
            moments[j, k] = (left[j] @ right.T).float()
        power = power * A
    return moments


def _fill_by_series(problem: Problem, predictions: _Predictions, part: slice, out: PairStatistics) -> Tensor:
    """Losses and entropies of a slab of neurons; returns which pairs are certified, [tokens, neurons]."""
    J = _moments(problem, predictions, part)
    for j, alone in enumerate(predictions.alone):
        J[j, 0] = alone
    c, r = problem.c[:, part], problem.r[:, part]
    A = problem.A[part]
    size = A.abs().amax(dim=1)
    l_correct = predictions.log_p.gather(1, problem.targets[:, None])
    a_correct = A[:, problem.targets].T
    tilts = ((None, c, "_frozen"), (r - 1, r * c, ""))
    certified = torch.ones_like(c, dtype=torch.bool)
    for q, d, suffix in tilts:
        tilt = _tilt(J, q, d)
        shift = d * a_correct if q is None else q * l_correct + d * a_correct
        getattr(out, f"delta_loss{suffix}")[:, part] = tilt.log_partition - shift
        getattr(out, f"delta_entropy{suffix}")[:, part] = tilt.delta_entropy
        certified &= _error_bound(J, q, d, size, predictions.deepest) <= TOLERANCE
    return certified


@dataclass(frozen=True)
class _Tilt:
    log_partition: Tensor
    delta_entropy: Tensor


def _tilt(J: Moments, q: Tensor | None, d: Tensor) -> _Tilt:
    """log F and the entropy's change, from differences to the untilted values so that small changes keep digits."""
    f = _series(J, q, d, 0, 0) - J[0, 0]  # F − 1
    g = _series(J, q, d, 1, 0) - J[1, 0]  # F_l − Σ p·l
    F_a = _series(J, q, d, 0, 1)
    log_partition = f.log1p()
    tilted = g + d * F_a - J[1, 0] * f
    if q is not None:
        tilted = tilted + q * (J[1, 0] + g)
    return _Tilt(log_partition, log_partition - tilted / (1 + f))


def _series(J: Moments, q: Tensor | None, d: Tensor, j0: int, k0: int) -> Tensor:
    """Σ q^j d^k/(j! k!)·J_{j+j0, k+k0} over the orders that are there: F, F_l (1, 0) or F_a (0, 1)."""
    limit = _ORDER - j0 - k0
    total = torch.zeros_like(d)
    for j in range(0 if q is None else limit, -1, -1):  # Horner in q over Horner in d
        row = torch.zeros_like(d)
        for k in range(limit - j, -1, -1):
            row = row * (d / (k + 1)) + J[j + j0, k + k0]
        total = row if q is None else total * (q / (j + 1)) + row
    return total


def _error_bound(J: Moments, q: Tensor | None, d: Tensor, size: Tensor, deepest: Tensor) -> Tensor:
    """A bound on the error of both delta_loss and delta_entropy, in nats, [tokens, neurons].

    With Y = |q·l| + |d·a| ≥ |X| and Y_max its largest value, Y² ≤ 2(q²l² + d²a²) and Y⁴ ≤ 8(q⁴l⁴ + d⁴a⁴) give E[Y²],
    E[Y⁴] and E[|l|Y⁴] from moments (l < 0 makes Σ p|l|a⁴ = −J_14), and E|l³a| ≤ √(E[l⁴]·E[l²a²]).
    """
    d2 = d.square()
    d4 = 1.1 * d2.square()  # half-precision moments may fall short of the truth, by far less than a tenth
    second = 2 * d2 * J[0, 2]
    fourth, fourth_l = 8 * d4 * J[0, 4], -8 * d4 * J[1, 4]
    furthest, third_l = d.abs() * size, torch.zeros_like(d)
    if q is not None:
        q2 = q.square()
        second = second + 2 * q2 * J[2, 0]
        fourth, fourth_l = fourth + 8 * q2.square() * J[4, 0], fourth_l - 8 * q2.square() * J[5, 0]
        furthest = furthest + q.abs() * deepest
        third_l = q2 * d.abs() / 2 * (J[4, 0] * 1.1 * J[2, 2]).sqrt()
    fifth, fifth_l = furthest * fourth, furthest * fourth_l
    growth = furthest.exp()
    # Taylor's remainder, and the rounding of the orders that are computed in half precision, of F, F_l and d·F_a.
    error = growth * furthest * fifth / 720 + _HALF_ERROR * (fourth / 24 + fifth / 120)
    error_l = growth * fifth_l / 120 + _HALF_ERROR * (third_l + fourth_l / 24)
    error_a = growth * furthest * fifth / 120 + _HALF_ERROR * (fourth / 6 + fifth / 24)
    entropy = -J[1, 0]
    # F = E[e^X] ≥ e^{E[X]} ≥ e^{−√E[X²]} by Jensen; an error of F reaches the entropy times 1 + entropy.
    return (error * (1 + entropy) + 1.1 * error_l + error_a) * second.sqrt().exp()


@dataclass(frozen=True)
class _Reach:
    """The largest and smallest entry of every neuron's A, each [n_neurons]."""

    highest: Tensor
    lowest: Tensor
    columns: Tensor
    """Aᵀ, [d_vocab, n_neurons], so that a token's column is contiguous."""

    @classmethod
    def of(cls, problem: Problem) -> "_Reach":
        return cls(problem.A.amax(dim=1), problem.A.amin(dim=1), problem.A.T.contiguous())

    def above(self, c: Tensor, token: int) -> Tensor:
        """How far any token's logit can rise against `token`'s, [n_neurons]; at least 0."""
        own = self.columns[token]
        return torch.maximum(c * (self.highest - own), c * (self.lowest - own))

    def below(self, c: Tensor, token: int) -> Tensor:
        """How far any token's logit can fall against `token`'s."""
        return self.above(-c, token)


def _fill_ranks(
    problem: Problem, before: Before, reach: _Reach, t: int, certified: Tensor, out: PairStatistics
) -> None:
    """Exact rank and argmax change of the certified neurons at token t."""
    c, logits = problem.c[t], problem.logits[t]
    target, top = int(problem.targets[t]), int(before.top[t])
    farthest = torch.maximum(reach.above(c, target), reach.below(c, target))
    window, width = _window(logits, target, farthest)
    moved = logits[window, None] + c * reach.columns[window]
    correct = logits[target] + c * reach.columns[target]
    outside = int(before.rank[t]) - 1 - int((logits[window] > logits[target]).sum())
    rank = outside + 1 + (moved > correct).sum(dim=0)
    rises = reach.above(c, top)
    challengers = (logits >= logits[top] - rises.max()).nonzero().squeeze(1)
    far = farthest > width
    if len(challengers) > _MOST_WINDOW:
        challengers = logits.topk(_MOST_WINDOW).indices
        far |= rises > logits[top] - logits[challengers[-1]]
    best = logits[challengers, None] + c * reach.columns[challengers]
    out.rank[t] = torch.where(certified, rank, out.rank[t])
    out.changed[t] = torch.where(certified, best.amax(dim=0) > logits[top] + c * reach.columns[top], out.changed[t])
    ranks_after(problem, before, t, (far & certified).nonzero().squeeze(1), out)


def _window(logits: Tensor, target: int, farthest: Tensor) -> tuple[Tensor, float]:
    """Tokens whose logit is within `width` of the target's, and that width: enough for nearly all neurons."""
    distance = (logits - logits[target]).abs()
    width = float(farthest.quantile(_WINDOW_QUANTILE))
    window = (distance <= width).nonzero().squeeze(1)
    if len(window) > _MOST_WINDOW:
        nearest = distance.topk(_MOST_WINDOW, largest=False)
        return nearest.indices, float(nearest.values[-1]) * (1 - 1e-6)
    return window, width
