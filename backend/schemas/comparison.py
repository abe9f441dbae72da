"""Two runs beside each other: how far each metric agrees, which neurons share a class, and which have changed most."""

from typing import Literal

from backend.glossary import NeuronClass
from backend.schemas.base import FiniteFloat, NeuronName, Number, Wire
from backend.schemas.runs import ModelSummary, RunSummary

MAX_CHANGED = 200
"""Neurons whose changes are in one answer."""


class ComparedRun(Wire):
    """One of the two runs, with its card, and whose it is."""

    run: RunSummary
    model: ModelSummary


class MetricAgreement(Wire):
    """A metric in both runs. What compares neuron with neuron is null where neurons do not correspond."""

    metric: str
    pairs: int
    """Neurons with a value in both runs; 0 where neurons do not correspond."""
    rank_correlation: Number
    """Spearman's over these; null where one run's values do not vary."""
    low: Number
    """Lower end of its 95 % interval over neurons; null, as `high`, below ten pairs."""
    high: Number
    noise_ceiling: Number
    """What two samples with these standard errors would agree to were the neurons the very same; null for metrics
    without standard errors, and where noise is the greater part of how neurons differ."""
    median_a: Number
    """Over all neurons of the run that have a value."""
    median_b: Number
    mean_difference: Number
    """Mean of b − a, in the metric's unit."""
    mean_difference_error: Number
    """The most that its standard error can be, however neurons' errors go together; null for metrics without, and
    for one run beside itself."""
    larger_share: Number
    """Probability that a neuron of b, drawn at random, has a larger value than one of a; equal values count half."""
    larger_share_error: Number
    """Standard error over neurons."""


class SharedClass(Wire):
    """How many neurons have a class, or the paper's mark, in both runs, beside chance."""

    name: NeuronClass | Literal["paper_criterion"]
    in_a: int
    in_b: int
    in_both: int
    expected: FiniteFloat
    """How many two independent choices of `in_a` and `in_b` out of all neurons share on average."""
    p_value: FiniteFloat
    """The probability that they share at least `in_both` (hypergeometric)."""
    both: list[NeuronName]
    """The first of them by index; at most 50, as of the next two."""
    only_a: list[NeuronName]
    only_b: list[NeuronName]


class ChangedNeuron(Wire):
    """A neuron in both runs, by one metric."""

    neuron: NeuronName
    class_a: NeuronClass
    class_b: NeuronClass
    a: FiniteFloat
    a_error: Number
    """One standard error; null for metrics without."""
    b: FiniteFloat
    b_error: Number
    difference: FiniteFloat
    """b − a."""
    z: Number
    """difference/√(a_error² + b_error²); null where there are no errors."""


class Changes(Wire):
    """The neurons that one metric has changed most for."""

    metric: str
    by: Literal["z", "difference"]
    """`z` where both runs have standard errors, else the size of the difference."""
    line: Number
    """The |z| that the largest of all these neurons exceeds with probability 5 % at most where none differs; null where
    there are no errors."""
    beyond: int | None
    """How many neurons are beyond it; null where there is no line."""
    rows: list[ChangedNeuron]
    """The most changed first."""


class Comparison(Wire):
    """Two runs beside each other; differences are b − a."""

    a: ComparedRun
    b: ComparedRun
    corresponds: bool
    """Whether neurons of one index are compared with each other: the runs are of one layer in one architecture of one
    size."""
    reason: str
    """Why, or why not."""
    related: bool | None
    """Whether what neurons of one index write goes together more than that of neurons paired at random; null where
    neurons do not correspond. False of two trainings that began apart."""
    same_weights: bool
    same_text: bool | None
    """Whether the very same tokens were measured, so that errors of the two go together; null where a run was made
    before that was kept."""
    metrics: list[MetricAgreement]
    classes: list[SharedClass]
    """Empty where neurons do not correspond."""
    changes: Changes | None
    """Null where neurons do not correspond."""
