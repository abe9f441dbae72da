"""Names of neurons (`11.2378`) and attention heads (`L5H1`): whether something reads as one, and what it says."""

import re

from pydantic import TypeAdapter, ValidationError

from backend.schemas import HeadName, NeuronName, UnitName

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


def _reads_as(pattern: TypeAdapter[str], name: object) -> bool:
    try:
        pattern.validate_python(name)
    except ValidationError:
        return False
    return True
