"""The sample of a run: its tokens, and what the model computed on them.

Traces are kept on disk, one safetensors file a shard, so that a killed run does not run the model again, and so that
effects can be measured where the model is not. Where the model is, a file that is missing, damaged, or made from
anything else is made again.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import SourceError
from backend.core.metrics.distributions import distribution
from backend.core.metrics.jackknife import deal
from backend.core.models.analysis_model import AnalysisModel
from precompute.config import SHARD_SEQUENCES, SHARD_TOKENS
from precompute.corpus import Tokens, counted_positions
from precompute.kept import Layout, keep, kept

_ROWS_AT_ONCE = 128
_MOST_RECENT_BYTES = 1 << 29
"""Of shards that stay in memory after they were read; one stays in any case."""


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

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return sum(tensor.nbytes for tensor in vars(self).values())


@dataclass(frozen=True)
class Sizes:
    """How many of each a traced model has."""

    d_model: int
    neurons: int
    d_vocab: int


class KeptTraces:
    """Traced shards by index out of a folder, each marked with what all are `made_from`."""

    def __init__(self, sample: Sample, folder: Path, made_from: str, sizes: Sizes) -> None:
        self._sample, self._folder, self._made_from, self.sizes = sample, folder, made_from, sizes
        self._recent: OrderedDict[int, TracedShard] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sample.shards)

    def __getitem__(self, index: int) -> TracedShard:
        """A shard as it was traced.

        Raises:
            SourceError: its file is missing, or is not as it was written.
        """
        shard = self._recent.pop(index, None)
        if shard is None:
            shard = self.read(index) or self._missing(index)
        self._recent[index] = shard
        while len(self._recent) > max(1, _MOST_RECENT_BYTES // shard.bytes):
            self._recent.popitem(last=False)
        return shard

    def read(self, index: int) -> TracedShard | None:
        """A shard out of its file; None where that is missing or not as it was written."""
        tensors = kept(self.path(index), self.mark(index), self._layout(index))
        return None if tensors is None else TracedShard(**tensors)

    def path(self, index: int) -> Path:
        """The file of a shard."""
        return self._folder / f"trace-{index:05d}.safetensors"

    def mark(self, index: int) -> str:
        """What the file of a shard says that it is made from."""
        return f"{self._made_from}:{index}"

    def _missing(self, index: int) -> TracedShard:
        path = self.path(index)
        what = "is damaged, or is of another capture" if path.exists() else "is not there"
        raise SourceError(
            f"{path.name} in {self._folder} {what}. Where the model is, repeat the `calibroscope capture` that made "
            "this folder: it keeps what is whole and makes the rest; then copy the folder again."
        )

    def _layout(self, index: int) -> Layout:
        shard, sizes = self._sample.shards[index], self.sizes
        sequences, length = shard.stop - shard.start, self._sample.tokens.shape[1]
        by_position = {"loss": "F32", "entropy": "F32", "rank": "I64"}
        return {
            "residual": ("F32", (sequences, length, sizes.d_model)),
            "activations": ("F32", (sequences, length, sizes.neurons)),
            "predicted": ("F64", (sizes.d_vocab,)),
        } | {name: (kind, (sequences, length)) for name, kind in by_position.items()}


class Traces(KeptTraces):
    """Traced shards by index: what the folder does not have whole, the model computes, once."""

    def __init__(self, model: AnalysisModel, sample: Sample, folder: Path, layer: int, made_from: str) -> None:
        sizes = Sizes(model.d_model, len(model.readout_of(layer).W_out), model.d_vocab)
        super().__init__(sample, folder, made_from, sizes)
        self._model, self._layer = model, layer

    def _missing(self, index: int) -> TracedShard:
        shard = self._compute(self._sample.shards[index])
        keep(self.path(index), vars(shard), self.mark(index))
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
    """Residuals and activations at positions of the sample, gathered by flat index."""

    def __init__(self, sample: Sample, traces: KeptTraces) -> None:
        self._tokens, self._length = torch.from_numpy(sample.tokens).flatten(), sample.tokens.shape[1]
        self._traces, self._starts = traces, np.array([shard.start for shard in sample.shards])

    def at(self, places: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Residual [n, d_model], activations [n, neurons] and next tokens [n] at flat indices."""
        shards = np.searchsorted(self._starts * self._length, places, side="right") - 1
        sizes = self._traces.sizes
        residual, activations = torch.empty(len(places), sizes.d_model), torch.empty(len(places), sizes.neurons)
        for index in np.unique(shards):
            shard, here = self._traces[int(index)], torch.from_numpy(shards == index)
            within = torch.from_numpy(places[shards == index] - self._starts[index] * self._length)
            residual[here] = shard.residual.flatten(0, 1)[within]
            activations[here] = shard.activations.flatten(0, 1)[within]
        return residual.to(device), activations.to(device), self._tokens[torch.from_numpy(places) + 1].to(device)
