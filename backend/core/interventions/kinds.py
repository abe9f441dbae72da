"""What can be done to a neuron or a head, as data: the target that replaces its values (SPEC "Ablation").

n is a neuron's activation, [tokens]; an intervention turns it into a target, and δ = target − n is what the residual
stream gains along w_out. A head's values are its z, [tokens, d_head].
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backend.core.errors import BadIntervention
from backend.core.neurons import HeadId, Unit

Kind = Literal["mean", "zero", "clip", "value", "scale"]


@dataclass(frozen=True)
class Intervention:
    """One neuron or head and what happens to it.

    kind: `mean` sets the reference mean, `zero` sets 0, `clip` lowers activations above the reference mean to it,
    `value` sets `value`, `scale` multiplies by `value`. Heads know `mean`, `zero` and `scale`.
    """

    unit: Unit
    kind: Kind = "mean"
    value: float | None = None

    def __post_init__(self) -> None:
        needs_value = self.kind in ("value", "scale")
        if needs_value and self.value is None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.unit} needs a number in `value`.")
        if not needs_value and self.value is not None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.unit} takes no `value`: leave it out.")
        if isinstance(self.unit, HeadId) and self.kind in ("clip", "value"):
            raise BadIntervention(f"{self.unit} is a head: it can be set to its mean, to zero, or scaled.")
        if self.value is not None and not math.isfinite(self.value):
            raise BadIntervention(f"The value for {self.unit} is not a finite number.")

    def target(self, activation: Tensor, mean: Tensor) -> Tensor:
        """The values after the intervention, from those before, [tokens] or [tokens, d_head], and their mean."""
        match self.kind:
            case "mean":
                return mean.to(activation).expand_as(activation).clone()
            case "zero":
                return torch.zeros_like(activation)
            case "clip":
                return activation.clamp(max=float(mean))
            case "value":
                return torch.full_like(activation, self.value or 0.0)
            case "scale":
                return activation * (self.value or 0.0)
