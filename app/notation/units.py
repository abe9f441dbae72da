"""Names of neurons (`11.2378`, of a mixture of experts `11.3.240`) and attention heads (`L5H1`): whether something
reads as one, what it says, and how it is written."""

import re

from pydantic import TypeAdapter, ValidationError

from backend.core.errors import BadNeuron
from backend.core.neurons import Experts, NeuronId, parse_unit
from backend.schemas import ExpertLayout, HeadName, NeuronName, UnitName

_NEURON: TypeAdapter[str] = TypeAdapter(NeuronName)
_HEAD: TypeAdapter[str] = TypeAdapter(HeadName)
_UNIT: TypeAdapter[str] = TypeAdapter(UnitName)


def is_neuron(name: object) -> bool:
    """Whether something reads as a neuron's name, layer.index."""
    return _reads_as(_NEURON, name)


def is_head(name: object) -> bool:
    """Whether something reads as a head's name, as L5H1."""
    return _reads_as(_HEAD, name)


def is_unit(name: object) -> bool:
    """Whether something reads as the name of what an intervention can be on: a neuron, or a head (`l5h1` too)."""
    return _reads_as(_UNIT, name)


def layer_and_number(head: str) -> tuple[int, int]:
    """Layer and number of a head by its name.

    Raises:
        ValueError: the name is not a head's.
    """
    if not is_head(head):
        raise ValueError(f"{head} is not a head: L5H1 is.")
    layer, number = re.findall(r"\d+", head)
    return int(layer), int(number)


def neuron_name(layer: int, index: int, experts: ExpertLayout | None) -> str:
    """A neuron's name from its index among all of its layer's.

    Args:
        experts: those of the layer; None where it has none.
    """
    return str(NeuronId(layer, index, _experts(experts)))


def refusal(name: str, n_layers: int, d_mlp: int, experts: ExpertLayout | None) -> str | None:
    """Why a model of that size has no neuron or head of that name, or None; how many heads a layer has is left to the
    service to say."""
    try:
        unit = parse_unit(name, _experts(experts))
        unit.within(n_layers, d_mlp if isinstance(unit, NeuronId) else unit.index + 1)
    except BadNeuron as error:
        return str(error)
    return None


def _experts(layout: ExpertLayout | None) -> Experts | None:
    return None if layout is None else Experts(layout.count, layout.width, layout.shared)


def _reads_as(pattern: TypeAdapter[str], name: object) -> bool:
    try:
        pattern.validate_python(name)
    except ValidationError:
        return False
    return True
