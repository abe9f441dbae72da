"""The fast kernel: effects of all neurons from moments of A under the model's own prediction, each with a certificate.

Let p be the prediction at a token, l = log p, u = l − b_U, a = A_i. Both ablations are p tilted by e^X, where

    X = q·ũ + d·ã,    ũ = u − Σ p·u,   ã = a − Σ p·a,   l̃ = l − Σ p·l

with (q, d) = (0, c) for the frozen norm and (r − 1, r·c) for the recomputed one. With F = Σ p·e^X the loss changes by
log F − X_correct and the entropy by log F − Σ p·(l̃ + X)·e^X / F. Nearly all ablations are small tilts, so both sums are
expanded to a low order N in X, whose coefficients are moments

    E[w·ũʲ·ãᵏ],    w = 1 or l̃,   j + k ≤ N

and those, for all tokens and neurons at once, are matrix products (P∘w∘ũʲ)·(Aᵏ)ᵀ; for k = 1 they pass through d_model.

Nothing is taken on trust. Past order n, e^X has at most |X|^{n+1}/(n+1)!·κ_n with κ_n = (n + 1 + e^{max|X|})/(n + 2):
the remainder is |X|^{n+1}/n!·∫(1 − s)ⁿ·e^{sX} ds over 0 to 1, and e^{sX} lies below its chord, 1 − s + s·e^X. So one
more product, Σ p·(N + 3 + |l̃|)·|a|^{N+1}, bounds the error of each pair, rounding to half precision included where it
is used. Pairs whose bound exceeds the tolerance are left to a kernel that sums whole rows.

Beside a fixed direction X gains e·ṽ, for the loss alone. Its bound is the one above with |e|·(Σ ω·|ṽ|^{N+1})^{1/(N+1)}
and |e|·max |ṽ| added by Minkowski's inequality; as only F is wanted and ω ≥ (N + 3)·p, a share 1/(N + 3) of Y^{N+1}
bounds Σ p·|X|^{N+1}.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import comb, factorial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from backend.core.kernels import rows
from backend.core.kernels import series_compiled as native_series
from backend.core.kernels.problem import Ablations, FixedDirection
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions

_NEURONS_AT_ONCE = 256
_HALF_ERROR = 3 * 2.0**-9
"""Relative error of a half-precision product against the sum of its terms' sizes: both factors and the result are
rounded to 9 bits; sums are kept in float32."""

_LOOPS: Any = native_series

Weight = tuple[int, int]
"""(0, j) for p·ũʲ, (1, j) for p·l̃·ũʲ."""


@cache
def half_precision(device: str) -> torch.dtype | None:
    """The narrow type that this device multiplies faster than float32, or None."""
    if device != "cpu":  # CUDA may reduce bfloat16 products in bfloat16, which the bound does not allow for
        return None
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if has_bf16 is not None and has_bf16() else None


@dataclass(frozen=True)
class Accuracy:
    """How far the expansion goes and what it may certify."""

    order: int
    """N"""
    half_from: int
    """Terms of this order in X and above may be multiplied in half precision."""
    tolerance: float
    """Largest error of a certified loss or entropy, in nats."""


EXACT = Accuracy(order=3, half_from=3, tolerance=3e-6)


class _Weights:
    """The rows over the vocabulary, [tokens, d_vocab] each, that powers of A are multiplied with, and their sums."""

    def __init__(self, problem: Ablations, predictions: Predictions, order: int) -> None:
        log_p = predictions.centred_l()
        self._unbiased = problem.b_U is None
        u = log_p if problem.b_U is None else predictions.centred_u(problem.b_U)
        self._rows: dict[Weight, Tensor] = {(0, 0): predictions.p}
        for j in range(1, order + (2 if self._unbiased else 1)):
            self._rows[0, j] = self._rows[0, j - 1] * u
        if not self._unbiased:
            self._rows |= {(1, j): self._rows[0, j] * log_p for j in range(order + 1)}
        self._sums = {weight: row.sum(dim=1, keepdim=True) for weight, row in self._rows.items()}
        self._narrow: dict[Weight, Tensor] = {}
        self.omega = torch.addcmul((order + 3) * predictions.p, predictions.p, log_p.abs())
        self.total = self.omega.sum(dim=1, keepdim=True)
        u = u.abs()
        self.farthest = u.amax(dim=1, keepdim=True)
        self.spread = torch.linalg.vecdot(self.omega, u.pow_(order + 1))[:, None].pow(1 / (order + 1))

    def key(self, weight: Weight) -> Weight:
        """Without a bias ũ = l̃, so that p·l̃·ũʲ is p·ũʲ⁺¹."""
        return (0, weight[1] + 1) if self._unbiased and weight[0] else weight

    def sum(self, weight: Weight) -> Tensor:
        """[tokens, 1]"""
        return self._sums[self.key(weight)]

    def rows(self, weight: Weight, kind: torch.dtype) -> Tensor:
        """[tokens, d_vocab]"""
        weight = self.key(weight)
        if kind == torch.float32:
            return self._rows[weight]
        if weight not in self._narrow:
            self._narrow[weight] = self._rows[weight].to(kind)
        return self._narrow[weight]


@dataclass(frozen=True)
class _Moments:
    """What one slab of neurons has at every token, each [tokens, neurons]."""

    central: dict[tuple[Weight, int], Tensor]
    """E[w·ũʲ·ãᵏ] by ((w, j), k); k = 0 is [tokens, 1]."""
    mean: Tensor
    """Σ p·a"""
    spread: Tensor
    """An upper bound of (Σ ω·|ã|^{N+1})^{1/(N+1)}, ω = p·(N + 3 + |l̃|)."""
    farthest: Tensor
    """An upper bound of max |ã|."""


Powers = tuple[int, int]
"""(j, m) for p·ũʲ·ṽᵐ, m ≥ 1."""
_KEYS: tuple[Powers, ...] = ((0, 1), (1, 1), (0, 2), (2, 1), (1, 2), (0, 3))
"""Those up to order 3, as the compiled loop numbers them."""


class _DirectionMoments:
    """The moments E[ũʲ·ãᵏ·ṽᵐ] with m ≥ 1 and j + k + m ≤ N that e·ṽ in X asks for besides.

    Those with k = 1 are products through d_model; only p·ṽ meets A² over the whole vocabulary.
    """

    def __init__(
        self,
        problem: Ablations,
        predictions: Predictions,
        fixed: FixedDirection,
        order: int,
        half_from: int,
        narrow: torch.dtype,
    ) -> None:
        """Of order 2 or 3."""
        self.fixed, self._order, self._path = fixed, order, problem.path
        tokens, d_vocab = predictions.p.shape
        keys = _KEYS[: 1 if order == 2 else 3]
        weighted_rows = np.empty((len(keys), tokens, d_vocab), np.float32)
        sums = np.empty((tokens, len(_KEYS) + 2))
        p, log_p, b, v = rows.arrays(
            predictions.p, predictions.log_p, rows.bias(problem), torch.atleast_2d(fixed.along.v)
        )
        means = rows.arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0], fixed.mean[:, 0])
        data = (p, log_p, b, problem.b_U is not None, v, *means, np.float32(order + 3), weighted_rows, sums)
        rows.over_tokens(tokens, lambda *part: _LOOPS.weigh_along(*data, *part))
        filled = torch.from_numpy(sums).float()
        self.sums = {key: filled[:, place, None] for place, key in enumerate(_KEYS) if sum(key) <= order}
        self.sums[0, 1] = torch.zeros_like(self.sums[0, 1])  # by definition of ṽ
        weighted = [torch.from_numpy(row) for row in weighted_rows]
        self._first = {key: self._path.mean(row) for key, row in zip(keys, weighted, strict=True)}
        self._row = weighted[0] if half_from > 3 else weighted[0].to(narrow)
        self.spread = filled[:, len(_KEYS) + order - 2, None].pow(1 / (order + 1))
        """(Σ ω·|ṽ|^{N+1})^{1/(N+1)}, ω = p·(N + 3 + |l̃|), [tokens, 1]"""

    def central(self, part: slice, mean: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """E[ũʲ·ãᵏ·ṽᵐ] by (j, k, m) for some neurons, each [tokens, neurons]; mean: Σ p·a there."""
        central: dict[tuple[int, int, int], Tensor] = {}
        for (j, m), total in self.sums.items():
            raw = [total]
            for k in range(1, self._order - j - m + 1):
                raw.append(self._first[j, m][:, part] if k == 1 else self._with_square(part))
            for k in range(len(raw)):
                whole = raw[k]
                for i in range(k):
                    whole = whole + comb(k, i) * (-mean) ** (k - i) * raw[i]
                central[j, k, m] = whole
        return central

    def _with_square(self, part: slice) -> Tensor:
        """Σ p·ṽ·a², the one product over the whole vocabulary, of order 3."""
        return (self._row @ self._path.power(2, self._row.dtype, part).T).float()

    def rise(self, central: dict[tuple[int, int, int], Tensor], q: Tensor, d: Tensor, e: Tensor) -> Tensor:
        """What e·ṽ adds to Σ p·e^X up to order N."""
        total = torch.zeros_like(d)
        for j, k, m in product(range(self._order), range(self._order), range(1, self._order + 1)):
            if 2 <= j + k + m <= self._order:  # E[X] = 0
                size = factorial(j) * factorial(k) * factorial(m)
                total = total + q**j * d**k * e**m * central[j, k, m] / size
        return total


class Series:
    """Losses and entropies of every pair of a problem, to a low order."""

    def __init__(
        self, problem: Ablations, predictions: Predictions, accuracy: Accuracy = EXACT, *, losses_only: bool = False
    ) -> None:
        """Everything that the neurons have in common.

        Args:
            accuracy: how far the expansion goes, and what it may certify.
            losses_only: leave out the moments that only entropies need; for `fill_fixed` alone.
        """
        problem.require_along_none("moment series")
        self._problem, self._predictions, self._accuracy = problem, predictions, accuracy
        self._kinds = (0,) if losses_only else (0, 1)
        self._weights = _Weights(problem, predictions, accuracy.order)
        self._half = half_precision(problem.c.device.type) or torch.float32
        self.spread: Float[Tensor, "tokens neurons"] = torch.empty_like(problem.c)
        """(Σ ω·|ã|^{N+1})^{1/(N+1)}, an upper bound; filled by `fill`."""
        self._omega = self._weights.omega.to(self._half)
        self._first = {
            weight: problem.path.mean(self._weights.rows(weight, torch.float32)) for weight in self._weights_of(1)
        }
        self.directed = None if problem.fixed_direction is None else self._direction_moments()
        self.fixed_certified: Bool[Tensor, "tokens neurons"] = torch.zeros_like(problem.c, dtype=torch.bool)
        """Whose `delta_loss_freq` is certified; filled by `fill` and `fill_fixed`."""

    @property
    def mean_a(self) -> Float[Tensor, "tokens neurons"]:
        """Σ p·a"""
        return self._first[0, 0]

    def fill(self, out: PairStatistics) -> Bool[Tensor, "tokens neurons"]:
        """Write all losses and entropies; returns which pairs are certified."""
        tokens, n_neurons = self._problem.c.shape
        certified = torch.empty(tokens, n_neurons, dtype=torch.bool, device=self._problem.c.device)
        for start in range(0, n_neurons, _NEURONS_AT_ONCE):
            part = slice(start, min(start + _NEURONS_AT_ONCE, n_neurons))
            certified[:, part] = self._fill_part(part, out)
        return certified

    def fill_fixed(self, out: PairStatistics) -> None:
        """Write `delta_loss_freq` alone; `fixed_certified` tells for which pairs it is certified."""
        for start in range(0, self._problem.c.shape[1], _NEURONS_AT_ONCE):
            part = slice(start, min(start + _NEURONS_AT_ONCE, self._problem.c.shape[1]))
            self._fill_fixed_part(part, self._moments(part), out)

    def _direction_moments(self) -> _DirectionMoments:
        problem, predictions, accuracy = self._problem, self._predictions, self._accuracy
        return _DirectionMoments(
            problem,
            predictions,
            FixedDirection.of(problem, predictions),
            accuracy.order,
            accuracy.half_from,
            self._half,
        )

    def _fill_fixed_part(self, part: slice, moments: _Moments, out: PairStatistics) -> None:
        extra, problem = self.directed, self._problem
        if extra is None or out.delta_loss_freq is None:
            return
        q, d, e = problem.total.q[:, part], problem.total.d[:, part], extra.fixed.along.e[:, part]
        orders = range(2, self._accuracy.order + 1)
        rise = torch.stack([self._expect(moments, 0, n, q, d) / factorial(n) for n in orders]).sum(dim=0)
        rise = rise + extra.rise(extra.central(part, moments.mean), q, d, e)
        a_correct, u_correct = self._correct(part, moments)
        x_correct = q * u_correct + d * a_correct + e * extra.fixed.correct
        out.delta_loss_freq[:, part] = rise.log1p() - x_correct
        self.fixed_certified[:, part] = self._fixed_bound(moments, q, d, e) <= self._accuracy.tolerance

    def _correct(self, part: slice, moments: _Moments) -> tuple[Tensor, Tensor]:
        """ã and ũ of the correct token, [tokens, neurons] and [tokens, 1]."""
        problem, predictions = self._problem, self._predictions
        a_correct = problem.path.A[part][:, problem.targets].T - moments.mean
        return a_correct, (predictions.log_correct - predictions.b_correct) - (predictions.mean_l - predictions.mean_b)

    def _fill_part(self, part: slice, out: PairStatistics) -> Tensor:
        problem = self._problem
        moments = self._moments(part)
        self._fill_fixed_part(part, moments, out)
        c, total = problem.c[:, part], problem.total
        a_correct, u_correct = self._correct(part, moments)
        certified = torch.ones_like(c, dtype=torch.bool)
        for q, d, suffix in ((None, c, "_frozen"), (total.q[:, part], total.d[:, part], "")):
            log_partition, tilted = self._tilt(moments, q, d)
            x_correct = d * a_correct if q is None else q * u_correct + d * a_correct
            getattr(out, f"delta_loss{suffix}")[:, part] = log_partition - x_correct
            getattr(out, f"delta_entropy{suffix}")[:, part] = log_partition - tilted
            certified &= self._error_bound(moments, q, d) * tilted.abs().clamp_min(1) <= self._accuracy.tolerance
        return certified

    def _weights_of(self, k: int) -> list[Weight]:
        """The weights that aᵏ is multiplied with."""
        weights = [(w, j) for w in self._kinds for j in range(self._accuracy.order - k + 1)]
        return sorted({self._weights.key(weight) for weight in weights})

    def _moments(self, part: slice) -> _Moments:
        order, weights = self._accuracy.order, self._weights
        path = self._problem.path
        raw = {(weight, 1): product[:, part] for weight, product in self._first.items()}
        for k in range(2, order + 1):
            for weight in self._weights_of(k):
                exact = self._degree(weight) + k < self._accuracy.half_from
                kind = torch.float32 if exact else self._half
                raw[weight, k] = (weights.rows(weight, kind) @ path.power(k, kind, part).T).float()
        bounds = (self._omega @ path.power(-order - 1, self._half, part).T).float()
        mean = raw[(0, 0), 1]
        # 1.02 for rounding; the mean is added by Minkowski's inequality.
        spread = (1.02 * bounds).pow(1 / (order + 1)) + mean.abs() * weights.total.pow(1 / (order + 1))
        self.spread[:, part] = spread
        return _Moments(self._centred(raw, mean), mean, spread, path.size[part] + mean.abs())

    def _degree(self, weight: Weight) -> int:
        """The lowest power of ũ, beside l̃, that this row of weights stands for."""
        return max(0, weight[1] - 1) if self._problem.b_U is None else weight[1]

    def _centred(self, raw: dict[tuple[Weight, int], Tensor], mean: Tensor) -> dict[tuple[Weight, int], Tensor]:
        central: dict[tuple[Weight, int], Tensor] = {}
        for w in self._kinds:
            for j in range(self._accuracy.order + 1):
                weight = (w, j)
                central[weight, 0] = self._weights.sum(weight)
                for k in range(1, self._accuracy.order + 1 - j):
                    terms = [
                        comb(k, i)
                        * (-mean) ** (k - i)
                        * (raw[self._weights.key(weight), i] if i else central[weight, 0])
                        for i in range(k + 1)
                    ]
                    central[weight, k] = torch.stack(terms).sum(dim=0)
        return central

    def _tilt(self, moments: _Moments, q: Tensor | None, d: Tensor) -> tuple[Tensor, Tensor]:
        """log F, and the mean of l̃ + X under the tilted distribution."""
        orders = range(1, self._accuracy.order + 1)
        plain = {n: self._expect(moments, 0, n, q, d) / factorial(n) for n in orders if n > 1}  # E[X] = 0
        with_l = torch.stack([self._expect(moments, 1, n, q, d) / factorial(n) for n in orders]).sum(dim=0)
        rise = torch.stack(list(plain.values())).sum(dim=0)
        with_x = torch.stack([n * value for n, value in plain.items()]).sum(dim=0)
        return rise.log1p(), (with_l + with_x) / (1 + rise)

    def _expect(self, moments: _Moments, w: int, n: int, q: Tensor | None, d: Tensor) -> Tensor:
        """E[Xⁿ] (w = 0) or E[l̃·Xⁿ] (w = 1), by the binomial theorem."""
        total = d**n * moments.central[(w, 0), n]
        if q is not None:
            for k in range(n):
                total = total + comb(n, k) * q ** (n - k) * d**k * moments.central[(w, n - k), k]
        return total

    def _error_bound(self, moments: _Moments, q: Tensor | None, d: Tensor) -> Tensor:
        """A bound on the error of both the loss's and the entropy's change, in nats, if |tilted mean| ≤ 1.

        With Y ≥ (Σ ω·|X|^{N+1})^{1/(N+1)} by Minkowski's inequality, what is left out of F (it counts twice, in the
        logarithm and below the quotient), of Σ p·l̃·e^X (both past order N) and of Σ p·X·e^X (past order N − 1, hence
        N + 1 times as much) is at most Y^{N+1}/(N+1)!·κ_{N−1} in all, and the rounding of order n at most 2⁻⁹·3·Yⁿ/n!,
        times a power of Σ ω by Hölder's. F = Σ p·e^X ≥ 1 by Jensen's, since Σ p·X = 0: quotient and logarithm enlarge
        nothing.
        """
        order, weights = self._accuracy.order, self._weights
        size, farthest = d.abs() * moments.spread, d.abs() * moments.farthest
        if q is not None:
            size, farthest = size + q.abs() * weights.spread, farthest + q.abs() * weights.farthest
        bound = (order + farthest.exp()) / (order + 1) * size ** (order + 1) / factorial(order + 1)
        if self._half != torch.float32:
            for n in range(self._accuracy.half_from, order + 1):
                bound = bound + _HALF_ERROR * size**n / factorial(n) * weights.total ** (1 - n / (order + 1))
        return bound

    def _fixed_bound(self, moments: _Moments, q: Tensor, d: Tensor, e: Tensor) -> Tensor:
        """A bound on the error of `delta_loss_freq`, in nats."""
        order, weights, extra = self._accuracy.order, self._weights, self.directed
        assert extra is not None
        size = d.abs() * moments.spread + q.abs() * weights.spread + e.abs() * extra.spread
        farthest = d.abs() * moments.farthest + q.abs() * weights.farthest + e.abs() * extra.fixed.farthest
        size = size / (order + 3) ** (1 / (order + 1))
        bound: Tensor = (order + 1 + farthest.exp()) / (order + 2) * size ** (order + 1) / factorial(order + 1)
        if self._half != torch.float32:
            for n in range(self._accuracy.half_from, order + 1):
                bound = bound + _HALF_ERROR * size**n / factorial(n)
        return bound
