"""The fast kernel: effects of all neurons from moments of A under the model's own prediction, each with a certificate.

Let p be the prediction at a token, l = log p, u = l − b_U, a = A_i. Every ablation is p tilted by e^X, where

    X = q·ũ + d·ã + e·M̃ + κ·ṽ,    ũ = u − Σ p·u,   ã = a − Σ p·a   and so on,    l̃ = l − Σ p·l

with (q, d) = (0, c) for the frozen norm and (r − 1, r·c) for the recomputed one; M is the direction along which a norm
after the MLP moves the token's logits, v the one that is fixed, both absent from most. With F = Σ p·e^X the loss
changes by log F − X_correct and the entropy by log F − Σ p·(l̃ + X)·e^X / F. Nearly all ablations are small tilts, so
both sums are expanded to a low order N in X, whose coefficients are moments

    E[w·ũʲ·M̃ᵐ·ṽⁿ·ãᵏ],    w = 1 or l̃,   j + m + n + k ≤ N

and those, for all tokens and neurons at once, are matrix products (P∘w∘ũʲ∘M̃ᵐ∘ṽⁿ)·(Aᵏ)ᵀ; for k = 1 they pass through
d_model.

Nothing is taken on trust. Past order n, e^X has at most |X|^{n+1}/(n+1)!·κ_n with κ_n = (n + 1 + e^{max|X|})/(n + 2):
the remainder is |X|^{n+1}/n!·∫(1 − s)ⁿ·e^{sX} ds over 0 to 1, and e^{sX} lies below its chord, 1 − s + s·e^X. So one
more product, Σ p·(N + 3 + |l̃|)·|a|^{N+1}, bounds the error of each pair, rounding to half precision included where it
is used; directions of the logits are added to it by Minkowski's inequality, as |e|·(Σ ω·|M̃|^{N+1})^{1/(N+1)} and
|e|·max |M̃|. Pairs whose bound exceeds the tolerance are left to a kernel that sums whole rows.

Beside a fixed direction the loss alone is wanted, so F alone, and as ω ≥ (N + 3)·p, a share 1/(N + 3) of Y^{N+1} bounds
Σ p·|X|^{N+1}.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from math import comb, factorial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from backend.core.kernels import rows
from backend.core.kernels import series_compiled as native_series
from backend.core.kernels.problem import Ablations, CentredAlong, FixedDirection
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions

_NEURONS_AT_ONCE = 256
_TOKENS_AT_ONCE = 16
"""Tokens whose weights meet the unembedding together, in float32."""
_HALF_ERROR = 3 * 2.0**-9
"""Relative error of a half-precision product against the sum of its terms' sizes: both factors and the result are
rounded to 9 bits; sums are kept in float32."""

_LOOPS: Any = native_series


class Weight(NamedTuple):
    """p·l̃ʷ·ũʲ·M̃ᵐ·ṽⁿ, by its powers."""

    w: int = 0
    j: int = 0
    m: int = 0
    n: int = 0


_P = Weight()


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
    """N, 2 or 3."""
    half_from: int
    """Terms of this order in X and above may be multiplied in half precision."""
    tolerance: float
    """Largest error of a certified loss or entropy, in nats."""


EXACT = Accuracy(order=3, half_from=3, tolerance=3e-6)


@dataclass(frozen=True)
class _Plan:
    """Which weights the moments ask for, and with which powers of A."""

    accuracy: Accuracy
    half: torch.dtype
    kinds: tuple[int, ...]
    """w of the moments: 0 alone where only losses are wanted."""
    unbiased: bool
    moved: bool
    fixed: bool

    def key(self, weight: Weight) -> Weight:
        """Without a bias ũ = l̃, so that p·l̃·ũʲ is p·ũʲ⁺¹."""
        return weight._replace(w=0, j=weight.j + weight.w) if self.unbiased else weight

    @cached_property
    def moments(self) -> tuple[Weight, ...]:
        """What stands before ãᵏ in the moments, k being at most the order less its degree."""
        order = range(self.accuracy.order + 1)
        powers = product(self.kinds, order, order if self.moved else (0,), order if self.fixed else (0,))
        weights = (Weight(*each) for each in powers)
        return tuple(x for x in weights if _degree(x) <= self.accuracy.order and not (x.w and x.n))

    @cached_property
    def highest(self) -> dict[Weight, int]:
        """The highest power of A that each weight is multiplied with."""
        highest: dict[Weight, int] = {}
        for weight in self.moments:
            key = self.key(weight)
            highest[key] = max(highest.get(key, 0), self.accuracy.order - _degree(weight))
        return highest

    def kind(self, weight: Weight, k: int) -> torch.dtype:
        """The type in which the product of a weight with Aᵏ is taken: by the lowest order of what it stands for."""
        as_l = self.unbiased and 1 in self.kinds and weight.j > 0 and weight.n == 0
        return torch.float32 if _degree(weight) - int(as_l) + k < self.accuracy.half_from else self.half

    @cached_property
    def rows(self) -> dict[torch.dtype, list[Weight]]:
        """The weights that A² and higher powers are multiplied with, by type; p in float32 is there already."""
        kinds: dict[torch.dtype, list[Weight]] = {torch.float32: []}
        for weight, highest in self.highest.items():
            for kind in {self.kind(weight, k) for k in range(2, highest + 1)}:
                if (weight, kind) != (_P, torch.float32):
                    kinds.setdefault(kind, []).append(weight)
        return kinds

    @property
    def read(self) -> list[Weight]:
        """The weights that A itself is multiplied with."""
        return [weight for weight, highest in self.highest.items() if highest > 0]

    def steps(self, wanted: Iterable[Weight]) -> list[tuple[Weight, int, int]]:
        """Some weights and what leads to them, each an earlier one times a factor, numbered as the loop has them."""
        steps = {_P: (-1, -1)}

        def reach(weight: Weight) -> int:
            if weight not in steps:
                factor = next(
                    place for place, name in ((3, "n"), (2, "m"), (1, "j"), (0, "w")) if getattr(weight, name)
                )
                name = "wjmn"[factor]
                parent = reach(weight._replace(**{name: getattr(weight, name) - 1}))
                steps[weight] = (parent, factor)
            return list(steps).index(weight)

        for weight in wanted:
            reach(weight)
        return [(weight, *step) for weight, step in steps.items()]


def _degree(weight: Weight) -> int:
    return weight.j + weight.m + weight.n


@dataclass(frozen=True)
class _Directions:
    """Directions of the logits that a problem's tilts have beside ũ and ã, under p; None where there is none."""

    moved: CentredAlong | None
    """M"""
    fixed: FixedDirection | None
    """v"""

    @classmethod
    def of(cls, problem: Ablations, predictions: Predictions) -> "_Directions":
        fixed = None if problem.fixed_direction is None else FixedDirection.of(problem, predictions)
        return cls(rows.moved_along(problem, predictions), fixed)

    def rows(self) -> tuple[Any, Any]:
        """The directions as the loop takes them."""
        absent = np.empty((0, 0), np.float32)
        taken = (None if one is None else torch.atleast_2d(one.along.v) for one in (self.moved, self.fixed))
        moved, fixed = (absent if v is None else rows.arrays(v)[0] for v in taken)
        return moved, fixed

    def means(self, like: Tensor) -> list[Tensor]:
        """Their means under p, [tokens]; like: [tokens, 1]."""
        return [(torch.zeros_like(like) if one is None else one.mean)[:, 0] for one in (self.moved, self.fixed)]


@dataclass(frozen=True)
class TokenMoments:
    """What the moments take of the predictions alone, whichever neurons are ablated; small beside the predictions."""

    sums: dict[Weight, Tensor]
    """Of every weight over the vocabulary, [tokens, 1]."""
    read: dict[Weight, Tensor]
    """W_U·weight, [tokens, d_model]; A times it is W_out times this."""
    total: Tensor
    """Σ ω, ω = p·(N + 3 + |l̃|), [tokens, 1]"""
    spreads: tuple[Tensor, Tensor, Tensor]
    """(Σ ω·|·|^{N+1})^{1/(N+1)} of ũ, M̃ and ṽ, each [tokens, 1]."""


class _Rows:
    """The rows over the vocabulary that powers of A are multiplied with."""

    def __init__(self, plan: _Plan, problem: Ablations, predictions: Predictions, directions: _Directions) -> None:
        self._plan, self._p = plan, predictions.p
        self._inputs = (
            *rows.arrays(predictions.p, predictions.log_p, rows.bias(problem)),
            problem.b_U is not None,
            directions.rows(),
        )
        means = (predictions.mean_l[:, 0], predictions.mean_b[:, 0], *directions.means(predictions.mean_l))
        self._means = torch.stack(means).numpy()
        whole, half = plan.rows[torch.float32], plan.rows.get(torch.bfloat16, [])
        steps = plan.steps([*whole, *half])
        places = [(parent, factor, _place(whole, weight), _place(half, weight)) for weight, parent, factor in steps]
        omega = (-1, -1, len(whole), -1) if plan.half == torch.float32 else (-1, -1, -1, len(half))
        self._whole = self._room(len(whole) + int(plan.half == torch.float32), torch.float32)
        self._half = self._room(len(half) + int(plan.half != torch.float32), torch.bfloat16)
        self._fill([*places, omega], self._whole, self._half, slice(0, len(self._p)))

    def _room(self, count: int, kind: torch.dtype) -> Tensor:
        return torch.empty(count, *self._p.shape, dtype=kind)

    def _fill(
        self, places: list[tuple[int, int, int, int]], whole: Tensor, half: Tensor, tokens: slice
    ) -> tuple[Tensor, Tensor]:
        """Run the loop over some tokens; returns sums [tokens, weights] and spreads [tokens, 3]."""
        p, log_p, b, has_b, directions = self._inputs
        count = tokens.stop - tokens.start
        some = tuple(v[tokens] if len(v) > 1 else v for v in directions)
        sums, spreads = np.empty((count, len(places))), np.empty((count, 3))
        data = (
            p[tokens], log_p[tokens], b, has_b, some, np.ascontiguousarray(self._means[:, tokens]),
            np.array(places, np.int64), self._plan.accuracy.order, whole.numpy(), half.view(torch.uint16).numpy(), sums,
            spreads,
        )  # fmt: skip
        rows.over_tokens(count, lambda *part: _LOOPS.weigh(*data, *part))
        return torch.from_numpy(sums), torch.from_numpy(spreads)

    def token_moments(self, W_U: Tensor) -> TokenMoments:
        """What is left of the predictions when all neurons have been seen, from one more pass."""
        plan, tokens = self._plan, len(self._p)
        steps = plan.steps(plan.highest)
        read = [weight for weight, *_ in steps if plan.highest.get(weight, 0) > 0]
        places = [(parent, factor, _place(read, weight), -1) for weight, parent, factor in steps]
        parts, no_half = [], self._room(0, torch.bfloat16)
        for start in range(0, tokens, _TOKENS_AT_ONCE):
            part = slice(start, min(start + _TOKENS_AT_ONCE, tokens))
            room = torch.empty(len(read), part.stop - start, self._p.shape[1])
            sums, spreads = self._fill([*places, (-1, -1, -1, -1)], room, no_half, part)
            parts.append(((room.flatten(0, 1) @ W_U.T).view(len(read), -1, len(W_U)), sums, spreads))
        products, all_sums, all_spreads = zip(*parts, strict=True)
        sums, spreads = torch.cat(all_sums), torch.cat(all_spreads)
        roots = spreads.float().pow(1 / (plan.accuracy.order + 1))
        return TokenMoments(
            {weight: sums[:, place, None].float() for place, (weight, *_) in enumerate(steps)},
            dict(zip(read, torch.cat(products, dim=1), strict=True)),
            sums[:, -1, None].float(),
            (roots[:, 0, None], roots[:, 1, None], roots[:, 2, None]),
        )

    def of(self, weight: Weight, kind: torch.dtype) -> Tensor:
        """[tokens, d_vocab]"""
        if (weight, kind) == (_P, torch.float32):
            return self._p
        room = self._whole if kind == torch.float32 else self._half
        return room[self._plan.rows[kind].index(weight)]

    @property
    def omega(self) -> Tensor:
        """[tokens, d_vocab], in the narrow type."""
        return (self._whole if self._plan.half == torch.float32 else self._half)[-1]


def _place(weights: list[Weight], weight: Weight) -> int:
    return weights.index(weight) if weight in weights else -1


@dataclass(frozen=True)
class _Moments:
    """What one slab of neurons has at every token, each [tokens, neurons]."""

    central: dict[tuple[Weight, int], Tensor]
    """E[w·ũʲ·M̃ᵐ·ṽⁿ·ãᵏ] by (weight, k); k = 0 is [tokens, 1]."""
    mean: Tensor
    """Σ p·a"""
    spread: Tensor
    """An upper bound of (Σ ω·|ã|^{N+1})^{1/(N+1)}, ω = p·(N + 3 + |l̃|)."""
    farthest: Tensor
    """An upper bound of max |ã|."""


_Sizes = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor]
"""q, e of M, e of v and d of a tilt, each [tokens, neurons]; None where there is none."""


class Series:
    """Losses and entropies of every pair of a problem, to a low order."""

    def __init__(
        self,
        problem: Ablations,
        predictions: Predictions,
        accuracy: Accuracy = EXACT,
        *,
        losses_only: bool = False,
        remembered: dict[Any, Any] | None = None,
    ) -> None:
        """Everything that the neurons have in common.

        Args:
            accuracy: how far the expansion goes, and what it may certify.
            losses_only: leave out the moments that only entropies need; for `fill_fixed` alone.
            remembered: that of `Before`, where other neurons of the same tokens find what is of the tokens alone.
        """
        problem.require_no_softcap("moment series")
        self._problem, self._predictions, self._accuracy = problem, predictions, accuracy
        self._directions = _Directions.of(problem, predictions)
        self._half = half_precision(problem.c.device.type) or torch.float32
        self._plan = _Plan(
            accuracy, self._half, (0,) if losses_only else (0, 1), problem.b_U is None, problem.along is not None,
            problem.fixed_direction is not None,
        )  # fmt: skip
        self._rows = _Rows(self._plan, problem, predictions, self._directions)
        remembered = {} if remembered is None else remembered
        if self._plan not in remembered:
            remembered[self._plan] = self._rows.token_moments(problem.path.W_U)
        self.tokens: TokenMoments = remembered[self._plan]
        self.mean_a: Float[Tensor, "tokens neurons"] = self.mean(_P)
        """Σ p·a"""
        self.spread: Float[Tensor, "tokens neurons"] = torch.empty_like(problem.c)
        """(Σ ω·|x|^{N+1})^{1/(N+1)} of the frozen tilt x, an upper bound; filled by `fill`."""
        self.fixed_certified: Bool[Tensor, "tokens neurons"] = torch.zeros_like(problem.c, dtype=torch.bool)
        """Whose `delta_loss_freq` is certified; filled by `fill` and `fill_fixed`."""

    @property
    def fixed(self) -> FixedDirection | None:
        """The direction that is fixed, under p."""
        return self._directions.fixed

    def mean(self, weight: Weight) -> Float[Tensor, "tokens neurons"]:
        """Σ weight·a, of a weight that is read."""
        return self.tokens.read[weight] @ self._problem.path.W_out.T

    def fill(self, out: PairStatistics) -> Bool[Tensor, "tokens neurons"]:
        """Write all losses and entropies; returns which pairs are certified."""
        certified = torch.empty_like(self._problem.c, dtype=torch.bool)
        for part in self._parts():
            certified[:, part] = self._fill_part(part, out)
        return certified

    def fill_fixed(self, out: PairStatistics, wanted: Bool[Tensor, "tokens neurons"]) -> Bool[Tensor, "tokens neurons"]:
        """Write `delta_loss_freq` alone of the wanted pairs; returns which of them are not certified."""
        assert out.delta_loss_freq is not None
        kept = out.delta_loss_freq.clone()
        for part in self._parts():
            moments = self._moments(part)
            sizes = self._total_sizes(part)
            self._fill_fixed_part(part, moments, sizes, self._rise(moments, sizes)[0], out)
        out.delta_loss_freq.copy_(torch.where(wanted, out.delta_loss_freq, kept))
        return wanted & ~self.fixed_certified

    def _parts(self) -> Iterable[slice]:
        n_neurons = self._problem.c.shape[1]
        for start in range(0, n_neurons, _NEURONS_AT_ONCE):
            yield slice(start, min(start + _NEURONS_AT_ONCE, n_neurons))

    def _total_sizes(self, part: slice) -> _Sizes:
        problem = self._problem
        r, along = problem.r[:, part], problem.along
        return r - 1, None if along is None else r * along.e[:, part], None, r * problem.c[:, part]

    def _fill_part(self, part: slice, out: PairStatistics) -> Tensor:
        problem = self._problem
        moments = self._moments(part)
        along = None if problem.along is None else problem.along.e[:, part]
        certified = torch.ones_like(problem.c[:, part], dtype=torch.bool)
        frozen: _Sizes = (None, along, None, problem.c[:, part])
        self.spread[:, part] = self._size(moments, frozen)
        for sizes, suffix in ((frozen, "_frozen"), (self._total_sizes(part), "")):
            rise, log_partition, tilted = self._tilt(moments, sizes)
            getattr(out, f"delta_loss{suffix}")[:, part] = log_partition - self._x_correct(part, moments, sizes)
            getattr(out, f"delta_entropy{suffix}")[:, part] = log_partition - tilted
            certified &= self._error_bound(moments, sizes) * tilted.abs().clamp_min(1) <= self._accuracy.tolerance
        self._fill_fixed_part(part, moments, sizes, rise, out)
        return certified

    def _fill_fixed_part(
        self, part: slice, moments: _Moments, total: _Sizes, rise: Tensor, out: PairStatistics
    ) -> None:
        """rise: Σ p·(e^X − 1) of the total tilt."""
        if self.fixed is None or out.delta_loss_freq is None:
            return
        q, e, _, d = total
        sizes = (q, e, self.fixed.along.e[:, part], d)
        rise = rise + self._rise(moments, sizes, beside=True)[0]
        out.delta_loss_freq[:, part] = rise.log1p() - self._x_correct(part, moments, sizes)
        self.fixed_certified[:, part] = self._fixed_bound(moments, sizes) <= self._accuracy.tolerance

    def _x_correct(self, part: slice, moments: _Moments, sizes: _Sizes) -> Tensor:
        """X of the correct token, [tokens, neurons]."""
        problem, predictions = self._problem, self._predictions
        q, e, e_fixed, d = sizes
        x = d * (problem.path.A[part][:, problem.targets].T - moments.mean)
        if q is not None:
            u = (predictions.log_correct - predictions.b_correct) - (predictions.mean_l - predictions.mean_b)
            x = x + q * u
        for size, direction in ((e, self._directions.moved), (e_fixed, self.fixed)):
            if size is not None and direction is not None:
                x = x + size * direction.correct
        return x

    def _moments(self, part: slice) -> _Moments:
        order, plan, path = self._accuracy.order, self._plan, self._problem.path
        W_out = path.W_out[part]
        raw = {(weight, 1): self.tokens.read[weight] @ W_out.T for weight in plan.read}
        for weight, highest in plan.highest.items():
            for k in range(2, highest + 1):
                kind = plan.kind(weight, k)
                raw[weight, k] = (self._rows.of(weight, kind) @ path.power(k, kind, part).T).float()
        bounds = (self._rows.omega @ path.power(-order - 1, self._half, part).T).float()
        mean = raw[_P, 1]
        # 1.02 for rounding; the mean is added by Minkowski's inequality.
        spread = (1.02 * bounds).pow(1 / (order + 1)) + mean.abs() * self.tokens.total.pow(1 / (order + 1))
        return _Moments(self._centred(raw, mean), mean, spread, path.size[part] + mean.abs())

    def _centred(self, raw: Mapping[tuple[Weight, int], Tensor], mean: Tensor) -> dict[tuple[Weight, int], Tensor]:
        central: dict[tuple[Weight, int], Tensor] = {}
        powers = [torch.ones_like(mean[:, :1]), -mean]
        for _ in range(2, self._accuracy.order + 1):
            powers.append(powers[-1] * -mean)
        known: dict[tuple[Weight, int], Tensor] = {}
        for weight in self._plan.moments:
            key = self._plan.key(weight)
            for k in range(self._accuracy.order + 1 - _degree(weight)):
                if (key, k) not in known:
                    whole = powers[k] * self.tokens.sums[key] if k else self.tokens.sums[key]
                    for i in range(1, k + 1):
                        whole = whole + comb(k, i) * (raw[key, i] if i == k else powers[k - i] * raw[key, i])
                    known[key, k] = whole
                central[weight, k] = known[key, k]
        return central

    def _tilt(self, moments: _Moments, sizes: _Sizes) -> tuple[Tensor, Tensor, Tensor]:
        """F − 1, log F, and the mean of l̃ + X under the tilted distribution."""
        rise, with_x = self._rise(moments, sizes)
        with_l = self._rise(moments, sizes, w=1)[0]
        log_partition = rise.log1p()
        return rise, log_partition, (with_l + with_x) / (1 + rise)

    def _rise(self, moments: _Moments, sizes: _Sizes, *, w: int = 0, beside: bool = False) -> tuple[Tensor, Tensor]:
        """Σ E[w·Xⁿ]/n! and Σ n·E[w·Xⁿ]/n! over the orders, by the multinomial theorem.

        beside: only the terms that the fixed direction is part of.
        """
        q, e, e_fixed, d = sizes
        powers = [_powers(size, self._accuracy.order) for size in (q, e, e_fixed, d)]
        rise, weighted = torch.zeros_like(d), torch.zeros_like(d)
        for weight in self._plan.moments:
            if weight.w != w or beside != (weight.n > 0) or _absent(weight, sizes):
                continue
            for k in range(self._accuracy.order + 1 - _degree(weight)):
                order = _degree(weight) + k
                if order == 0 or (order == 1 and w == 0):  # E[X] = 0
                    continue
                term = moments.central[weight, k] / _share(weight, k)
                for of_size, power in zip(powers, (weight.j, weight.m, weight.n, k), strict=True):
                    if power:
                        term = term * of_size[power]
                rise += term
                if w == 0 and not beside:
                    weighted.add_(term, alpha=order)
        return rise, weighted

    def _size(self, moments: _Moments, sizes: _Sizes) -> Tensor:
        """Y ≥ (Σ ω·|X|^{N+1})^{1/(N+1)}, by Minkowski's inequality."""
        return self._added(sizes, moments.spread, self.tokens.spreads)

    def _farthest(self, moments: _Moments, sizes: _Sizes) -> Tensor:
        """An upper bound of max |X|."""
        nothing = torch.zeros(())
        others = (nothing if one is None else one.farthest for one in (self._directions.moved, self.fixed))
        moved, fixed = others
        return self._added(sizes, moments.farthest, (self._predictions.deepest, moved, fixed))

    @staticmethod
    def _added(sizes: _Sizes, of_a: Tensor, of_others: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        *others, d = sizes
        assert d is not None
        total = d.abs() * of_a
        for size, of_one in zip(others, of_others, strict=True):
            if size is not None:
                total = total + size.abs() * of_one
        return total

    def _error_bound(self, moments: _Moments, sizes: _Sizes) -> Tensor:
        """A bound on the error of both the loss's and the entropy's change, in nats, if |tilted mean| ≤ 1.

        What is left out of F (it counts twice, in the logarithm and below the quotient), of Σ p·l̃·e^X (both past order
        N) and of Σ p·X·e^X (past order N − 1, hence N + 1 times as much) is at most Y^{N+1}/(N+1)!·κ_{N−1} in all, and
        the rounding of order n at most 2⁻⁹·3·Yⁿ/n!, times a power of Σ ω by Hölder's. F = Σ p·e^X ≥ 1 by Jensen's,
        since Σ p·X = 0: quotient and logarithm enlarge nothing.
        """
        order, total = self._accuracy.order, self.tokens.total
        size, farthest = self._size(moments, sizes), self._farthest(moments, sizes)
        bound = (order + farthest.exp()) / (order + 1) * size ** (order + 1) / factorial(order + 1)
        if self._half != torch.float32:
            for n in range(self._accuracy.half_from, order + 1):
                bound = bound + _HALF_ERROR * size**n / factorial(n) * total ** (1 - n / (order + 1))
        return bound

    def _fixed_bound(self, moments: _Moments, sizes: _Sizes) -> Tensor:
        """A bound on the error of `delta_loss_freq`, in nats."""
        order = self._accuracy.order
        size, farthest = self._size(moments, sizes), self._farthest(moments, sizes)
        size = size / (order + 3) ** (1 / (order + 1))
        bound: Tensor = (order + 1 + farthest.exp()) / (order + 2) * size ** (order + 1) / factorial(order + 1)
        if self._half != torch.float32:
            for n in range(self._accuracy.half_from, order + 1):
                bound = bound + _HALF_ERROR * size**n / factorial(n)
        return bound


def _powers(size: Tensor | None, order: int) -> list[Tensor]:
    """1 (unused), and the powers of a tilt's size up to an order; nothing where it has none."""
    if size is None:
        return []
    powers = [size, size]
    for _ in range(2, order + 1):
        powers.append(powers[-1] * size)
    return powers


def _absent(weight: Weight, sizes: _Sizes) -> bool:
    """Whether a moment is of something that the tilt does not have."""
    return any(power > 0 and size is None for power, size in zip(weight[1:], sizes[:3], strict=True))


def _share(weight: Weight, k: int) -> int:
    """What the product of a term's powers is divided by: n!/(j!·m!·…) ways over n!."""
    return factorial(weight.j) * factorial(weight.m) * factorial(weight.n) * factorial(k)
