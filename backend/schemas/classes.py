"""By which rule a run's neurons have their classes, and where the paper's own criterion parts from them."""

from typing import Literal

from backend.glossary import NeuronClass
from backend.schemas.base import FiniteFloat, NeuronName, Number, Wire


class RunChance(Wire):
    """What the most extreme of a run's neurons would reach were all their directions random: a line that is crossed by
    at least one of them in 5 % of models without structure."""

    neurons: int
    """How many random directions a line stands for."""
    null_fraction: FiniteFloat
    """Above it a neuron writes into the null space by more than chance."""
    logit_var_low: FiniteFloat
    """Below it a neuron moves fewer tokens of its own than any random direction."""
    logit_var_high: FiniteFloat
    """Above it a neuron moves some tokens more than any random direction."""
    freq_alignment: Number = None
    """Of the absolute cosine; null until the run knows its token frequencies."""


class ClassCondition(Wire):
    """One condition of a class: a metric and the limit that it must pass."""

    metric: str
    side: Literal["above", "below", "beyond"]
    """`beyond`: the absolute value is above."""
    limit: Number
    """Null where the run does not know it yet."""
    is_chance: bool
    """Whether the limit is a chance line; else it is a cut."""
    errors: FiniteFloat
    """Standard errors by which the limit must be passed; 0 for metrics of the weights, which have none."""


class ClassRule(Wire):
    """What a class asks for: all conditions hold. A neuron that fits several classes has the first of the list."""

    neuron_class: NeuronClass
    conditions: list[ClassCondition]


class MarkedNeuron(Wire):
    """A neuron beside the paper's own criterion."""

    neuron: NeuronName
    norm_percentile: Number
    """Share (0..100) of the run's neurons whose weight norm is at most this one's."""
    paper_criterion: bool | None
    """Null where that is not known."""


class RunClasses(Wire):
    """The classes of a run."""

    rules: list[ClassRule]
    """Empty for a run made before there were chance lines: its classes are by quantiles within the run."""
    counts: dict[NeuronClass, int]
    """How many neurons have each class."""
    fit_but_before: dict[NeuronClass, int]
    """How many neurons fit a class's rule, and are not counted in it since they have a class that goes before it."""
    effects_measured: bool
    """Whether there are effects with errors, without which no neuron is an entropy or a token-frequency neuron."""
    entropy: list[MarkedNeuron]
    """The entropy neurons, those with the largest total effect first; at most 50."""
    paper_criterion: int | None
    """How many neurons have the paper's mark; null where that is not known."""
    both: int
    """How many entropy neurons have it."""
