"""Standard errors where tokens of one sequence go together: the delete-a-group jackknife.

Whole sequences are dealt to at most 50 groups. An estimate is taken from all groups together, and once more without
each of them; how far these lie apart tells its error, whatever it is built of: a mean, a ratio of means, a difference.
Groups that differ in size weigh by it (Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m",
Statistics and Computing 9). Only sums by group are kept, so that they stream, and merge over shards in any order.

What is called an error here is one standard error. A 95 % interval reaches t of them to either side, t the 97.5 %
quantile of Student's distribution with one degree of freedom fewer than there are groups: 2.01 for 50 groups, 2.26
for ten, 4.30 for three, 12.7 for two. One group has no error (NaN), since nothing tells how far another would lie.

The module needs no torch, so that pages and reports take errors in the same way.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

MOST_GROUPS = 50


@dataclass(frozen=True)
class JackknifeEstimate:
    """A number and its standard error, NaN where there is none; arrays of the same shape."""

    value: Float64[Array, "..."]
    error: Float64[Array, "..."]


def deal(sequences: int, seed: int) -> Int64[Ids, "sequences"]:
    """The group of each sequence: at most MOST_GROUPS, whose sizes differ by one sequence at most."""
    groups = np.empty(sequences, dtype=np.int64)
    groups[np.random.default_rng(seed).permutation(sequences)] = np.arange(sequences) % max(
        1, min(sequences, MOST_GROUPS)
    )
    return groups


def groups_of(sequence: Shaped[NDArray[Any], "values"], seed: int = 0) -> Int64[Ids, "values"]:
    """The group of each value by the sequence that it belongs to; sequences may bear any numbers."""
    known, place = np.unique(sequence, return_inverse=True)
    return deal(len(known), seed)[place]


@dataclass(frozen=True)
class GroupSums:
    """Sums over values by group. They add up over shards in any order and any grouping of these."""

    groups: Int64[Ids, "groups"]
    """The groups that have been met, ascending."""
    counts: Float64[Array, "groups ..."]
    """How many values each has; one number, or one a place where some are missing here and there."""
    totals: dict[str, Float64[Array, "groups ..."]]
    """Σq by name."""

    @classmethod
    def of(
        cls, values: Mapping[str, Shaped[NDArray[Any], "values ..."]], groups: Shaped[NDArray[Any], "values"]
    ) -> Self:
        """Of values by name, and the group of each value."""
        known, place = np.unique(groups, return_inverse=True)
        counts = np.bincount(place, minlength=len(known)).astype(np.float64)
        return cls(
            known.astype(np.int64), counts, {name: _by_group(q, place, len(known)) for name, q in values.items()}
        )

    @classmethod
    def of_present(
        cls, values: Mapping[str, Shaped[NDArray[Any], "values ..."]], groups: Shaped[NDArray[Any], "values"]
    ) -> Self:
        """Of values by name, all of one shape, and the group of each; those where one of them is NaN are left out."""
        known, place = np.unique(groups, return_inverse=True)
        there = ~np.isnan(sum(values.values()))
        totals = {name: _by_group(np.where(there, q, 0.0), place, len(known)) for name, q in values.items()}
        return cls(known.astype(np.int64), _by_group(there, place, len(known)), totals)

    def plus(self, other: Self) -> Self:
        """The sums of both."""
        groups = np.union1d(self.groups, other.groups)
        counts = _added(groups, (self.groups, self.counts), (other.groups, other.counts))
        totals = {
            name: _added(groups, (self.groups, total), (other.groups, other.totals[name]))
            for name, total in self.totals.items()
        }
        return type(self)(groups, counts, totals)

    def regrouped(self, groups: Shaped[NDArray[Any], "groups"]) -> Self:
        """With each group as a part of the one that is named for it."""
        known, place = np.unique(groups, return_inverse=True)
        totals = {name: _by_group(total, place, len(known)) for name, total in self.totals.items()}
        return type(self)(known.astype(np.int64), _by_group(self.counts, place, len(known)), totals)

    @property
    def count(self) -> int:
        """Values in all groups; where some are missing here and there, of the place that has most."""
        return int(self.counts.sum(axis=0).max(initial=0))

    def estimate(self, of: Callable[[Mapping[str, Array]], Array]) -> JackknifeEstimate:
        """What is built of means over all values, with its error.

        Args:
            of: from means by name, each [...] or [groups, ...], to the estimate of the same shape. It is given the
                means over everything, and those without each group.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = of(self._means)
            return JackknifeEstimate(value, jackknife_error(value, of(self._means_without), self.counts))

    def mean(self, name: str) -> JackknifeEstimate:
        """The mean of one quantity."""
        return self.estimate(lambda means: means[name])

    @cached_property
    def _means(self) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: total.sum(axis=0) / self.counts.sum(axis=0) for name, total in self.totals.items()}

    @cached_property
    def _means_without(self) -> dict[str, Array]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                name: (total.sum(axis=0) - total) / _beside(self.counts.sum(axis=0) - self.counts, total)
                for name, total in self.totals.items()
            }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For storing a shard; `from_arrays` reads it back."""
        return {"groups": self.groups, "counts": self.counts} | {f"total.{n}": a for n, a in self.totals.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave; arrays of other names are left alone."""
        prefix = "total."
        totals = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        return cls(arrays["groups"], arrays["counts"], totals)


def jackknife_error(
    estimate: Float64[Array, "..."], without: Float64[Array, "groups ..."], counts: Float64[Array, "groups ..."]
) -> Float64[Array, "..."]:
    """The standard error of an estimate; NaN where fewer than two groups have anything.

    With n values in all, m_j of them in group j and h_j = n/m_j, the pseudo-values h_j·θ − (h_j − 1)·θ_(j) have the
    variance Σ_j (pseudo_j − θ_J)²/(h_j − 1)/g about θ_J = g·θ − Σ_j (1 − m_j/n)·θ_(j). Both are taken here less θ,
    so that no digits are lost.

    Args:
        without: the estimate without each group.
        counts: values of each group: one number, or one a place.
    """
    m = _beside(counts, without)
    there = np.broadcast_to(m > 0, without.shape)
    n, number = m.sum(axis=0), there.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = (n - m) / m
        apart = np.where(there, estimate - without, 0.0)
        centre = ((1 - m / n) * apart).sum(axis=0)
        spread = np.where(there, (odds * apart - centre) ** 2 / odds, 0.0).sum(axis=0)
        return np.where(number > 1, np.sqrt(spread / number), np.nan)


def mean_and_error(
    values: Shaped[NDArray[Any], "values ..."], sequence: Shaped[NDArray[Any], "values"], seed: int = 0
) -> JackknifeEstimate:
    """The mean of values and its error; NaN values are left out. sequence: the one that each value comes from."""
    present = GroupSums.of_present({"value": np.asarray(values, dtype=np.float64)}, groups_of(sequence, seed))
    return present.mean("value")


@lru_cache(maxsize=256)
def interval_errors(groups: int) -> float:
    """Standard errors on either side of an estimate that a 95 % interval takes: the quantile of Student's distribution
    with one degree of freedom fewer than there are groups. Infinite below two groups."""
    return math.inf if groups < 2 else student_quantile(0.025, groups - 1)


@lru_cache(maxsize=256)
def student_quantile(tail: float, freedom: int) -> float:
    """The t that a number of Student's distribution exceeds with the probability `tail`, below one half."""
    import mpmath

    def beyond(t: float) -> float:
        """P(T > t)."""
        return float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)) / 2

    low, high = 0.0, 20.0
    while beyond(high) > tail:
        low, high = high, 4 * high
    for _ in range(60):
        t = (low + high) / 2
        low, high = (t, high) if beyond(t) > tail else (low, t)
    return high


def _by_group(values: NDArray[Any], place: Ids, groups: int) -> Array:
    """Sums of values [values, ...] at each place, [groups, ...]."""
    total = np.zeros((groups, *values.shape[1:]))
    for group in range(groups):
        total[group] = values[place == group].sum(axis=0, dtype=np.float64)
    return total


def _added(groups: Ids, *parts: tuple[Ids, Array]) -> Array:
    total = np.zeros((len(groups), *parts[0][1].shape[1:]))
    for of_part, values in parts:
        total[np.searchsorted(groups, of_part)] += values
    return total


def _beside(counts: Array, values: Array) -> Array:
    """Counts [k] or [k, ...] with as many axes as values have."""
    return counts.reshape(counts.shape + (1,) * (values.ndim - counts.ndim))
