"""Means of single tokens with errors that take tokens of one sequence as what they are: not independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Known:
    """A value and its standard error, which is NaN where there is none."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:+.4f}" + ("" if np.isnan(self.error) else f" ± {self.error:.4f}")

    @property
    def above_zero(self) -> bool:
        """By two standard errors; never where there is no error."""
        return bool(self.value > 2 * self.error)

    @property
    def below_zero(self) -> bool:
        """By two standard errors; never where there is no error."""
        return bool(self.value < -2 * self.error)


@dataclass(frozen=True)
class Clustered(Known):
    """A mean over tokens; it has no error where all are of one sequence."""

    tokens: int
    sequences: int


def clustered(values: NDArray[np.float64], sequences: Sequence[int] | NDArray[np.int64]) -> Clustered:
    """The mean of values [tokens] and its standard error by the jackknife that leaves out one sequence at a time.

    Sequences differ in how many tokens they have; the pseudo-values are weighted accordingly (Busing, Meijer and van
    der Leeden 1999).

    Args:
        sequences: which sequence each token is of, [tokens].
    """
    _, place = np.unique(np.asarray(sequences), return_inverse=True)
    counts = np.bincount(place).astype(np.float64)
    sums = np.bincount(place, weights=values)
    count, groups = len(values), len(counts)
    mean = float(values.mean()) if count else float("nan")
    if groups < 2:
        return Clustered(mean, float("nan"), count, groups)
    without = (sums.sum() - sums) / (count - counts)
    h = count / counts
    estimate = groups * mean - float(((1 - 1 / h) * without).sum())
    pseudo = h * mean - (h - 1) * without
    variance = float(((pseudo - estimate) ** 2 / (h - 1)).mean())
    return Clustered(mean, variance**0.5, count, groups)
