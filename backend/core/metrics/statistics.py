"""Running statistics that merge: shards are summed in any grouping and give the same mean and error. All float64.

Power sums are kept over all positions together. Of what has an error, sums are kept by group of sequences besides
(jackknife.py), since positions of one sequence are not independent.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy.typing import NDArray

from backend.core.metrics.jackknife import Array, GroupSums
from backend.core.metrics.routing import expert_of_neurons, routed_to
from backend.core.neurons import Experts


@dataclass(frozen=True)
class Moments:
    """Count, mean and central power sums of one quantity for many neurons."""

    count: float
    mean: Float64[Array, "neurons"]
    m2: Float64[Array, "neurons"]
    """Σ (n − mean)², as m3 and m4 with the third and fourth power."""
    m3: Float64[Array, "neurons"]
    m4: Float64[Array, "neurons"]
    low: Float64[Array, "neurons"]
    high: Float64[Array, "neurons"]
    by_group: GroupSums
    """Sums of the activation and of whether it is above 0, [groups, neurons]; in a mixture of experts of whether the
    neuron's expert was chosen, too."""

    @classmethod
    def of(
        cls,
        values: Float[Array, "samples neurons"],
        groups: Int64[NDArray[np.int64], "samples"],
        experts: Experts | None = None,
    ) -> Self:
        """The moments of values.

        Args:
            groups: the one that each sample's sequence is dealt to.
            experts: those of the layer; None where it has none.
        """
        values = np.asarray(values, dtype=np.float64)
        summed = {"activation": values, "positive": values > 0}
        if experts is not None:
            summed["routed"] = routed_to(values, experts)[:, expert_of_neurons(experts)]
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
            GroupSums.of(summed, groups),
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

    def columns(self) -> dict[str, Float64[Array, "neurons"]]:
        """The activation metrics by the names of the glossary."""
        variance = self.m2 / self.count
        mean, positive = (self.by_group.mean(name) for name in ("activation", "positive"))
        with np.errstate(divide="ignore", invalid="ignore"):
            skew = (self.m3 / self.count) / variance**1.5
            kurtosis = (self.m4 / self.count) / variance**2
        routed = self.by_group.mean("routed") if "routed" in self.by_group.totals else None
        of_routing = {} if routed is None else {"routed_share": routed.value, "routed_share_se": routed.error}
        return of_routing | {
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


def correlations_with(values: Float32[NDArray[np.float32], "rows positions"], index: int) -> dict[int, float]:
    """Pearson's correlation of one row of values with every other row that varies, by row."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = centred @ centred[index] / (lengths * lengths[index])
    correlations[index] = np.nan
    return {
        int(other): float(np.clip(correlations[other], -1, 1)) for other in np.flatnonzero(np.isfinite(correlations))
    }


def correlation(x: Float64[Array, "values"], y: Float64[Array, "values"]) -> float | None:
    """Pearson's correlation of two rows of values; None where either does not vary, or there are fewer than two."""
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def rank_correlation(x: Float64[Array, "values"], y: Float64[Array, "values"]) -> float | None:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing their mean rank; None where that is."""
    return correlation(ranks(np.asarray(x)), ranks(np.asarray(y)))


def ranks(values: Float64[Array, "values"]) -> Float64[Array, "values"]:
    """The place of each value among all, from 1; equal values share their mean place."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(last - (counts - 1) / 2, dtype=np.float64)[place]


def percentile(values: Float64[Array, "values"], value: float | None) -> float | None:
    """The share of values that are at most this one, in percent; values that are not finite do not count.

    Returns:
        None where there is nothing to compare.
    """
    measured = values[np.isfinite(values)]
    if value is None or not len(measured):
        return None
    return float(100 * np.mean(measured <= value))
