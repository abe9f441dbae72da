"""Per-token effects that are kept of a run: behind box plots, per-token scatters and correlations of activations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.atlas.records import PositionsRecord
from backend.core.metrics.effects import AT_TOKENS, Effects
from precompute.sample import Sample

_FEWEST, _MOST = 256, 512
_MOST_VALUES = 4_000_000
"""Bound on neurons × positions, down to _FEWEST positions."""


def most_kept(neurons: int) -> int:
    """At how many positions the effects of so many neurons are kept."""
    return min(_MOST, max(_FEWEST, _MOST_VALUES // neurons))


class TokenEffectSample:
    """Per-token effects at some positions, for box plots and scatters, drawn at random from all that count: so they
    come from nearly all sequences, and those of an unfinished run from all that it has measured."""

    _EFFECTS = ("activation", *AT_TOKENS)
    _PREFIX = "sampled."

    def __init__(
        self,
        sample: Sample,
        most: int,
        strings: Callable[[list[int]], list[str]],
        parts: Mapping[int, dict[str, NDArray[Any]]],
    ) -> None:
        """
        Args:
            most: positions to keep, 0 for none; strings: what tokens are called.
            parts: the shards that are finished, as the atlas has them.
        """
        self._tokens, self._strings, self._wanted = sample.tokens, strings, sample.some_places(most)
        of_shards = {index: _only(arrays, self._PREFIX) for index, arrays in sorted(parts.items())}
        self._kept = {index: [arrays] for index, arrays in of_shards.items() if arrays}

    @property
    def any(self) -> bool:
        """Whether some of the positions have been measured."""
        return bool(self._kept)

    def wants(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some positions are kept."""
        return np.isin(places, self._wanted)

    def add(self, index: int, places: NDArray[np.int64], activations: torch.Tensor, effects: Effects) -> None:
        """Keep those of a shard's positions that are wanted."""
        wanted = torch.from_numpy(self.wants(places))
        if not bool(wanted.any()):
            return
        tensors = {name: getattr(effects, name) for name in AT_TOKENS}
        tensors |= {
            "activation": activations,
            "loss_before": effects.before_loss,
            "entropy_before": effects.before_entropy,
            "rank_before": effects.before_rank,
            "kl_before": effects.before_kl,
        }
        arrays = {name: tensor[wanted.to(tensor.device)].cpu().numpy() for name, tensor in tensors.items()}
        self._kept.setdefault(index, []).append({"places": places[wanted.numpy()]} | arrays)

    def arrays_of(self, index: int) -> dict[str, NDArray[Any]]:
        """What a shard has of them, for storing."""
        kept = self._kept.get(index, [])
        names = kept[0] if kept else {}
        return {self._PREFIX + name: np.concatenate([arrays[name] for arrays in kept]) for name in names}

    def _joined(self, name: str) -> NDArray[Any]:
        return np.concatenate([arrays[name] for index in sorted(self._kept) for arrays in self._kept[index]])

    def positions(self) -> PositionsRecord:
        """Which positions they are, and what the model did there by itself."""
        tokens, places = self._tokens.ravel(), self._joined("places").astype(np.int64)
        return PositionsRecord(
            tokens=self._strings(tokens[places].tolist()),
            targets=self._strings(tokens[places + 1].tolist()),
            loss_before=self._joined("loss_before"),
            entropy_before=self._joined("entropy_before"),
            rank_before=self._joined("rank_before").astype(np.int64),
            kl_before=self._joined("kl_before"),
            sequences=places // self._tokens.shape[1],
        )

    def effects(self) -> dict[str, NDArray[np.float32]]:
        """By name, [n_neurons, positions]."""
        return {name: np.ascontiguousarray(self._joined(name).T, dtype=np.float32) for name in self._EFFECTS}


def _only(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
