"""Total and direct effects of ablating neurons of the last layer (§3.2, Eq. 4-6).

x is the residual stream after the last block, s the final norm's scale of it, n_i a neuron's activation and
δ_i = target − n_i. Ablating neuron i gives x′ = x + δ_i·w_out_i (Eq. 4). The total effect recomputes the norm; the
direct effect holds its scale at s (Eq. 6), so what only the total shows went through the final LayerNorm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from numpy.typing import NDArray
from torch import Tensor

from backend.core.metrics.jackknife import Array, GroupSums, JackknifeEstimate


@dataclass(frozen=True)
class TokenBatch:
    """Positions that count, with what the model computed there."""

    residual: Float[Tensor, "tokens d_model"]
    """x"""
    activations: Float[Tensor, "tokens neurons"]
    """n"""
    targets: Int[Tensor, "tokens"]
    """The next tokens."""
    mlp_raw: Float[Tensor, "tokens d_model"] | None = None
    """What the MLP writes before the norm that follows it (`PostNorm.before`). None where no norm does, or where
    `activations` are those of all of the layer's neurons, from which it follows."""

    def at(self, tokens: slice) -> Self:
        """Some of the positions."""
        raw = None if self.mlp_raw is None else self.mlp_raw[tokens]
        return type(self)(self.residual[tokens], self.activations[tokens], self.targets[tokens], raw)


BESIDE_A_DIRECTION = "delta_loss_freq"
"""The statistic that is there only where token frequencies, and so a direction of the logits, are known."""
SUMMED_DISTANCE = "delta_kl"
"""The statistic that a kernel sums only where the logits have a soft-cap: else it follows from the change of loss."""


@dataclass(frozen=True, kw_only=True)
class PairStatistics:
    """What ablating neuron i changes at token t, after − before: what a kernel computes of every pair."""

    delta_loss: Float[Tensor, "tokens neurons"]
    """Final norm recomputed, nats."""
    delta_loss_frozen: Float[Tensor, "tokens neurons"]
    """Final norm's scale frozen (Eq. 6), nats."""
    delta_entropy: Float[Tensor, "tokens neurons"]
    """Final norm recomputed, nats."""
    delta_entropy_frozen: Float[Tensor, "tokens neurons"]
    """Final norm's scale frozen, nats."""
    rank: Int[Tensor, "tokens neurons"]
    """The correct token's rank after ablation, norm recomputed; from 1."""
    changed: Bool[Tensor, "tokens neurons"]
    """Whether some token now beats the token that was most probable before (norm recomputed)."""
    delta_loss_freq: Float[Tensor, "tokens neurons"] | None = None
    """The change of loss with the logits' component along v_freq as it was (Eq. 8), nats; None without frequencies."""
    delta_kl: Float[Tensor, "tokens neurons"] | None = None
    """The change of D_KL(P_freq‖P), nats; None where token frequencies are not known."""


@dataclass(frozen=True, kw_only=True)
class Effects(PairStatistics):
    """What ablating each neuron alone changes at every token, beside what the model predicted there by itself."""

    before_loss: Float[Tensor, "tokens"]
    """Nats."""
    before_entropy: Float[Tensor, "tokens"]
    """Nats."""
    before_rank: Int[Tensor, "tokens"]
    """The correct token's, from 1."""
    before_kl: Float[Tensor, "tokens"] | None = None
    """D_KL(P_freq‖P), nats; None, as the change of it, where token frequencies are not known."""

    def at(self, tokens: slice | Bool[Tensor, "tokens"]) -> Self:
        """At some of the tokens."""
        return replace(self, **{name: values[tokens] for name, values in vars(self).items() if values is not None})

    @property
    def delta_reciprocal_rank(self) -> Float64[Tensor, "tokens neurons"]:
        """Change of 1/rank of the correct token."""
        return 1 / self.rank.double() - 1 / self.before_rank.double()[:, None]


AT_TOKENS = (
    "delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen", "delta_loss_freq", "delta_kl",
)  # fmt: skip
"""Fields of `Effects` that a run keeps of some tokens, for box plots and scatters."""


@dataclass(frozen=True)
class TokenMean:
    """A metric that is a mean over tokens: of which field of `Effects`, and of what function of it."""

    field: str
    of: Callable[[Tensor], Tensor] = lambda values: values


MEANS: dict[str, TokenMean] = {
    "total_effect": TokenMean("delta_loss", Tensor.abs),
    "direct_effect_ln": TokenMean("delta_loss_frozen", Tensor.abs),
    "delta_loss": TokenMean("delta_loss"),
    "loss_increase_share": TokenMean("delta_loss", lambda change: change > 0),
    "delta_entropy": TokenMean("delta_entropy"),
    "abs_delta_entropy": TokenMean("delta_entropy", Tensor.abs),
    "delta_reciprocal_rank": TokenMean("delta_reciprocal_rank", Tensor.abs),
    "prediction_change": TokenMean("changed"),
    "direct_effect_freq": TokenMean("delta_loss_freq", Tensor.abs),
    "delta_kl": TokenMean("delta_kl"),
    "abs_delta_kl": TokenMean("delta_kl", Tensor.abs),
}
"""Every effect metric that is a mean over tokens, by its name in the glossary, which says what it means. Where its
field is None the metric is left out. Sums, standard errors and the atlas's columns follow from here."""

SHARES = {"ln_mediated": "direct_effect_ln", "freq_mediated": "direct_effect_freq"}
"""Metrics 1 − direct/total: the share of the total effect that a direct effect leaves out."""

_BEFORE = {"before_loss": TokenMean("before_loss"), "before_entropy": TokenMean("before_entropy")}
"""What the model did by itself, one number a token."""


@dataclass(frozen=True)
class EffectSums:
    """Sums over tokens, by group of sequences, from which all effect metrics and their errors follow."""

    by_group: GroupSums
    """Of every mean's summands, [groups, neurons], and of the loss and the entropy before, [groups]."""

    @classmethod
    def of(cls, effects: Effects, groups: int | Int64[NDArray[np.int64], "tokens"] = 0) -> Self:
        """The sums of one batch.

        Args:
            groups: the group that all tokens' sequences are dealt to, or that of each token.
        """
        values = {name: (mean.of, getattr(effects, mean.field)) for name, mean in (MEANS | _BEFORE).items()}
        summands = {name: of(tensor) for name, (of, tensor) in values.items() if tensor is not None}
        if isinstance(groups, int):
            totals = {name: q.sum(dim=0, keepdim=True, dtype=torch.float64) for name, q in summands.items()}
            counts = np.array([float(len(effects.before_loss))])
            return cls(GroupSums(np.array([groups]), counts, _copied(totals)))
        if effects.before_loss.device.type == "cpu":
            return cls(GroupSums.of({name: q.numpy() for name, q in summands.items()}, groups))
        known, place = np.unique(groups, return_inverse=True)
        counts = np.bincount(place, minlength=len(known)).astype(np.float64)
        belongs = torch.from_numpy(place == np.arange(len(known))[:, None]).double().to(effects.before_loss.device)
        return cls(GroupSums(known, counts, _copied({name: belongs @ q.double() for name, q in summands.items()})))

    @property
    def count(self) -> int:
        """Tokens."""
        return self.by_group.count

    @property
    def groups(self) -> int:
        """Groups of sequences behind the errors."""
        return len(self.by_group.groups)

    def plus(self, other: Self) -> Self:
        """The sums of both batches."""
        return type(self)(self.by_group.plus(other.by_group))

    def of_group(self, place: int, group: int) -> Self:
        """Those of one of the groups alone, which takes another number.

        Args:
            place: the group's among those that have been met.
        """
        its, sums = slice(place, place + 1), self.by_group
        totals = {name: total[its] for name, total in sums.totals.items()}
        return type(self)(GroupSums(np.array([group]), sums.counts[its], totals))

    @classmethod
    def beside(cls, parts: Sequence[Self]) -> Self:
        """The sums of different neurons over the same tokens, side by side."""
        first = parts[0].by_group
        totals = {
            name: total if name in _BEFORE else np.concatenate([part.by_group.totals[name] for part in parts], axis=1)
            for name, total in first.totals.items()
        }
        return cls(GroupSums(first.groups, first.counts, totals))

    def before(self, name: Literal["loss", "entropy"]) -> JackknifeEstimate:
        """The mean of what the model had before anything was ablated."""
        return self.by_group.mean(f"before_{name}")

    def columns(self) -> dict[str, Float64[Array, "neurons"]]:
        """The effect metrics and their standard errors by name, in the glossary's units."""
        known = self.by_group.totals
        columns: dict[str, Array] = {}
        for name in known:
            if name not in _BEFORE:
                columns |= _column(name, self.by_group.mean(name))
        for share, direct in SHARES.items():
            if direct in known:
                columns |= _column(share, self.by_group.estimate(partial(_left_out, direct)))
        return columns

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For storing a shard; `from_arrays` reads it back."""
        return self.by_group.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave; arrays of other names are left alone."""
        return cls(GroupSums.from_arrays(arrays))


def _copied(totals: Mapping[str, Tensor]) -> dict[str, Array]:
    """Tensors as arrays, copied from their device together: each copy waits for all that was asked of it before."""
    copied = torch.cat([total.flatten() for total in totals.values()]).cpu()
    parts = copied.split([total.numel() for total in totals.values()])
    return {name: part.reshape(total.shape).numpy() for (name, total), part in zip(totals.items(), parts, strict=True)}


def _left_out(direct: str, means: Mapping[str, Array]) -> Array:
    """The share of the total effect that a direct effect leaves out."""
    return 1 - means[direct] / means["total_effect"]


def _column(name: str, estimate: JackknifeEstimate) -> dict[str, Array]:
    return {name: estimate.value, f"{name}_se": estimate.error}
