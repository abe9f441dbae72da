"""Means of single tokens with errors that take tokens of one sequence as what they are: not independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.core.metrics.jackknife import GroupSums


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
    of = np.asarray(sequences)
    estimate = GroupSums.of({"value": values}, of).mean("value")
    return Clustered(float(estimate.value), float(estimate.error), len(values), len(np.unique(of)))
