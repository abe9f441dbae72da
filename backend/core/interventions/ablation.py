"""What interventions do to a traced text, for any number of neurons of any layer and attention heads.

The total effect recomputes the final norm; the frozen one holds its scale at s (Eq. 6), whichever layer is changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadIntervention
from backend.core.interventions import closed_form
from backend.core.interventions.forward import activations_of, continue_from
from backend.core.interventions.frequency_distance import TextFrequencies
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.traced_text import State, TracedText, recomputed_and_frozen
from backend.core.neurons import HeadId, NeuronId

Means = Float64[NDArray[np.float64], "d_mlp"]
"""The reference mean of every neuron of the last layer."""


@dataclass(frozen=True)
class TextAblation:
    """A text under interventions."""

    total: State
    frozen: State
    activations_before: Float[Tensor, "tokens interventions"]
    """Of the intervened units; of a head its output's norm."""
    activations_after: Float[Tensor, "tokens interventions"]
    residual_norm: Float[Tensor, "tokens"]
    """‖x̃‖ afterwards, of the stream before the final norm."""
    kl_before: Float64[Tensor, "tokens"] | None = None
    """D_KL(P_freq‖P) of the text as it is, nats, where token frequencies are known."""


def ablate_text(
    model: AnalysisModel,
    text: TracedText,
    interventions: Sequence[Intervention],
    means: Means | None,
    frequencies: TextFrequencies | None = None,
) -> TextAblation:
    """The text under all interventions together.

    Args:
        frequencies: those to tell the distance from; None leaves it out.
        means: the reference mean of every neuron of the last layer; None takes the means over this text, as
            units of earlier layers always do. An intervention that brings its own mean is set to that.

    Raises:
        BadNeuron: a neuron or a head that the model does not have.
        BadIntervention: the same one twice.
    """
    check_interventions(model, interventions)
    units = [intervention.unit for intervention in interventions]
    if all(isinstance(unit, NeuronId) and unit.layer == model.last_layer for unit in units):
        return _in_closed_form(model, text, interventions, means, frequencies)
    return _by_forward_pass(model, text, interventions, means, frequencies)


def check_interventions(model: AnalysisModel, interventions: Sequence[Intervention]) -> None:
    """Refuse interventions that cannot be carried out together on this model.

    Raises:
        BadNeuron: a neuron or a head that the model does not have.
        BadIntervention: the same one twice.
    """
    units = [intervention.unit for intervention in interventions]
    for unit in units:
        unit.within(model.n_layers, model.n_heads if isinstance(unit, HeadId) else model.d_mlp)
    if len(set(units)) < len(units):
        raise BadIntervention("A neuron is named twice: give each neuron one intervention.")


def references(
    model: AnalysisModel, text: TracedText, interventions: Sequence[Intervention], means: Means | None
) -> list[Float[Tensor, "*d_head"]]:
    """Each unit's reference mean, a number of a neuron, a vector of a head: the intervention's own, for neurons of the
    last layer the given one, else that over the text."""
    plain = activations_of(model, text, [intervention.unit for intervention in interventions])
    chosen = []
    for values, intervention in zip(plain, interventions, strict=True):
        unit = intervention.unit
        if intervention.mean is not None:
            chosen.append(torch.tensor(intervention.mean))
        elif means is not None and isinstance(unit, NeuronId) and unit.layer == model.last_layer:
            chosen.append(torch.tensor(means[unit.index]))
        else:
            chosen.append(values.mean(dim=0))
    return chosen


def _in_closed_form(
    model: AnalysisModel,
    text: TracedText,
    interventions: Sequence[Intervention],
    means: Means | None,
    frequencies: TextFrequencies | None,
) -> TextAblation:
    indices = [intervention.unit.index for intervention in interventions]
    before = text.activations[:, indices]
    reference = references(model, text, interventions, means)
    after = torch.stack([i.target(before[:, k], reference[k]) for k, i in enumerate(interventions)], dim=1)
    total, frozen, residual_norm = closed_form.states(model.readout, text, indices, after - before, frequencies)
    kl_before = None if frequencies is None else frequencies.before(text)
    return TextAblation(total, frozen, before, after, residual_norm, kl_before)


def _by_forward_pass(
    model: AnalysisModel,
    text: TracedText,
    interventions: Sequence[Intervention],
    means: Means | None,
    frequencies: TextFrequencies | None,
) -> TextAblation:
    first = min(intervention.unit.layer for intervention in interventions)
    plain = activations_of(model, text, [intervention.unit for intervention in interventions])
    residual, seen = continue_from(model, text, first, interventions, references(model, text, interventions, means))
    readout = model.readout
    centred = readout.centred(residual)
    scale = readout.scale(centred)
    unigram = None if frequencies is None else frequencies.unigram
    total, frozen = recomputed_and_frozen(readout, text, readout.uncapped(centred, text.scale), scale, unigram)
    return TextAblation(
        total=total,
        frozen=frozen,
        activations_before=torch.stack([_size(values) for values in plain], dim=1),
        activations_after=torch.stack([_size(values) for values in seen], dim=1),
        residual_norm=centred.norm(dim=-1),
        kl_before=None if frequencies is None else frequencies.before(text),
    )


def _size(values: Tensor) -> Tensor:
    """A neuron's activation as it is, a head's output as its norm; [tokens]."""
    return values if values.ndim == 1 else values.norm(dim=1)
