"""Running statistics that merge: shards are summed in any grouping and give the same mean and error.

Everything is float64. Standard errors treat tokens as independent draws, as the paper's error bars do; tokens of one
sequence are correlated, so a standard error here is a lower bound for a sample of few sequences.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
    positive: Array

    @classmethod
    def of(cls, values: Array) -> Self:
        """The moments of `values` [samples, n_neurons]."""
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
            (values > 0).sum(axis=0).astype(np.float64),
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
            self.positive + other.positive,
        )

    def columns(self) -> dict[str, Array]:
        """The activation metrics of SPEC.md by name, each [n_neurons]."""
        variance = self.m2 / self.count
        with np.errstate(divide="ignore", invalid="ignore"):  # below two tokens the error is NaN, not 0
            error = (
                np.sqrt(self.m2 / (self.count - 1) / self.count) if self.count > 1 else np.full_like(variance, np.nan)
            )
            skew = (self.m3 / self.count) / variance**1.5
            kurtosis = (self.m4 / self.count) / variance**2
        return {
            "mean_activation": self.mean,
            "mean_activation_se": error,
            "std_activation": np.sqrt(variance),
            "min_activation": self.low,
            "max_activation": self.high,
            "skew_activation": skew,
            "kurtosis_activation": kurtosis,
            "fraction_positive": self.positive / self.count,
        }

    def to_arrays(self) -> dict[str, Array]:
        """For storing a shard; `from_arrays` reads it back."""
        arrays = {name: getattr(self, name) for name in ("mean", "m2", "m3", "m4", "low", "high", "positive")}
        return {"count": np.array([self.count]), **arrays}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array]) -> Self:
        rest = {name: array for name, array in arrays.items() if name != "count"}
        return cls(count=float(arrays["count"][0]), **rest)


@dataclass(frozen=True)
class MeanAndError:
    """A mean over tokens and its standard error, each [n_neurons]."""

    mean: Array
    error: Array


def mean_and_error(total: Array, squares: Array, count: float) -> MeanAndError:
    """From Σq, Σq² and the number of tokens; the error is NaN below two tokens."""
    if count < 1:
        nothing = np.full_like(total, np.nan)
        return MeanAndError(nothing, nothing)
    mean = total / count
    if count < 2:
        return MeanAndError(mean, np.full_like(mean, np.nan))
    variance = np.maximum(squares - count * mean * mean, 0.0) / (count - 1)
    return MeanAndError(mean, np.sqrt(variance / count))


def ratio_error(top: MeanAndError, bottom: MeanAndError, products: Array, count: float) -> Array:
    """Standard error of mean(top)/mean(bottom) by the delta method, from Σ(top·bottom) over the same tokens."""
    if count < 2:
        return np.full_like(top.mean, np.nan)
    covariance = (products - count * top.mean * bottom.mean) / (count - 1) / count
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top.mean / bottom.mean
        variance = top.error**2 + ratio**2 * bottom.error**2 - 2 * ratio * covariance
        return np.sqrt(np.maximum(variance, 0.0)) / np.abs(bottom.mean)


def correlations_with(values: NDArray[np.float32], index: int) -> dict[int, float]:
    """Pearson's correlation of one row of values [n_rows, positions] with every other row that varies, by row."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = centred @ centred[index] / (lengths * lengths[index])
    found[index] = np.nan
    return {int(other): float(np.clip(found[other], -1, 1)) for other in np.flatnonzero(np.isfinite(found))}


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
