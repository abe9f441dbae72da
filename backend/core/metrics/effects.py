"""Total and direct effects of ablating neurons of the last layer (§3.2, Eq. 4-6).

x is the residual stream after the last block, s the final norm's scale of it, n_i a neuron's activation and
δ_i = target − n_i. Ablating neuron i gives x′ = x + δ_i·w_out_i (Eq. 4). The total effect recomputes the norm; the
direct effect holds its scale at s (Eq. 6), so what only the total shows went through the final LayerNorm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.kernels.choose import DEFAULT_MEMORY, Mode, Tiles, choose_kernel
from backend.core.kernels.plain import Before, DirectPath, PairStatistics, Problem
from backend.core.metrics.frequency import Unigram, read_by
from backend.core.metrics.jackknife import Array, Estimate, GroupSums

NormKind = Literal["LayerNorm", "RMSNorm"]


@dataclass(frozen=True)
class Readout:
    """The last steps of a model, from the residual stream to the logits, after weight processing.

    logits = (x̃ / s)·W_U + b_U, with x̃ = x (RMSNorm) or x less its mean (LayerNorm), s = √(mean(x̃²) + eps).
    """

    W_out: Tensor
    """[n_neurons, d_model]; for LayerNorm its rows have mean 0."""
    W_U: Tensor
    """[d_model, d_vocab]"""
    b_U: Tensor | None
    """[d_vocab], or None where it is zero."""
    norm: NormKind
    eps: float

    def centred(self, x: Tensor) -> Tensor:
        """x̃, [..., d_model]."""
        return x - x.mean(dim=-1, keepdim=True) if self.norm == "LayerNorm" else x

    def scale(self, centred: Tensor) -> Tensor:
        """s of an already centred x̃, [...]."""
        return (centred.square().mean(dim=-1) + self.eps).sqrt()

    def logits(self, centred: Tensor, scale: Tensor) -> Tensor:
        """[..., d_vocab]"""
        logits = (centred / scale[..., None]) @ self.W_U
        return logits if self.b_U is None else logits + self.b_U

    def rescaled(self, frozen: Tensor, r: Tensor) -> Tensor:
        """Logits with the norm recomputed from those with its scale frozen, [..., d_vocab]; r = s/s′, [...]."""
        if self.b_U is None:
            return frozen * r[..., None]
        return (frozen - self.b_U) * r[..., None] + self.b_U

    def direct_logits(self, neurons: slice | Tensor = slice(None)) -> Tensor:
        """A = W_out·W_U for the chosen neurons, [n_chosen, d_vocab]."""
        return self.W_out[neurons] @ self.W_U

    def ablated_scale(self, centred: Tensor, scale: Tensor, deltas: Tensor) -> Tensor:
        """s′ for every (token, neuron), [tokens, n_neurons], without forming x′.

        ‖x̃ + δw‖² = ‖x̃‖² + 2δ·x̃ᵀw + δ²‖w‖².
        """
        rows = self.centred(self.W_out)
        change = deltas * (2 * (centred @ rows.T) + deltas * rows.square().sum(dim=1))
        # The norm cannot fall below zero; rounding can take it there when an ablation nearly cancels the stream.
        return (scale.square()[:, None] + change / centred.shape[-1]).clamp_min(self.eps).sqrt()


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


class EffectsEngine:
    """Effects of all neurons of a readout, by the fastest kernel for its device, within a bound on memory."""

    def __init__(
        self, readout: Readout, mode: Mode = "exact", memory: int = DEFAULT_MEMORY, unigram: Unigram | None = None
    ) -> None:
        """
        Args:
            memory: bytes that the engine's own tensors may take; smaller tiles change no result beyond rounding.
            unigram: token frequencies, which the effects on and through them need; None leaves those out.
        """
        self.readout, self.kernel = readout, choose_kernel(readout.W_U.device, mode)
        self._frequency = None if unigram is None else Frequency.of(readout, unigram)
        self.tiles = Tiles.within(memory, len(readout.W_out), readout.W_U.shape[1], unigram is not None)
        self._kept: DirectPath | None = None

    def effects(self, batch: TokenBatch, targets: Tensor) -> Effects:
        """What setting each neuron to its target does at each token.

        Args:
            targets: the activation that replaces each neuron's, [n_neurons] (mean ablation: the reference means).
        """
        size = self.tiles.tokens
        columns = (torch.split(column, size) for column in (batch.residual, batch.activations, batch.targets))
        parts = [self._tile(TokenBatch(*rows), targets) for rows in zip(*columns, strict=True)]
        return parts[0] if len(parts) == 1 else Effects(**_joined(parts, dim=0))

    def _tile(self, batch: TokenBatch, targets: Tensor) -> Effects:
        readout = self.readout
        centred = readout.centred(batch.residual)
        scale = readout.scale(centred)
        logits = readout.logits(centred, scale)
        deltas = targets - batch.activations
        c = deltas / scale[:, None]
        r = scale[:, None] / readout.ablated_scale(centred, scale, deltas)
        before = Before.of(logits, batch.targets, readout.b_U)
        frequency = self._frequency
        direction = None if frequency is None else frequency.direction
        parts = []
        for part, path in self._paths():
            own = (c[:, part].contiguous(), r[:, part].contiguous())
            problem = Problem(logits, batch.targets, *own, path, readout.b_U, direction)
            pairs = self.kernel.every_pair(problem, before)
            told = {} if frequency is None else frequency.told(problem, before, pairs)
            parts.append(effects_of(before, pairs, told))
        return parts[0] if len(parts) == 1 else joined_effects(parts)

    def _paths(self) -> Iterator[tuple[slice, DirectPath]]:
        """A by slabs of neurons: kept if it is one slab, else formed anew each time."""
        readout, size = self.readout, self.tiles.neurons
        n_neurons = len(readout.W_out)
        if size >= n_neurons:
            self._kept = self._kept or DirectPath.of(readout.W_out, readout.W_U, keep_powers=self.tiles.keep_powers)
            yield slice(0, n_neurons), self._kept
            return
        for start in range(0, n_neurons, size):
            part = slice(start, min(start + size, n_neurons))
            yield part, DirectPath.of(readout.W_out[part], readout.W_U)


@dataclass(frozen=True)
class Frequency:
    """Token frequencies as the effects of one readout need them."""

    unigram: Unigram
    direction: Tensor
    """v̂, [d_vocab], in the readout's precision and on its device."""
    read: Tensor
    """W_U·P_freq, [d_model], float64."""

    @classmethod
    def of(cls, readout: Readout, unigram: Unigram) -> Self:
        placed = Unigram(unigram.p.to(readout.W_U.device))
        return cls(placed, placed.direction.to(readout.W_U), read_by(readout.W_U, placed.p))

    def told(self, problem: Problem, before: Before, pairs: PairStatistics) -> dict[str, Tensor | None]:
        """The fields of `Effects` that are about token frequency."""
        mean_a = problem.path.W_out.double() @ self.read
        predictions = before.predictions
        return {
            "before_kl": self.unigram.divergence(predictions),
            "delta_kl": self.unigram.delta_divergence(problem, predictions, mean_a, pairs.delta_loss),
            "delta_loss_freq": pairs.delta_loss_freq,
        }


def ablation_effects(
    readout: Readout, batch: TokenBatch, targets: Tensor, unigram: Unigram | None = None
) -> Effects:  # fmt: skip
    """What setting each neuron to its target does at each token; for many batches keep an `EffectsEngine`."""
    return EffectsEngine(readout, unigram=unigram).effects(batch, targets)


def _joined(parts: Sequence[Any], dim: int) -> dict[str, Tensor]:
    """The tensors of all parts together; what is None is left out."""
    names = [f.name for f in fields(parts[0]) if getattr(parts[0], f.name) is not None]
    return {name: torch.cat([getattr(part, name) for part in parts], dim=dim) for name in names}


def effects_of(before: Before, pairs: PairStatistics, told: Mapping[str, Tensor | None]) -> Effects:
    """What the kernels found, beside the predictions before; told: what `Frequency.told` adds."""
    return Effects(
        before_loss=before.loss,
        before_entropy=before.entropy,
        before_rank=before.rank,
        delta_loss=pairs.delta_loss,
        delta_loss_frozen=pairs.delta_loss_frozen,
        delta_entropy=pairs.delta_entropy,
        delta_entropy_frozen=pairs.delta_entropy_frozen,
        delta_reciprocal_rank=1 / pairs.rank.double() - 1 / before.rank.double()[:, None],
        changed=pairs.changed,
        **told,
    )


def joined_effects(parts: Sequence[Effects]) -> Effects:
    """Effects of different neurons on the same tokens, side by side."""
    columns = _joined(parts, dim=-1)
    return Effects(
        **{name: getattr(parts[0], name) if name.startswith("before_") else columns[name] for name in columns}
    )


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
