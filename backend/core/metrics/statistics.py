"""Running statistics that merge: shards are summed in any grouping and give the same mean and error. All float64.

Power sums are kept over all positions together. Of what has an error, sums are kept by group of sequences besides
(jackknife.py), since positions of one sequence are not independent.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.core.metrics.jackknife import Array, GroupSums


@dataclass(frozen=True)
class Moments:
    """Count, mean and central power sums of one quantity for many neurons; every array is [n_neurons]."""

    count: float
    mean: Array
    m2: Array
    m3: Array
    m4: Array
    low: Array
    high: Array
    by_group: GroupSums
    """Sums of the activation and of whether it is above 0, [k, n_neurons]."""

    @classmethod
    def of(cls, values: Array, groups: NDArray[np.int64]) -> Self:
        """The moments of `values` [samples, n_neurons], and the group that each sample's sequence is dealt to."""
        values = np.asarray(values, dtype=np.float64)
        mean = values.mean(axis=0)
        centred = values - mean
        square = centred * centred
        return cls(
            float(len(values)),
            mean,
            square.sum(axis=0),
            (square * centred).sum(axis=0),
            (square * square).sum(axis=0),
            values.min(axis=0),
            values.max(axis=0),
            GroupSums.of({"activation": values, "positive": values > 0}, groups),
        )

    def merged(self, other: Self) -> Self:
        """The moments of both samples together (pairwise updates of Pébay, SAND2008-6212)."""
        n, a, b = self.count + other.count, self.count, other.count
        delta = other.mean - self.mean
        d_n = delta / n
        m2 = self.m2 + other.m2 + delta * d_n * a * b
        m3 = self.m3 + other.m3 + delta * d_n**2 * a * b * (a - b) + 3 * d_n * (a * other.m2 - b * self.m2)
        m4 = (
            self.m4
            + other.m4
            + delta * d_n**3 * a * b * (a * a - a * b + b * b)
            + 6 * d_n**2 * (a * a * other.m2 + b * b * self.m2)
            + 4 * d_n * (a * other.m3 - b * self.m3)
        )
        return type(self)(
            n,
            self.mean + d_n * b,
            m2,
            m3,
            m4,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.by_group.plus(other.by_group),
        )

    def columns(self) -> dict[str, Array]:
        """The activation metrics by the names of the glossary, each [n_neurons]."""
        variance = self.m2 / self.count
        mean, positive = (self.by_group.mean(name) for name in ("activation", "positive"))
        with np.errstate(divide="ignore", invalid="ignore"):
            skew = (self.m3 / self.count) / variance**1.5
            kurtosis = (self.m4 / self.count) / variance**2
        return {
            "mean_activation": self.mean,
            "mean_activation_se": mean.error,
            "std_activation": np.sqrt(variance),
            "min_activation": self.low,
            "max_activation": self.high,
            "skew_activation": skew,
            "kurtosis_activation": kurtosis,
            "fraction_positive": positive.value,
            "fraction_positive_se": positive.error,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For storing a shard; `from_arrays` reads it back."""
        arrays = {name: getattr(self, name) for name in _POWER_SUMS}
        return {"count": np.array([self.count]), **arrays, **self.by_group.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave."""
        rest = {name: arrays[name] for name in _POWER_SUMS}
        return cls(count=float(arrays["count"][0]), **rest, by_group=GroupSums.from_arrays(arrays))


_POWER_SUMS = ("mean", "m2", "m3", "m4", "low", "high")


def correlations_with(values: NDArray[np.float32], index: int) -> dict[int, float]:
    """Pearson's correlation of one row of values [n_rows, positions] with every other row that varies, by row."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = centred @ centred[index] / (lengths * lengths[index])
    correlations[index] = np.nan
    return {
        int(other): float(np.clip(correlations[other], -1, 1)) for other in np.flatnonzero(np.isfinite(correlations))
    }


def correlation(x: Array, y: Array) -> float | None:
    """Pearson's correlation of two rows of values; None where either does not vary, or there are fewer than two."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def rank_correlation(x: Array, y: Array) -> float | None:
    """Spearman's: Pearson's of the ranks, equal values sharing their mean rank."""
    return correlation(_ranks(np.asarray(x)), _ranks(np.asarray(y)))


def _ranks(values: Array) -> Array:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2, dtype=np.float64)[place]


def percentile(values: NDArray[np.float64], value: float | None) -> float | None:
    """The share of values [n] that are at most this one, in percent; values that are not finite do not count.

    Returns:
        None where there is nothing to compare.
    """
    measured = values[np.isfinite(values)]
    if value is None or not len(measured):
        return None
    return float(100 * np.mean(measured <= value))
