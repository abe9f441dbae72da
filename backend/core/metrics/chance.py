"""Chance lines: what the most extreme of a run's neurons would reach if all wrote in random directions.

A metric of the weights singles a neuron out only where it is beyond its line. The line is crossed by at least one of N
random directions in 5 % of models whose neurons write at random, however many neurons a model has: it grows with N.

The null-space fraction ρ of a random direction of d dimensions has ρ² ~ Beta(k/2, (d − k)/2), so its line is known
exactly: √Beta⁻¹(0.95^(1/N)). What a random direction does to the logits depends on the model's own unembedding, so the
lines of `logit_var` and `freq_alignment` are drawn: N random directions, twenty times, through W_U.

Where the norm is LayerNorm, what neurons write has mean 0: d is d_model − 1. There W_U does not read the mean either,
so that one of its k null directions is out of every neuron's reach and the line of ρ is a little high (0.237 for 0.232
in GPT-2 Small), never too low.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from backend.core.metrics.frequency import ReadDirection
from backend.core.metrics.weights import cosine_covariance
from backend.core.models.readout import NormKind

FAMILYWISE = 0.05
"""How often at least one of N random directions crosses a line."""
DRAWS = 20
"""Times that N random directions are drawn through the unembedding."""
_SEED = 20240624
_ROWS_AT_ONCE = 2_048
_HALVINGS = 60


@dataclass(frozen=True)
class RandomNeurons:
    """Neurons that write in random directions of the residual stream."""

    count: int
    d_model: int
    norm: NormKind

    @property
    def dimensions(self) -> int:
        """Of the space that they write into."""
        return self.d_model - 1 if self.norm == "LayerNorm" else self.d_model


def null_fraction_line(null_dim: int, neurons: RandomNeurons) -> float:
    """The ρ that the largest of N random directions exceeds with probability 5 %; 1 where every direction has ρ = 1."""
    import mpmath

    k, d = null_dim, neurons.dimensions
    if k >= d:
        return 1.0
    # In double precision the incomplete beta function loses the tail of thousands of dimensions.
    precise: Any = mpmath.mp.clone()
    precise.dps = 30
    allowed = -math.expm1(math.log1p(-FAMILYWISE) / neurons.count)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        rho = (low + high) / 2
        beyond = precise.betainc(
            precise.mpf(d - k) / 2, precise.mpf(k) / 2, 0, 1 - precise.mpf(rho) ** 2, regularized=True
        )
        low, high = (rho, high) if beyond > allowed else (low, rho)
    return high


def logit_var_lines(W_U: Float[Tensor, "d_model d_vocab"], neurons: RandomNeurons) -> tuple[float, float]:
    """The logit variances below and above which one of N random directions falls with probability 5 % each."""
    covariance = cosine_covariance(W_U).cpu()
    values = torch.linalg.eigvalsh(_reachable(covariance, neurons))
    values = _written(values, neurons)

    def variances(directions: Tensor) -> Tensor:
        squares = directions.square()
        return squares @ values / squares.sum(dim=1)

    lowest, highest = _extremes(variances, neurons)
    return _quantile(lowest, FAMILYWISE), _quantile(highest, 1 - FAMILYWISE)


def freq_alignment_line(direction: ReadDirection, neurons: RandomNeurons) -> float:
    """The |cosine| with the token-frequency direction that the largest of N random directions exceeds with
    probability 5 %."""
    values, axes = torch.linalg.eigh(_reachable(direction.gram.cpu(), neurons))
    read = _written(axes.T @ direction.read.cpu(), neurons)
    values = _written(values, neurons)

    def cosines(directions: Tensor) -> Tensor:
        lengths = (directions.square() @ values).clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        return (directions @ read).abs() / lengths

    return _quantile(_extremes(cosines, neurons)[1], 1 - FAMILYWISE)


def _reachable(matrix: Tensor, neurons: RandomNeurons) -> Tensor:
    """A quadratic form [d_model, d_model] on the directions that neurons can write in."""
    if neurons.norm != "LayerNorm":
        return matrix
    rows = matrix - matrix.mean(dim=0, keepdim=True)
    return rows - rows.mean(dim=1, keepdim=True)


def _written(coordinates: Tensor, neurons: RandomNeurons) -> Tensor:
    """Coordinates along a form's axes, eigenvalues ascending, without the axis that no neuron writes along.

    Of a form on vectors of mean 0 that axis has eigenvalue 0, the smallest there is.
    """
    return coordinates[neurons.d_model - neurons.dimensions :]


def _extremes(metric: Callable[[Tensor], Tensor], neurons: RandomNeurons) -> tuple[list[float], list[float]]:
    """The smallest and the largest value of a metric of [n, d] directions, in every draw of N random ones.

    Directions are drawn in the coordinates of the form's axes: random directions are random in every basis.
    """
    generator = torch.Generator().manual_seed(_SEED)
    lowest, highest = [], []
    for _ in range(DRAWS):
        values = torch.cat([metric(rows) for rows in _directions(neurons, generator)])
        lowest.append(float(values.min()))
        highest.append(float(values.max()))
    return lowest, highest


def _directions(neurons: RandomNeurons, generator: torch.Generator) -> Iterator[Tensor]:
    for start in range(0, neurons.count, _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, neurons.count - start)
        yield torch.randn(size, neurons.dimensions, dtype=torch.float64, generator=generator)


def _quantile(extremes: list[float], level: float) -> float:
    # Of twenty draws the usual quantile at 95 % is exceeded by one in ten of further draws; this one by one in twenty.
    return float(np.quantile(extremes, level, method="weibull"))
