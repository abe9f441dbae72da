"""What a kernel is given and what it gives back, as data.

Every effect is a tilt of the logits l of a token, for a neuron i with A_i = w_out_i·W_U:

    y = l + q·(l − b) + d·A_i + Σ e·v

With c = δ/s and r = s/s′ the direct effect (Eq. 6) has (q, d) = (0, c) and the total effect (Eq. 5) (r − 1, r·c), since
y = r·(l − b + c·A_i) + b. The direct effect beside a direction of the logits (Eq. 8) is the total one with e·v̂ added,
e = −(y − l)·v̂, so that the logits' component along v̂ is what it was before. A norm after the MLP adds an e·v of each
token's own to all of them. No unembedding is redone for a neuron.
"""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from backend.core.metrics.distributions import count_above
from backend.core.metrics.effects import BESIDE_A_DIRECTION, SUMMED_DISTANCE, PairStatistics
from backend.core.metrics.predictions import Predictions
from backend.core.models.readout import capped

TILE = 4096
"""Tokens of the vocabulary that are summed together in float32, and whose extremes are known."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Along:
    """A direction of the logits, and how far every ablation moves them along it."""

    v: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"]
    """One direction for all tokens, or one a token."""
    e: Float[Tensor, "tokens neurons"]

    def of_tokens(self, tokens: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens"]:
        """v at one token of the vocabulary for each position."""
        return self.v[tokens] if self.v.ndim == 1 else self.v.gather(1, tokens[:, None])[:, 0]


@dataclass(frozen=True)
class Tilt:
    """How far an ablation takes the logits in each of the ways there are: y = l + q·(l − b) + d·A_i + Σ e·v."""

    q: Float[Tensor, "tokens neurons"]
    """0 where the norm's scale is frozen."""
    d: Float[Tensor, "tokens neurons"]
    along: tuple[Along, ...] = ()

    def rescaled(self, r: Float[Tensor, "tokens neurons"]) -> "Tilt":
        """The tilt y′ = r·(y − b) + b, which recomputing the norm makes of y."""
        return Tilt(r * self.q + (r - 1), r * self.d, tuple(replace(one, e=r * one.e) for one in self.along))


def along_component(
    rows: Float[Tensor, "tokens d_vocab"], v: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"]
) -> Float[Tensor, "tokens"]:
    """rows·v, where v is one direction for all rows or one a row."""
    return rows @ v if v.ndim == 1 else torch.linalg.vecdot(rows, v)


@dataclass(frozen=True)
class DirectPath:
    """What neurons write onto the logits."""

    W_out: Float[Tensor, "neurons d_model"]
    W_U: Float[Tensor, "d_model d_vocab"]
    A: Float[Tensor, "neurons d_vocab"]
    """W_out·W_U"""
    highest: Float[Tensor, "neurons"]
    """The largest entry of each neuron's row of A."""
    lowest: Float[Tensor, "neurons"]
    """The smallest entry of each neuron's row of A."""
    tile_size: Float[Tensor, "neurons tiles"]
    """max |A_i| over every tile of the vocabulary."""
    _powers: dict[tuple[int, torch.dtype], Tensor] | None = None

    @classmethod
    def of(
        cls,
        W_out: Float[Tensor, "neurons d_model"],
        W_U: Float[Tensor, "d_model d_vocab"],
        *,
        keep_powers: bool = False,
    ) -> "DirectPath":
        """The product and its extremes: the heaviest thing that is kept.

        keep_powers: remember powers of A too, once they were asked for.
        """
        return cls.of_rows(W_out, W_U, W_out @ W_U, keep_powers=keep_powers)

    @classmethod
    def of_rows(
        cls,
        W_out: Float[Tensor, "neurons d_model"],
        W_U: Float[Tensor, "d_model d_vocab"],
        A: Float[Tensor, "neurons d_vocab"],
        *,
        keep_powers: bool = False,
    ) -> "DirectPath":
        """The product's extremes where A = W_out·W_U has been computed already."""
        tiles = torch.split(A, TILE, dim=1)
        highest = torch.stack([tile.amax(dim=1) for tile in tiles], dim=1)
        lowest = torch.stack([tile.amin(dim=1) for tile in tiles], dim=1)
        size = torch.maximum(highest, -lowest)
        return cls(W_out, W_U, A, highest.amax(dim=1), lowest.amin(dim=1), size, {} if keep_powers else None)

    def power(self, k: int, kind: torch.dtype, part: slice) -> Float[Tensor, "neurons d_vocab"]:
        """The elementwise power Aᵏ of some neurons' rows, in a type; −k gives |A|ᵏ."""
        if self._powers is None:
            return _power(self.A[part], k, kind)
        if (k, kind) not in self._powers:
            whole = torch.empty(self.A.shape, dtype=kind, device=self.A.device)
            for start in range(0, len(whole), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                whole[rows] = _power(self.A[rows], k, kind)
            self._powers[k, kind] = whole
        return self._powers[k, kind][part]

    def columns(self) -> Float[Tensor, "d_vocab neurons"]:
        """Aᵀ, a row a token; kept with the powers."""
        if self._powers is None:
            return self.A.T.contiguous()
        key = (0, self.A.dtype)
        if key not in self._powers:
            self._powers[key] = self.A.T.contiguous()
        return self._powers[key]

    def kept_columns(self) -> Float[Tensor, "d_vocab neurons"] | None:
        """Aᵀ if it has been computed and kept; None otherwise."""
        return None if self._powers is None else self._powers.get((0, self.A.dtype))

    def of_tokens(self, tokens: Int[Tensor, "tokens"]) -> Float[Tensor, "tokens neurons"]:
        """What all neurons write onto some tokens' logits."""
        columns = self.kept_columns()
        return self.A[:, tokens].T if columns is None else columns[tokens]

    @property
    def size(self) -> Float[Tensor, "neurons"]:
        """max |A_i|"""
        return torch.maximum(self.highest, -self.lowest)

    def mean(self, weights: Float[Tensor, "tokens d_vocab"]) -> Float[Tensor, "tokens neurons"]:
        """Σ_v weights·A_v; through d_model if that is narrower."""
        if len(self.A) < len(self.W_U):
            return weights @ self.A.T
        return (weights @ self.W_U.T) @ self.W_out.T

    def along(
        self, v: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"]
    ) -> Float[Tensor, "neurons"] | Float[Tensor, "tokens neurons"]:
        """A_i·v: one number a neuron of one direction, one a token and neuron of a direction a token."""
        return self.W_out @ (self.W_U @ v) if v.ndim == 1 else (v @ self.W_U.T) @ self.W_out.T


def _power(rows: Tensor, k: int, kind: torch.dtype) -> Tensor:
    power = rows.clone()
    for _ in range(abs(k) - 1):
        power *= rows
    return (power.abs_() if k < 0 else power).to(kind)


@dataclass(frozen=True)
class Ablations:
    """Tokens and the neurons that are ablated on them, one at a time."""

    logits: Float[Tensor, "tokens d_vocab"]
    """l; a constant a token more or less changes nothing."""
    targets: Int[Tensor, "tokens"]
    """The correct next tokens."""
    c: Float[Tensor, "tokens neurons"]
    """δ/s"""
    r: Float[Tensor, "tokens neurons"]
    """s/s′"""
    path: DirectPath
    b_U: Float[Tensor, "d_vocab"] | None
    """The unembedding's bias, or None where it is zero."""
    fixed_direction: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"] | None = None
    """v̂ of length 1 and mean 0, one for all tokens or one a token; asks for `delta_loss_freq`."""
    along: Along | None = None
    """Where an ablation moves the logits along a direction of each token's own too, as a norm after the MLP makes it:
    by e with the final norm's scale frozen, by r·e with it recomputed."""
    softcap: float | None = None
    """Where the model's logits are softcap·tanh(y/softcap), of y with all of the above done; None where they are y.
    `logits` are those before it; what a kernel gives back is of those after it."""
    p_freq: Float[Tensor, "d_vocab"] | None = None
    """P_freq, where the change of D_KL(P_freq‖p) must be summed, as it must under a soft-cap; asks for `delta_kl`."""

    @cached_property
    def frozen(self) -> Tilt:
        """With the final norm's scale frozen."""
        return Tilt(torch.zeros_like(self.c), self.c, () if self.along is None else (self.along,))

    @cached_property
    def total(self) -> Tilt:
        """With the final norm recomputed."""
        return self.frozen.rescaled(self.r)

    def room(self) -> PairStatistics:
        """Room for the statistics of all pairs; `delta_loss_freq` is None where no direction is fixed, and `delta_kl`
        where it need not be summed."""
        kinds = {"rank": torch.int64, "changed": torch.bool}
        names = [field.name for field in fields(PairStatistics) if self._asks_for(field.name)]
        return PairStatistics(**{name: torch.empty_like(self.c, dtype=kinds.get(name)) for name in names})

    def _asks_for(self, statistic: str) -> bool:
        needed = {BESIDE_A_DIRECTION: self.fixed_direction, SUMMED_DISTANCE: self.p_freq}
        return statistic not in needed or needed[statistic] is not None

    def require_no_softcap(self, kernel: str) -> None:
        """Refuse a soft-cap, for a kernel whose sums it would make wrong.

        Raises:
            NotImplementedError: there is one.
        """
        if self.softcap is not None:
            raise NotImplementedError(f"The {kernel} kernel has no soft-cap.")


@dataclass(frozen=True)
class Before:
    """The predictions without ablation."""

    loss: Float[Tensor, "tokens"]
    """Nats."""
    entropy: Float[Tensor, "tokens"]
    """Nats."""
    rank: Int[Tensor, "tokens"]
    """The correct token's, from 1."""
    top: Int[Tensor, "tokens"]
    """The most probable token."""
    predictions: Predictions
    remembered: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    """What kernels keep of the predictions, small beside them, for other neurons of the same tokens."""

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "tokens d_vocab"],
        targets: Int[Tensor, "tokens"],
        b_U: Float[Tensor, "d_vocab"] | None,
        softcap: float | None = None,
    ) -> "Before":
        """From logits before a soft-cap, the correct next tokens, the unembedding's bias (None where it is zero) and
        the soft-cap: predictions are those after it. It keeps the order of the logits, and so ranks."""
        predictions = Predictions.of(capped(logits, softcap), targets, b_U)
        correct = logits.gather(1, targets[:, None])
        scratch = torch.empty_like(logits[:_ROWS_AT_ONCE])
        parts = zip(torch.split(logits, _ROWS_AT_ONCE), torch.split(correct, _ROWS_AT_ONCE), strict=True)
        rank = torch.cat([count_above(rows, of_correct, scratch[: len(rows)]) for rows, of_correct in parts]) + 1
        return cls(
            -predictions.log_correct[:, 0], -predictions.mean_l[:, 0], rank, logits.argmax(dim=1), predictions
        )  # fmt: skip

    def without_rows(self) -> "Before":
        """What is small: all but p and its logarithm."""
        return replace(self, predictions=self.predictions.without_rows())

    def with_rows(self, logits: Float[Tensor, "tokens d_vocab"], softcap: float | None = None) -> "Before":
        """The rows that `without_rows` left out, from the logits and the soft-cap that `of` was given."""
        return replace(self, predictions=self.predictions.with_rows(capped(logits, softcap)))


@dataclass(frozen=True)
class CentredAlong:
    """A direction of the logits less its mean under p, ṽ, and how far every ablation moves them along it."""

    along: Along
    mean: Float[Tensor, "tokens 1"]
    """Σ p·v"""
    farthest: Float[Tensor, "tokens 1"]
    """max |ṽ|"""
    correct: Float[Tensor, "tokens 1"]
    """ṽ of the correct token."""

    @classmethod
    def under(cls, along: Along, targets: Int[Tensor, "tokens"], predictions: Predictions) -> Self:
        """What p makes of a direction; targets: the correct next tokens."""
        v = along.v
        mean = along_component(predictions.p, v)[:, None]
        highest, lowest = v.amax(dim=-1, keepdim=True), v.amin(dim=-1, keepdim=True)
        correct = along.of_tokens(targets)[:, None] - mean
        return cls(along, mean, torch.maximum(highest - mean, mean - lowest), correct)


@dataclass(frozen=True)
class FixedDirection(CentredAlong):
    """What keeps the logits' component along v̂ as it was (Eq. 8): the total tilt with e·v̂ added, under p.

    With y′ the ablated logits, l those before and u = l − b, e = −(y′ − l)·v̂ = −(q·(u·v̂) + d·(A_i·v̂)), less the same of
    what a norm after the MLP moves. Then y is p tilted by e^X with X = q·ũ + d·ã + e·ṽ, each less its mean under p, and
    the loss changes by log Σ p·e^X − X_correct. A_i·v̂ is one number a neuron, u·v̂ one a token: nothing is summed over
    the vocabulary for e.
    """

    @classmethod
    def of(cls, problem: Ablations, predictions: Predictions) -> Self:
        """Of ablations that have a fixed direction."""
        v, total = problem.fixed_direction, problem.total
        assert v is not None
        # v̂ has mean 0, so that the constant by which log p and the logits differ is nothing along it.
        u_along = along_component(predictions.log_p, v) - predictions.mean_l[:, 0] * v.sum(dim=-1)
        if problem.b_U is not None:
            u_along = u_along - v @ problem.b_U
        e = -(total.q * u_along[:, None] + total.d * problem.path.along(v))
        for moved in total.along:
            e = e - moved.e * _product(moved.v, v)
        return cls.under(Along(v, e), problem.targets, predictions)

    def x_correct(
        self, problem: Ablations, predictions: Predictions, mean_a: Float[Tensor, "tokens neurons"]
    ) -> Float64[Tensor, "tokens neurons"]:
        """X of the correct token; mean_a: Σ p·a."""
        l_correct, b_correct = predictions.centred_correct()
        q, d = problem.r.double() - 1, problem.r.double() * problem.c
        a_correct = problem.path.of_tokens(problem.targets).double() - mean_a
        x_correct = q * (l_correct - b_correct)[:, None] + d * a_correct + self.along.e.double() * self.correct
        for moved in problem.total.along:
            x_correct += moved.e.double() * CentredAlong.under(moved, problem.targets, predictions).correct
        return x_correct


def _product(
    v: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"],
    w: Float[Tensor, "d_vocab"] | Float[Tensor, "tokens d_vocab"],
) -> Float[Tensor, "tokens 1"] | Float[Tensor, "1"]:
    """v·w, where each is one direction for all tokens or one a token."""
    along: Tensor = torch.linalg.vecdot(v, w)
    return along[..., None]
