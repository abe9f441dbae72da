"""A model's last layer over its training: what the weights say at each step, and runs where there are some."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from backend.glossary import NeuronClass
from backend.schemas.base import FiniteFloat, NeuronName, Number, Wire
from backend.schemas.classes import RunChance

MAX_LINES = 20
"""Neurons whose lines are asked for at once."""


class TrainingSummary(Wire):
    """A training of which some steps were looked at."""

    id: str
    """Used in addresses: the model's without a revision."""
    name: str
    family: str
    layer: int
    """The last, from 0: all that is told is of it."""
    n_neurons: int
    d_model: int
    null_dim: int
    reachable_null_dim: int
    """Directions of the null space that a neuron can write along: k, less one where the norm is LayerNorm. There the
    residual stream's mean is never read, so that one singular value is 0 in every model."""
    steps: int
    """How many were looked at."""
    first: int
    last: int
    measured_at: datetime
    """When the newest was."""


class TrainingList(Wire):
    trainings: list[TrainingSummary]


class MetricSpread(Wire):
    """How a metric is spread over a layer's neurons."""

    lowest: Number
    q05: Number
    """The 5 % quantile over the neurons."""
    median: Number
    q95: Number
    highest: Number
    lowest_neuron: NeuronName | None
    highest_neuron: NeuronName | None


class StepRun(Wire):
    """A finished run of a step's weights."""

    model: str
    """The model's slug."""
    run: int
    counts: dict[NeuronClass, int]
    """How many neurons have each class, effects included."""


class TrainingStepSummary(Wire):
    """A step: all of it is exact, since weights alone are read."""

    revision: str
    step: Annotated[int, Field(ge=0)]
    weights_hash: str
    chance: RunChance
    """What the most extreme of as many random directions reach at this step."""
    spreads: dict[str, MetricSpread]
    """Of the metrics of the weights, by their names in the glossary."""
    above_line: int
    """Neurons whose null-space fraction is above its chance line."""
    by_weights: dict[NeuronClass, int]
    """Neurons that meet all of a class's conditions on the weights. Weights alone do not show how a neuron acts: of
    entropy neurons these are the candidates."""
    paper_criterion: int
    """Neurons that the paper's own selection marks: a high weight norm and a low logit variance."""
    singular_median: FiniteFloat
    """The middle singular value of W_U."""
    singular_tail: list[FiniteFloat]
    """The smallest singular values of W_U, largest first: those of the null space and some before it. Where the norm is
    LayerNorm, without the one that is 0 in every model."""
    run: StepRun | None
    """The newest finished run of these weights; null where there is none."""


class TrainingDetail(Wire):
    training: TrainingSummary
    steps: list[TrainingStepSummary]
    """In order."""


class NeuronLine(Wire):
    """A neuron's metric at each step."""

    neuron: NeuronName
    values: list[Number]
    """Null where it is not measured."""
    errors: list[Number]
    """Standard errors; null for metrics of the weights, which have none, and where nothing is measured."""


class NeuronLines(Wire):
    """Lines over a training; all lists are aligned with its steps."""

    metric: str
    steps: list[int]
    lines: list[NeuronLine]
