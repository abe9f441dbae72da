"""What can be done to a neuron or a head: for each kind in `glossary.INTERVENTIONS`, the target of its values.

A neuron's values are its activations n; an intervention turns them into targets, and δ = target − n is what the
residual stream gains along w_out. A head's values are its z, which W_O reads. What the values of all tokens have in
common, a bias of their own (GPT-2, GPT-NeoX, Phi, OPT, Qwen 2) or of the norm before them (every LayerNorm), is moved
to the attention's output bias by weight processing: z is what the head gathers without it, so setting z to 0, or
scaling it, leaves what the bias writes in place. Where heads attend to sinks besides (gpt-oss), the bias is part of z.

To add a kind, give it a row in `glossary.INTERVENTIONS`, with its name in `InterventionKind`, and a target here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from backend.core.errors import BadIntervention
from backend.core.neurons import HeadId, Unit
from backend.glossary import INTERVENTION, INTERVENTIONS, InterventionKind


@dataclass(frozen=True)
class Reference:
    """What targets are made of, besides a unit's values."""

    mean: Float[Tensor, "*d_head"]
    """Of a neuron's activations, or of a head's z."""
    first: Float[Tensor, "sequences 1 *d_head"]
    """What the unit has at the first position of each text."""
    number: float
    """The intervention's own value."""


TARGETS: dict[InterventionKind, Callable[[Tensor, Reference], Tensor]] = {
    "mean": lambda values, reference: reference.mean.to(values).expand_as(values).clone(),
    "zero": lambda values, _: torch.zeros_like(values),
    "clip": lambda values, reference: torch.minimum(values, reference.mean.to(values)),
    "scale": lambda values, reference: values * reference.number,
    "value": lambda values, reference: torch.full_like(values, reference.number),
    # A head that attends to the first token alone writes that token's value everywhere, which is its z at the first
    # position, where it can attend to nothing else. Replacing the pattern would say the same, but for some families
    # (OPT, GPT-Neo) TransformerLens only tells the pattern, and what is put in its place changes nothing.
    "bos": lambda values, reference: reference.first.to(values).expand_as(values).clone(),
}
"""From a unit's values before, [..., position] of a neuron and [..., position, d_head] of a head, to those after."""


@dataclass(frozen=True)
class Intervention:
    """One neuron or head and what happens to it, as the kind's row in `glossary.INTERVENTIONS` says.

    Raises:
        BadIntervention: the kind is not for this unit, a number is missing or not wanted, or it is not finite.
    """

    unit: Unit
    kind: InterventionKind = "mean"
    value: float | None = None
    mean: float | None = None
    """A neuron's reference mean; None takes the one that is handed in with the text."""

    def __post_init__(self) -> None:
        row, is_head = INTERVENTION[self.kind], isinstance(self.unit, HeadId)
        if (row.on_heads if is_head else row.on_neurons) is None:
            kinds = [one.kind for one in INTERVENTIONS if (one.on_heads if is_head else one.on_neurons) is not None]
            what = "head" if is_head else "neuron"
            raise BadIntervention(f"{self.unit} is a {what}: what can be done to it is {', '.join(kinds)}.")
        if row.needs_value and self.value is None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.unit} needs a number in `value`.")
        if not row.needs_value and self.value is not None:
            raise BadIntervention(f"The intervention {self.kind!r} on {self.unit} takes no `value`: leave it out.")
        if self.value is not None and not math.isfinite(self.value):
            raise BadIntervention(f"The value for {self.unit} is not a finite number.")

    def target(
        self,
        values: Float[Tensor, "..."],
        mean: Float[Tensor, "*d_head"] | None,
        first: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The values after the intervention.

        Args:
            values: before it, [..., position] of a neuron, [..., position, d_head] of a head.
            mean: the unit's reference mean; None where the kind needs none.
            first: what the unit has at the text's first position; None where `values` begin there.
        """
        positions = -2 if isinstance(self.unit, HeadId) else -1
        return TARGETS[self.kind](
            values,
            Reference(
                mean=values.new_zeros(()) if mean is None else mean,
                first=values.narrow(positions, 0, 1) if first is None else first,
                number=self.value or 0.0,
            ),
        )
