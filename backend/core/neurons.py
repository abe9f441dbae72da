"""The names of what can be intervened on: a neuron `layer.index` (`11.2378`), in a mixture of experts
`layer.expert.index` (`11.3.240`, `11.shared.240`), a head `L5H1`; all from 0."""

import re
from dataclasses import dataclass, field
from typing import Self

from backend.core.errors import BadNeuron, NoSuchNeuron

SHARED = "shared"
"""What stands in a name for the expert that every token passes."""
_NAME = re.compile(rf"([0-9]{{1,4}})\.(?:([0-9]{{1,5}}|{SHARED})\.)?([0-9]{{1,7}})", re.ASCII | re.IGNORECASE)
_HEAD = re.compile(r"L([0-9]{1,4})H([0-9]{1,4})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Experts:
    """How the neurons of a mixture of experts follow each other: expert by expert, those of a shared one last."""

    count: int
    """Experts that the router chooses from."""
    width: int
    """Neurons of each of them."""
    shared: int = 0
    """Neurons of the expert that every token passes; 0 where there is none."""

    @classmethod
    def of_layer(cls, count: int | None, width: int | None, neurons: int) -> Self | None:
        """From what is kept of a model: how many experts, of how many neurons, and all neurons of a layer; None where
        its layers have no experts."""
        return cls(count, width, neurons - count * width) if count and width else None

    @property
    def neurons(self) -> int:
        """All neurons of a layer."""
        return self.count * self.width + self.shared

    @property
    def form(self) -> str:
        """How a neuron's name is written, in words that follow `write`."""
        shared = f", {SHARED} for the shared expert" if self.shared else ""
        return f"layer.expert.index, all from 0, as in 11.3.240{shared}"

    def name(self, index: int) -> str:
        """`3.240` of a neuron's index in its layer."""
        expert = self.expert(index)
        start = self.width * (self.count if expert == SHARED else int(expert))
        return f"{expert}.{index - start}"

    def expert(self, index: int) -> str:
        """Which expert a neuron belongs to: a number, or `shared`."""
        return SHARED if index >= self.count * self.width else str(index // self.width)

    def index(self, expert: str, place: int) -> int:
        """A neuron's index in its layer.

        Raises:
            NoSuchNeuron: there is no such expert, or it has no such neuron.
        """
        if expert.lower() == SHARED:
            if not self.shared:
                raise NoSuchNeuron(f"A layer has no shared expert: its experts are 0 to {self.count - 1}.")
            start, width = self.count * self.width, self.shared
        elif int(expert) >= self.count:
            also = f", and {SHARED}" if self.shared else ""
            raise NoSuchNeuron(f"A layer has no expert {int(expert)}: its experts are 0 to {self.count - 1}{also}.")
        else:
            start, width = int(expert) * self.width, self.width
        if place >= width:
            raise NoSuchNeuron(f"Expert {expert} has no neuron {place}: its neurons are 0 to {width - 1}.")
        return start + place


@dataclass(frozen=True, order=True)
class NeuronId:
    """One entry of an MLP's hidden state, the input of W_out."""

    layer: int
    index: int
    """Among all neurons of the layer, those of all experts."""
    experts: Experts | None = field(default=None, compare=False, repr=False)
    """How the layer's neurons are divided among experts; None where it has none."""

    @classmethod
    def parse(cls, name: str, experts: Experts | None = None) -> Self:
        """Read `11.2378`, or of a mixture of experts `11.3.240`.

        Args:
            experts: those of the model's layers; None where they have none.

        Raises:
            BadNeuron: the name is not of that form; NoSuchNeuron: there is no such expert, or it has no such neuron.
        """
        match = _NAME.fullmatch(name.strip())
        if match is not None:
            layer, expert, index = int(match[1]), match[2], int(match[3])
            if expert is None and experts is None:
                return cls(layer, index)
            if expert is not None and experts is not None:
                return cls(layer, experts.index(expert, index), experts)
        form = "layer.index, both from 0, as in 11.2378" if experts is None else experts.form
        raise BadNeuron(f"{name[:40]!r} is not a neuron of this model: write {form}.")

    @property
    def routed_expert(self) -> int | None:
        """The expert that the neuron belongs to, where a router chooses it; None where every token passes it."""
        expert = SHARED if self.experts is None else self.experts.expert(self.index)
        return None if expert == SHARED else int(expert)

    def within(self, n_layers: int, d_mlp: int) -> Self:
        """This neuron, if a model of that size has it.

        Raises:
            NoSuchNeuron: the layer or the index is out of range.
        """
        if self.layer >= n_layers:
            raise NoSuchNeuron(f"Neuron {self} does not exist: the model's layers are 0 to {n_layers - 1}.")
        if self.index >= d_mlp:
            raise NoSuchNeuron(f"Neuron {self} does not exist: a layer's neurons are 0 to {d_mlp - 1}.")
        return self

    def __str__(self) -> str:
        return f"{self.layer}.{self.index if self.experts is None else self.experts.name(self.index)}"


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
            NoSuchNeuron: the layer or the head is out of range.
        """
        if self.layer >= n_layers:
            raise NoSuchNeuron(f"Head {self} does not exist: the model's layers are 0 to {n_layers - 1}.")
        if self.index >= n_heads:
            raise NoSuchNeuron(f"Head {self} does not exist: a layer's heads are 0 to {n_heads - 1}.")
        return self

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"


Unit = NeuronId | HeadId


def parse_unit(name: str, experts: Experts | None = None) -> Unit:
    """Read the name of a neuron or of a head.

    Args:
        experts: those of the model's layers; None where they have none.

    Raises:
        BadNeuron: it is neither.
    """
    if _HEAD.fullmatch(name.strip()):
        return HeadId.parse(name)
    return NeuronId.parse(name, experts)
