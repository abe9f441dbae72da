"""The sample of a run: its tokens, and what the model computed on them.

Traces are kept on disk while the run is unfinished, one safetensors file a shard, so that a killed run does not run the
model again; a file that is missing, damaged, or made from anything else is made again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.metrics.distributions import distribution
from backend.core.metrics.jackknife import deal
from backend.core.models.analysis_model import AnalysisModel
from precompute.config import SHARD_SEQUENCES, SHARD_TOKENS
from precompute.corpus import Tokens, counted_positions, tokens_hash
from precompute.kept import fingerprint, keep, kept

_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Measured:
    """Whole sequences of one group, whose effects are one shard."""

    group: int
    places: NDArray[np.int64]
    """Flat indices of their counted positions, sequence by sequence; at least one."""


@dataclass(frozen=True)
class Sample:
    """Token sequences, which of their positions count, and the groups that errors are taken over."""

    tokens: Tokens
    """[sequences, seq_len]"""
    counted: NDArray[np.int64]
    """Flat indices of the counted positions, ascending."""
    groups: NDArray[np.int64]
    """The group that each sequence is dealt to, at random by seed, [sequences]."""
    seed: int
    uncounted: frozenset[int]
    """Tokens at which, or before which, no effect is measured."""

    @classmethod
    def of(cls, tokens: Tokens, uncounted: frozenset[int], seed: int) -> "Sample":
        counted = np.flatnonzero(counted_positions(tokens, uncounted))
        return cls(tokens, counted, deal(len(tokens), seed), seed, uncounted)

    @property
    def measured(self) -> list[Measured]:
        """The shards of the effects, in the order in which they are measured.

        Groups take turns, and each sequence is in the next group by chance: the shards of an unfinished run are a fair
        sample of sequences out of as many groups as can be, so that its means are unbiased and its errors shrink.
        """
        sequences, length = self.tokens.shape
        together, chance = max(1, SHARD_TOKENS // length), np.random.default_rng(self.seed)
        waiting = [chance.permutation(np.flatnonzero(self.groups == group)) for group in np.unique(self.groups)]
        by_sequence = np.split(self.counted, np.searchsorted(self.counted, np.arange(1, sequences) * length))
        shards = []
        while any(len(sequences_left) for sequences_left in waiting):
            for group, sequences_left in enumerate(waiting):
                places = np.concatenate(
                    [self.counted[:0], *(by_sequence[sequence] for sequence in sequences_left[:together])]
                )
                if len(places):
                    shards.append(Measured(group, places))
            waiting = [sequences_left[together:] for sequences_left in waiting]
        return shards

    def some_places(self, count: int) -> NDArray[np.int64]:
        """Flat indices of so many counted positions, drawn at random from all of them; all, where there are fewer."""
        return np.random.default_rng(self.seed).permutation(self.counted)[:count]

    @property
    def shards(self) -> list[slice]:
        """The sequences of every activation shard."""
        count = len(self.tokens)
        return [slice(start, min(start + SHARD_SEQUENCES, count)) for start in range(0, count, SHARD_SEQUENCES)]


@dataclass(frozen=True)
class TracedShard:
    """A shard's sequences through the model; the leading axes are [sequence, position]."""

    residual: Tensor
    activations: Tensor
    loss: Tensor
    """Of the token that follows; 0 at the last position, where none does."""
    entropy: Tensor
    rank: Tensor
    predicted: Tensor
    """The sum of the predictions at all its positions, [d_vocab], float64."""


def traces_fingerprint(model: AnalysisModel, sample: Sample, layer: int, weights_hash: str, made_by: str) -> str:
    """Everything that decides what a sample's traces hold, to the last bit.

    Args:
        made_by: a fingerprint of the code, packages and device that compute them.
    """
    return fingerprint(
        weights=weights_hash,
        layer=layer,
        tokens=tokens_hash(sample.tokens),
        shards=[(shard.start, shard.stop) for shard in sample.shards],
        dtype=str(model.readout.W_U.dtype),
        made_by=made_by,
    )


class Traces:
    """Traced shards by index, computed once and kept in `folder`, marked with what they are `made_from`."""

    def __init__(self, model: AnalysisModel, sample: Sample, folder: Path, layer: int, made_from: str) -> None:
        self._model, self._sample, self._folder, self._layer = model, sample, folder, layer
        self._made_from = made_from

    def __getitem__(self, index: int) -> TracedShard:
        path, made_from = self._folder / f"trace-{index:05d}.safetensors", f"{self._made_from}:{index}"
        tensors = kept(path, made_from)
        if tensors is not None:
            return TracedShard(**tensors)
        shard = self._compute(self._sample.shards[index])
        keep(path, vars(shard), made_from)
        return shard

    def _compute(self, sequences: slice) -> TracedShard:
        tokens = torch.from_numpy(self._sample.tokens[sequences])
        trace = self._model.trace(tokens, self._layer)
        targets = torch.cat([tokens[:, 1:], tokens[:, -1:]], dim=1).to(trace.residual.device)
        loss, entropy, rank, predicted = self._predictions(trace.residual.flatten(0, 1), targets.flatten())
        loss = loss.reshape(tokens.shape)
        loss[:, -1] = 0
        return TracedShard(
            trace.residual.cpu(),
            trace.activations.cpu(),
            loss,
            entropy.reshape(tokens.shape),
            rank.reshape(tokens.shape),
            predicted,
        )

    def _predictions(self, residual: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        readout = self._model.readout
        parts = []
        predicted = torch.zeros(readout.W_U.shape[1], dtype=torch.float64, device=residual.device)
        for x, target in zip(residual.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True):
            centred = readout.centred(x)
            logits = readout.logits(centred, readout.scale(centred))
            parts.append(distribution(logits, target))
            predicted += logits.softmax(dim=1).sum(dim=0, dtype=torch.float64)
        loss, entropy, rank = (
            torch.cat([getattr(p, name) for p in parts]).cpu() for name in ("loss", "entropy", "rank")
        )
        return loss, entropy, rank, predicted.cpu()


class GatheredPositions:
    """Residuals and activations of all positions of the sample, gathered by flat index."""

    def __init__(self, sample: Sample, traces: Traces) -> None:
        self._tokens = torch.from_numpy(sample.tokens).flatten()
        shards = [traces[index] for index in range(len(sample.shards))]
        self.residual = torch.cat([shard.residual.flatten(0, 1) for shard in shards])
        self.activations = torch.cat([shard.activations.flatten(0, 1) for shard in shards])

    def at(self, places: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Residual [n, d_model], activations [n, d_mlp] and next tokens [n] at flat indices."""
        index = torch.from_numpy(places)
        return self.residual[index].to(device), self.activations[index].to(device), self._tokens[index + 1].to(device)
