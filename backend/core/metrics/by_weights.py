"""All that the weights alone say of a last layer: each neuron's metrics, the unembedding's spectrum, and chance.

Nothing of it needs text, so that it can be told of every checkpoint of a training in seconds.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from backend.core.metrics import chance, weights
from backend.core.metrics.classes import ChanceLines, Condition, rules
from backend.core.models.readout import Readout
from backend.glossary import NeuronClass

WEIGHT_METRICS = ("weight_norm", "logit_var", "null_fraction")


@dataclass(frozen=True)
class WeightMetrics:
    """The metrics of a layer's neurons that need no text, and what they are held against."""

    columns: dict[str, Float64[NDArray[np.float64], "neurons"]]
    """By the names of `WEIGHT_METRICS`; NaN for a neuron without weights."""
    singular_values: Float64[NDArray[np.float64], "d_model"]
    """Of W_U, largest first (§3.3)."""
    null_dim: int
    chance: ChanceLines

    @classmethod
    def of(cls, readout: Readout, null_dim: int | None = None) -> Self:
        """What a readout's weights say.

        Args:
            null_dim: k of the null space; None for 1 % of d_model.
        """
        d_model = readout.W_U.shape[0]
        k = min(null_dim or weights.default_null_dim(d_model), d_model)
        spectrum = weights.unembedding_spectrum(readout.W_U)
        columns = {
            "weight_norm": weights.weight_norm(readout.W_out).cpu().numpy(),
            "logit_var": weights.logit_var(readout.W_out, readout.W_U).cpu().numpy(),
            "null_fraction": weights.null_fraction(readout.W_out, spectrum.null_directions(k)).numpy(),
        }
        random = chance.RandomNeurons(len(readout.W_out), d_model, readout.norm)
        low, high = chance.logit_var_lines(readout.W_U, random)
        lines = ChanceLines(
            random.count, chance.null_fraction_line(k, random), logit_var_low=low, logit_var_high=high
        )  # fmt: skip
        return cls(columns, spectrum.singular_values.numpy(), k, lines)


def fits_by_weights(
    columns: dict[str, Float64[NDArray[np.float64], "neurons"]], lines: ChanceLines
) -> dict[NeuronClass, Bool[NDArray[np.bool_], "neurons"]]:
    """Which neurons meet all of a class's conditions on the weights, whatever their effects; classes for which nothing
    that is known of the weights is asked are left out.

    It is less than the class: weights alone do not show the mechanism.
    """
    asked: dict[NeuronClass, list[Condition]] = {
        name: [condition for condition in conditions if condition.is_chance]
        for name, conditions in rules(lines, None).items()
    }
    return {
        name: np.logical_and.reduce([condition.holds(columns) for condition in conditions])
        for name, conditions in asked.items()
        if all(condition.metric in columns for condition in conditions)
    }
