"""What the live engine holds and answers with: models by name, traced texts, and what is done to them."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backend.core.interventions.ablation import TextAblation
from backend.core.interventions.generation import EndReason, Step
from backend.core.metrics.effects import Effects
from backend.core.models.beginning import Beginning
from backend.core.models.traced_text import TracedText
from backend.core.neurons import Experts


@dataclass(frozen=True)
class LiveModel:
    """Which model a request is about: its slug in addresses, the source it is loaded from, and how texts begin."""

    slug: str
    source: str
    beginning: Beginning | None = None
    """As the model's run has it; None where no run tells: then texts begin as the tokenizer itself has it."""
    weights: str | None = None
    """The hash of the weights that its runs were measured on; None where there is no run."""
    experts: Experts | None = None
    """How a layer's neurons are divided among experts; None where it has none."""


Distances = Tensor
"""D_KL(P_freq‖P) at every token of a text, [tokens]."""


@dataclass(frozen=True)
class LiveFrequencies:
    """The token frequencies of a run."""

    described: str
    """Where they come from."""
    p: NDArray[np.float32]
    """P_freq by token id."""

    @cached_property
    def key(self) -> str:
        """What tells them from others: a run's number does not, because the atlas may be replaced by another."""
        return hashlib.sha256(np.ascontiguousarray(self.p, dtype="<f4").tobytes()).hexdigest()


@dataclass(frozen=True)
class LiveText:
    """A traced text, with what is needed to show and to ablate it."""

    id: str
    model: LiveModel
    layer: int
    """Whose activations `traced` holds."""
    traced: TracedText
    beginning: Beginning | None
    """What was put before the text, and why; None for a sequence of tokens that was taken as it is."""
    strings: dict[int, str]
    """By token id: of the text's tokens and of its predictions."""
    weights: str
    """Fingerprint of the files of the model that it was traced by."""
    ablations: dict[Hashable, TextAblation] = field(default_factory=dict, repr=False)
    """The newest ablation of it, by what was asked: a token chosen in it asks for the same again."""

    def distances(self, frequencies: LiveFrequencies) -> Distances | None:
        """How far its predictions are from a run's token frequencies, where that has been computed."""
        return self.traced.distances.get(frequencies.key)


@dataclass(frozen=True)
class LiveAblation:
    """A text under interventions, and the strings of the tokens it predicts."""

    result: TextAblation
    strings: dict[int, str]


@dataclass(frozen=True)
class LiveGenerationStep:
    """A token of each continuation, the strings of the tokens by id, and why there is no further step, or None."""

    step: Step
    strings: dict[int, str]
    ended: EndReason | None


@dataclass(frozen=True)
class LiveTokenWeights:
    """What every neuron of a layer writes towards one token."""

    token: str
    weights: Tensor
    """[n_neurons]"""


@dataclass(frozen=True)
class LiveSweep:
    """Every last-layer neuron ablated alone on a text."""

    effects: Effects
    positions: list[int]
