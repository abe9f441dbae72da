"""Effects of all neurons of a readout: tokens and neurons in tiles, by the kernel that was chosen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from backend.core.kernels.choose import DEFAULT_MEMORY, Kernel, Mode, Tiles, choose_kernel
from backend.core.kernels.problem import Ablations, Along, Before, DirectPath, along_component
from backend.core.metrics.effects import Effects, EffectSums, PairStatistics, TokenBatch
from backend.core.metrics.frequency import Unigram, delta_divergence, read_by
from backend.core.models.readout import Readout


class Distances(NamedTuple):
    """D_KL(P_freq‖P), nats: before, and what every ablation adds to it."""

    before: Float64[Tensor, "tokens"]
    delta: Float64[Tensor, "tokens neurons"]


def kernel_of(readout: Readout, mode: Mode = "exact") -> Kernel:
    """The kernel that computes a readout's effects."""
    return choose_kernel(readout.W_U.device, mode, along=readout.post_norm is not None, softcap=readout.softcap)


class EffectsEngine:
    """Effects of all neurons of a readout, by the fastest kernel for its device, within a bound on memory."""

    def __init__(
        self, readout: Readout, mode: Mode = "exact", memory: int = DEFAULT_MEMORY, unigram: Unigram | None = None
    ) -> None:
        """An engine for one readout; what its batches have in common is computed once.

        Args:
            mode: `exact`, or `survey`, whose errors are bounded.
            memory: bytes that the engine's own tensors may take; smaller tiles change no result beyond rounding.
            unigram: token frequencies, which the effects on and through them need; None leaves those out.
        """
        self.readout = readout
        self.kernel = kernel_of(readout, mode)
        self._frequency = None if unigram is None else UnigramReadout.of(readout, unigram)
        n_neurons, d_model = readout.W_out.shape
        self.tiles = Tiles.within(memory, n_neurons, d_model, readout.W_U.shape[1])
        self._kept: DirectPath | None = None

    @property
    def tokens_together(self) -> int:
        """How many tokens are best given at once: where A does not fit, each of its slabs is formed for so many."""
        return 1 if self.tiles.neurons >= len(self.readout.W_out) else self.tiles.block

    def effects(self, batch: TokenBatch, targets: Float[Tensor, "neurons"]) -> Effects:
        """What setting each neuron to its target does at each token.

        Args:
            targets: the activation that replaces each neuron's (mean ablation: the reference means).
        """
        slabs: dict[int, list[Effects]] = {}
        for piece in self._pieces(batch, targets):
            slabs.setdefault(piece.neurons.start, []).append(piece.effects)
        columns = [parts[0] if len(parts) == 1 else Effects(**_joined(parts, dim=0)) for parts in slabs.values()]
        return columns[0] if len(columns) == 1 else joined_effects(columns)

    def sums(
        self,
        batch: TokenBatch,
        targets: Float[Tensor, "neurons"],
        groups: Int64[NDArray[np.int64], "tokens"],
        chosen: Bool[Tensor, "tokens"],
        advance: Callable[[int], None] = lambda _: None,
    ) -> tuple[EffectSums, Effects]:
        """The sums by group of what `effects` would give, and all of the chosen tokens' effects; no more is kept.

        Args:
            groups: the group that each token's sequence is dealt to.
            advance: called on the way with how many tokens more are done; in the end with all.
        """
        n_neurons, pairs = len(targets), 0
        slabs: dict[int, tuple[list[EffectSums], list[Effects]]] = {}
        for piece in self._pieces(batch, targets):
            sums, kept = slabs.setdefault(piece.neurons.start, ([], []))
            sums.append(EffectSums.of(piece.effects, groups[piece.tokens]))
            kept.append(piece.effects.at(chosen[piece.tokens]))
            done, pairs = pairs // n_neurons, pairs + piece.effects.delta_loss.numel()
            advance(pairs // n_neurons - done)
        columns = [Effects(**_joined(kept, dim=0)) for _, kept in slabs.values()]
        totals = [reduce(EffectSums.plus, sums) for sums, _ in slabs.values()]
        return EffectSums.beside(totals), columns[0] if len(columns) == 1 else joined_effects(columns)

    def _pieces(self, batch: TokenBatch, targets: Tensor) -> Iterator["_Piece"]:
        """The effects by tiles of tokens, inside slabs of neurons, inside blocks of as many tokens as can be.

        A slab of A is formed once a block. What is of the tokens alone is computed with the first slab; of that the
        predictions are too large to be kept for the others, and are computed once more for each.
        """
        block, size, count = self.tiles.block, self.tiles.tokens, len(batch.targets)
        batch = self._with_mlp_raw(batch)
        for first in range(0, count, block):
            stop = min(first + block, count)
            tiles = [slice(start, min(start + size, stop)) for start in range(first, stop, size)]
            known: dict[int, Before] = {}
            for neurons, path in self._paths():
                for tile in tiles:
                    some = batch.at(tile)
                    effects, before = self._piece(some, targets, neurons, path, known.get(tile.start))
                    if self._kept is None:
                        known[tile.start] = before.without_rows()
                    yield _Piece(tile, neurons, effects)

    def _piece(
        self, batch: TokenBatch, targets: Tensor, neurons: slice, path: DirectPath, known: Before | None
    ) -> tuple[Effects, Before]:
        frequency = self._frequency
        readout = self.readout if path is self._kept else replace(self.readout.of_neurons(neurons), W_out=path.W_out)
        centred = readout.centred(batch.residual)
        scale = readout.scale(centred)
        logits = readout.uncapped(centred, scale)
        m = batch.mlp_raw
        change = readout.change(centred, scale, targets[neurons] - batch.activations[:, neurons], m)
        if known is None:
            before = Before.of(logits, batch.targets, readout.b_U, readout.softcap)
        else:
            before = known.with_rows(logits, readout.softcap)
        problem = Ablations(
            logits,
            batch.targets,
            change.c,
            change.r,
            path,
            readout.b_U,
            fixed_direction=None if frequency is None else frequency.direction,
            along=None if m is None or change.e is None else Along(readout.gained(m) @ readout.W_U, change.e),
            softcap=readout.softcap,
            p_freq=None if frequency is None or readout.softcap is None else frequency.p,
        )
        pairs = self.kernel.every_pair(problem, before)
        distances = None if frequency is None else frequency.distances(problem, before, pairs)
        return effects_of(before, pairs, distances), before

    def _with_mlp_raw(self, batch: TokenBatch) -> TokenBatch:
        """With what the MLP writes before a norm that follows it."""
        post = self.readout.post_norm
        if post is None or batch.mlp_raw is not None:
            return batch
        return replace(batch, mlp_raw=post.before(batch.activations))

    def _paths(self) -> Iterator[tuple[slice, DirectPath]]:
        """A by slabs of neurons: kept if it is one slab, else formed anew each time, with its powers either way."""
        readout, size = self.readout, self.tiles.neurons
        n_neurons = len(readout.W_out)
        if size >= n_neurons:
            self._kept = self._kept or DirectPath.of(readout.W_out, readout.W_U, keep_powers=self.tiles.keep_powers)
            yield slice(0, n_neurons), self._kept
            return
        for start in range(0, n_neurons, size):
            part = slice(start, min(start + size, n_neurons))
            yield part, DirectPath.of(readout.W_out[part], readout.W_U, keep_powers=self.tiles.keep_powers)


class _Piece(NamedTuple):
    """What some neurons do at some tokens."""

    tokens: slice
    neurons: slice
    effects: Effects


@dataclass(frozen=True)
class UnigramReadout:
    """Token frequencies as the logits of one readout meet them."""

    unigram: Unigram
    direction: Float[Tensor, "d_vocab"]
    """v̂ of v_freq, in the readout's precision and on its device."""
    read: Float64[Tensor, "d_model"]
    """W_U·P_freq"""
    p: Float[Tensor, "d_vocab"]
    """P_freq, in the readout's precision and on its device."""

    @classmethod
    def of(cls, readout: Readout, unigram: Unigram) -> Self:
        """Of a readout and P_freq over its vocabulary."""
        placed = Unigram(unigram.p.to(readout.W_U.device))
        W_U = readout.W_U
        return cls(placed, placed.direction.to(W_U), read_by(W_U, placed.p), placed.p.to(W_U))

    def distances(self, problem: Ablations, before: Before, pairs: PairStatistics) -> Distances:
        """D_KL(P_freq‖P) before, and how every ablation changes it: summed by the kernel, or from the change of
        loss."""
        divergence = self.unigram.divergence(before.predictions.log_p)
        if pairs.delta_kl is not None:
            return Distances(divergence, pairs.delta_kl.double())
        r, path = problem.r.double(), problem.path
        written = r * problem.c * (path.of_tokens(problem.targets).double() - path.W_out.double() @ self.read)
        if problem.along is not None:
            v = problem.along.v
            ahead = problem.along.of_tokens(problem.targets).double() - along_component(v, self.p).double()
            written += r * problem.along.e * ahead.reshape(-1, 1)
        lead = self.unigram.lead(before.predictions, problem.b_U, divergence)
        return Distances(divergence, delta_divergence(pairs.delta_loss, r - 1, lead[:, None], written))


def ablation_effects(
    readout: Readout, batch: TokenBatch, targets: Float[Tensor, "neurons"], unigram: Unigram | None = None
) -> Effects:  # fmt: skip
    """What setting each neuron to its target does at each token; for many batches keep an `EffectsEngine`."""
    return EffectsEngine(readout, unigram=unigram).effects(batch, targets)


def _joined(parts: Sequence[Any], dim: int) -> dict[str, Tensor]:
    """The tensors of all parts together; what is None is left out."""
    names = [f.name for f in fields(parts[0]) if getattr(parts[0], f.name) is not None]
    return {name: torch.cat([getattr(part, name) for part in parts], dim=dim) for name in names}


def effects_of(before: Before, pairs: PairStatistics, distances: Distances | None) -> Effects:
    """What a kernel found of every pair, beside the predictions before."""
    known = {} if distances is None else {"before_kl": distances.before, "delta_kl": distances.delta}
    by_itself = {"before_loss": before.loss, "before_entropy": before.entropy, "before_rank": before.rank}
    return Effects(**(vars(pairs) | by_itself | known))


def joined_effects(parts: Sequence[Effects]) -> Effects:
    """Effects of different neurons on the same tokens, side by side."""
    columns = _joined(parts, dim=-1)
    return Effects(
        **{name: getattr(parts[0], name) if name.startswith("before_") else columns[name] for name in columns}
    )
