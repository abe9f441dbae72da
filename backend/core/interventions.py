"""What can be done to a neuron's activation, as data: the target that replaces it (SPEC "Ablation").

n is the activation, [tokens]; an intervention turns it into a target, and δ = target − n is what the residual stream
gains along w_out.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.core.errors import BadIntervention
from backend.core.neurons import NeuronId

Kind = Literal["mean", "zero", "clip", "value", "scale"]


@dataclass(frozen=True)
class Intervention:
    """One neuron and what happens to it.

    kind: `mean` sets the reference mean, `zero` sets 0, `clip` lowers activations above the reference mean to it,
    `value` sets `value`, `scale` multiplies by `value`.
    """

    neuron: NeuronId
    kind: Kind = "mean"
    value: float | None = None

    def __post_init__(self) -> None:
        needs_value = self.kind in ("value", "scale")
        if needs_value and self.value is None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.neuron} needs a number in `value`.")
        if not needs_value and self.value is not None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.neuron} takes no `value`: leave it out.")
        if self.value is not None and not math.isfinite(self.value):
            raise BadIntervention(f"The value for {self.neuron} is not a finite number.")

    def target(self, activation: Tensor, mean: float) -> Tensor:
        """The activation after the intervention, [tokens], from the one before and the neuron's reference mean."""
        match self.kind:
            case "mean":
                return torch.full_like(activation, mean)
            case "zero":
                return torch.zeros_like(activation)
            case "clip":
                return activation.clamp(max=mean)
            case "value":
                return torch.full_like(activation, self.value or 0.0)
            case "scale":
                return activation * (self.value or 0.0)
