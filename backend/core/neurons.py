"""The name of a neuron: `layer.index`, both from 0, as in the paper (`11.2378`)."""

import re
from dataclasses import dataclass
from typing import Self

from backend.core.errors import BadNeuron

_NAME = re.compile(r"([0-9]{1,4})\.([0-9]{1,7})", re.ASCII)


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
