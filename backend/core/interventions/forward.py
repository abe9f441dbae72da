"""Forward passes that continue from a layer, with units replaced on the way: what no closed form covers.

The residual stream before the first intervened layer is computed once and kept with the text; blocks before it are not
run again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.interventions.hooks import replacing
from backend.core.interventions.kinds import Intervention
from backend.core.kernels.engine import UnigramReadout, joined_effects
from backend.core.kernels.residuals import Unablated, effects_of_residual
from backend.core.metrics.effects import Effects
from backend.core.models import hook_points
from backend.core.models.analysis_model import AnalysisModel, Hooks
from backend.core.models.traced_text import TracedText
from backend.core.neurons import NeuronId, Unit

_TOKENS_AT_ONCE = 4_096
"""Tokens of ablated copies that run through the model together."""


def activations_of(
    model: AnalysisModel, text: TracedText, units: Sequence[Unit]
) -> list[Float[Tensor, "tokens *d_head"]]:
    """The values that units have without an intervention: a neuron's activations, a head's z."""
    unread = {unit for unit in units if unit not in text.values}
    for unit in [unit for unit in unread if isinstance(unit, NeuronId) and unit.layer == model.last_layer]:
        text.values[unit] = text.activations[:, unit.index]
        unread.remove(unit)
    if unread:
        points, last = {hook_points.of_unit(unit) for unit in unread}, max(unit.layer for unit in unread)
        _, kept = model.run(torch.tensor([text.tokens]), *points, stop_at_layer=last + 1)
        text.values.update({unit: kept[hook_points.of_unit(unit)][0, :, unit.index].clone() for unit in unread})
    return [text.values[unit] for unit in units]


def prefix(model: AnalysisModel, text: TracedText, layer: int) -> Float[Tensor, "tokens d_model"]:
    """The residual stream before a layer, remembered with the text."""
    if layer not in text.prefixes:
        text.prefixes[layer] = model.residual_before(torch.tensor([text.tokens]), layer)[0]
    return text.prefixes[layer]


def continue_from(
    model: AnalysisModel,
    text: TracedText,
    layer: int,
    interventions: Sequence[Intervention],
    references: Sequence[Float[Tensor, "*d_head"]],
) -> tuple[Float[Tensor, "tokens d_model"], list[Float[Tensor, "tokens *d_head"]]]:
    """The residual stream after the last block under all interventions together, and what each unit's values were set
    to.

    Args:
        layer: the first layer that is intervened on.
        references: each unit's reference mean.
    """
    replaced: dict[int, Tensor] = {}
    hooks = replacing(interventions, references, replaced=replaced)
    residual = model.continued(prefix(model, text, layer)[None], layer, hooks)[0]
    return residual, [replaced[place] for place in range(len(interventions))]


def continued_with_activations(
    model: AnalysisModel, residual: Float[Tensor, "sequences length d_model"], layer: int, hooks: Hooks
) -> tuple[Float[Tensor, "sequences length d_model"], Float[Tensor, "sequences length d_mlp"]]:
    """From the residual stream before a layer, the one after the last block and the last layer's activations.

    Args:
        hooks: what is done to values that pass on the way.
    """
    kept: list[Tensor] = []

    def keep(activations: Tensor, hook: Any) -> None:
        kept.append(activations.detach().float())

    reading = (hook_points.activations(model.last_layer), keep)
    return model.continued(residual, layer, [*hooks, reading]), kept[-1]


def residuals_before(
    model: AnalysisModel, tokens: Int[Tensor, "sequences length"], layers: Iterable[int]
) -> dict[int, Float[Tensor, "sequences length d_model"]]:
    """The residual stream before each of some layers, from one pass over tokens."""
    names = {layer: hook_points.residual_before(layer) for layer in sorted(set(layers))}
    _, kept = model.run(tokens, *names.values(), stop_at_layer=max(names) + 1)
    return {layer: kept[name] for layer, name in names.items()}


def ablate_each(
    model: AnalysisModel,
    tokens: Int[Tensor, "length"],
    layer: int,
    targets: Float[Tensor, "d_mlp"],
    positions: Int[Tensor, "tokens"],
    advanced: Callable[[int], None] = lambda neurons: None,
    frequency: UnigramReadout | None = None,
) -> Effects:
    """What setting each neuron of a layer, alone and at every position of a sequence, does at some positions.

    The part of the model before the layer runs once; from there on many ablated copies of the sequence run together.

    Args:
        tokens: one sequence.
        targets: the activation that replaces each neuron's.
        positions: where effects are measured; each has a next token.
        advanced: called with the number of neurons that were finished since the last call.
    """
    start = model.residual_before(tokens[None], layer)
    plain = model.continued(start, layer, [])[0]
    unablated = Unablated.of(model.readout, plain[positions], tokens[positions + 1].to(plain.device), frequency)
    at_once = max(1, _TOKENS_AT_ONCE // len(tokens))
    parts: list[Effects] = []
    for neurons in torch.arange(len(targets)).split(at_once):
        hooks: Hooks = [(hook_points.activations(layer), _each_to(neurons, targets))]
        after = model.continued(start.expand(len(neurons), -1, -1), layer, hooks)
        parts += [effects_of_residual(model.readout, unablated, residual[positions]) for residual in after]
        advanced(len(neurons))
    return joined_effects(parts)


def _each_to(neurons: Tensor, targets: Tensor) -> Any:
    def replace(values: Tensor, hook: Any) -> Tensor:
        changed = values.clone()
        copies = torch.arange(len(neurons))
        changed[copies, :, neurons] = targets[neurons, None].to(values)
        return changed

    return replace
