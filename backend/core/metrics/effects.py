"""Total and direct effects of ablating neurons of the last layer (§3.2, Eq. 4-6).

x is the residual stream after the last block, s the final norm's scale of it, n_i a neuron's activation and
δ_i = target − n_i. Ablating neuron i gives x′ = x + δ_i·w_out_i (Eq. 4). The total effect recomputes the norm; the
direct effect holds its scale at s (Eq. 6), so what only the total shows went through the final LayerNorm.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.metrics.jackknife import Array, Estimate, GroupSums


@dataclass(frozen=True)
class TokenBatch:
    """Positions that count, with what the model computed there."""

    residual: Tensor
    """x, [tokens, d_model]"""
    activations: Tensor
    """n, [tokens, n_neurons]"""
    targets: Tensor
    """The next tokens, [tokens]"""


@dataclass(frozen=True)
class Effects:
    """Per-token results of ablating each neuron alone. `before_*` are [tokens], the rest [tokens, n_neurons]."""

    before_loss: Tensor
    before_entropy: Tensor
    before_rank: Tensor
    delta_loss: Tensor
    delta_loss_frozen: Tensor
    delta_entropy: Tensor
    delta_entropy_frozen: Tensor
    delta_reciprocal_rank: Tensor
    changed: Tensor
    before_kl: Tensor | None = None
    """D_KL(P_freq‖P); None, as the next two, where token frequencies are not known."""
    delta_kl: Tensor | None = None
    delta_loss_freq: Tensor | None = None
    """The change of loss with the logits' component along v_freq held."""


_MEANS: dict[str, Callable[[Effects], Tensor]] = {
    "total_effect": lambda e: e.delta_loss.abs(),
    "direct_effect_ln": lambda e: e.delta_loss_frozen.abs(),
    "delta_loss": lambda e: e.delta_loss,
    "delta_entropy": lambda e: e.delta_entropy,
    "abs_delta_entropy": lambda e: e.delta_entropy.abs(),
    "delta_reciprocal_rank": lambda e: e.delta_reciprocal_rank.abs(),
    "prediction_change": lambda e: e.changed,
}
"""Every mean over tokens, [tokens, n_neurons] → its summand."""

_FREQUENCY_MEANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "direct_effect_freq": lambda delta_loss, _: delta_loss.abs(),
    "delta_kl": lambda _, delta_kl: delta_kl,
    "abs_delta_kl": lambda _, delta_kl: delta_kl.abs(),
}
"""The same of `delta_loss_freq` and `delta_kl`, where token frequencies are known."""

_SHARES = {"ln_mediated": "direct_effect_ln", "freq_mediated": "direct_effect_freq"}
"""Shares of the total effect that a direct effect leaves out."""


_BEFORE: dict[str, Callable[[Effects], Tensor]] = {
    "before_loss": lambda e: e.before_loss,
    "before_entropy": lambda e: e.before_entropy,
}
"""What the model did by itself, [tokens]."""


@dataclass(frozen=True)
class EffectSums:
    """Sums over tokens, by group of sequences, from which all effect metrics and their errors follow."""

    by_group: GroupSums
    """Of every mean's summands, [k, n_neurons], and of the loss and the entropy before, [k]."""

    @classmethod
    def of(cls, effects: Effects, groups: int | NDArray[np.int64] = 0) -> Self:
        """The sums of one batch.

        Args:
            groups: the group that all tokens' sequences are dealt to, or that of each token, [tokens].
        """
        summands = {name: summand(effects) for name, summand in (_MEANS | _BEFORE).items()}
        loss, kl = effects.delta_loss_freq, effects.delta_kl
        if loss is not None and kl is not None:
            summands |= {name: summand(loss, kl) for name, summand in _FREQUENCY_MEANS.items()}
        if isinstance(groups, int):
            totals = {name: q.sum(dim=0, keepdim=True, dtype=torch.float64) for name, q in summands.items()}
            counts = np.array([float(len(effects.before_loss))])
            return cls(GroupSums(np.array([groups]), counts, {n: q.cpu().numpy() for n, q in totals.items()}))
        return cls(GroupSums.of({name: q.cpu().numpy() for name, q in summands.items()}, groups))

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

    def before(self, name: Literal["loss", "entropy"]) -> Estimate:
        """The mean of what the model had before anything was ablated."""
        return self.by_group.mean(f"before_{name}")

    def columns(self) -> dict[str, Array]:
        """The effect metrics and their standard errors by name, each [n_neurons]."""
        known = self.by_group.totals
        columns: dict[str, Array] = {}
        for name in known:
            if name not in _BEFORE:
                columns |= _column(name, self.by_group.mean(name))
        for share, direct in _SHARES.items():
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


def _left_out(direct: str, means: Mapping[str, Array]) -> Array:
    """The share of the total effect that a direct effect leaves out."""
    return 1 - means[direct] / means["total_effect"]


def _column(name: str, estimate: Estimate) -> dict[str, Array]:
    return {name: estimate.value, f"{name}_se": estimate.error}
