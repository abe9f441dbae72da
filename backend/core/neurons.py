"""The names of what can be intervened on: a neuron `layer.index` (`11.2378`), a head `L5H1`; all from 0."""

import re
from dataclasses import dataclass
from typing import Self

from backend.core.errors import BadNeuron

_NAME = re.compile(r"([0-9]{1,4})\.([0-9]{1,7})", re.ASCII)
_HEAD = re.compile(r"L([0-9]{1,4})H([0-9]{1,4})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, order=True)
class NeuronId:
    """One entry of an MLP's hidden state, the input of W_out."""

    layer: int
    index: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `11.2378`.

        Raises:
            BadNeuron: the name is not two whole numbers joined by a full stop.
        """
        match = _NAME.fullmatch(name.strip())
        if match is None:
            raise BadNeuron(f"{name[:40]!r} is not a neuron: write layer.index, both from 0, as in 11.2378.")
        return cls(int(match[1]), int(match[2]))

    def within(self, n_layers: int, d_mlp: int) -> Self:
        """This neuron, if a model of that size has it.

        Raises:
            BadNeuron: the layer or the index is out of range.
        """
        if self.layer >= n_layers:
            raise BadNeuron(f"Neuron {self} does not exist: the model's layers are 0 to {n_layers - 1}.")
        if self.index >= d_mlp:
            raise BadNeuron(f"Neuron {self} does not exist: a layer's neurons are 0 to {d_mlp - 1}.")
        return self

    def __str__(self) -> str:
        return f"{self.layer}.{self.index}"


@dataclass(frozen=True, order=True)
class HeadId:
    """An attention head; its values are the z that W_O reads, [tokens, d_head]."""

    layer: int
    index: int

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read `L5H1`.

        Raises:
            BadNeuron: the name is not that of a head.
        """
        match = _HEAD.fullmatch(name.strip())
        if match is None:
            raise BadNeuron(f"{name[:40]!r} is not a head: write its layer and number, both from 0, as in L5H1.")
        return cls(int(match[1]), int(match[2]))

    def within(self, n_layers: int, n_heads: int) -> Self:
        """This head, if a model of that size has it.

        Raises:
            BadNeuron: the layer or the head is out of range.
        """
        if self.layer >= n_layers:
            raise BadNeuron(f"Head {self} does not exist: the model's layers are 0 to {n_layers - 1}.")
        if self.index >= n_heads:
            raise BadNeuron(f"Head {self} does not exist: a layer's heads are 0 to {n_heads - 1}.")
        return self

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"


Unit = NeuronId | HeadId


def parse_unit(name: str) -> Unit:
    """Read the name of a neuron or of a head.

    Raises:
        BadNeuron: it is neither.
    """
    if _HEAD.fullmatch(name.strip()):
        return HeadId.parse(name)
    return NeuronId.parse(name)
