"""A neuron's class, derived from its metrics by a rule that noise does not pass.

An entropy neuron writes into the unembedding's null space (null_fraction above its chance line), moves few logits of
its own (logit_var below its chance line), acts through the final norm (ln_mediated) and has an effect worth the name;
§3 of the paper. A token-frequency neuron writes along the token-frequency direction (freq_alignment beyond its chance
line), acts along it (freq_mediated) and moves the prediction from or to the token frequencies (abs_delta_kl); §4. A
prediction neuron moves particular tokens (logit_var above its chance line). A neuron that fits several rules has the
first of these classes; one that fits none is plain, and a model may have plain neurons only.

Two kinds of noise are kept out. A weight metric must be beyond what the most extreme of as many random directions
reaches (`metrics/chance.py`). A measured one must be beyond its cut by two standard errors, or by as many
as a 95 % interval takes where few groups of sequences stand behind them (2.4 for eight, 4.3 for three): without an
error there is no class.

The paper's own criterion, high weight norm and low logit variance, is a mark apart: most of what it marks may be no
entropy neuron, and an entropy neuron need not be heavy. The paper gives no thresholds (it reads its neurons off Figure
2a); here the norm is in the highest tenth of the run and the variance below its chance line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from backend.core.metrics.jackknife import interval_errors
from backend.glossary import CUTS, Cuts, NeuronClass

Columns = Mapping[str, Float64[NDArray[np.float64], "neurons"]]
Numbers = Float64[NDArray[np.float64], "neurons"]


@dataclass(frozen=True)
class ChanceLines:
    """What the most extreme of a run's neurons would reach were all its directions random, one time in twenty."""

    neurons: int
    null_fraction: float
    logit_var_low: float
    logit_var_high: float
    freq_alignment: float | None = None
    """Of the absolute cosine; None until the run knows its token frequencies."""


@dataclass(frozen=True)
class Condition:
    """One metric, on the right side of a limit."""

    metric: str
    side: Literal["above", "below", "beyond"]
    """`beyond`: the absolute value is above."""
    limit: float
    is_chance: bool
    """Whether the limit is a chance line of the weights; else it is a cut, passed by so many standard errors."""
    errors: float = 0.0

    def holds(self, columns: Columns) -> Bool[NDArray[np.bool_], "neurons"]:
        """Of every neuron; a metric without a value or without its error never holds."""
        value = np.abs(columns[self.metric]) if self.side == "beyond" else columns[self.metric]
        margin = self.errors * columns[f"{self.metric}_se"] if self.errors else 0.0
        return value + margin < self.limit if self.side == "below" else value - margin > self.limit

    def is_measured(self, columns: Columns) -> bool:
        """Whether the columns are there at all."""
        return self.metric in columns and (not self.errors or f"{self.metric}_se" in columns)


Rules = Mapping[NeuronClass, Sequence[Condition]]


def rules(chance: ChanceLines, groups: int | None, cuts: Cuts = CUTS) -> Rules:
    """What each class asks for, the class that goes before others first.

    Args:
        groups: of whole sequences, behind the standard errors; None where there are none yet.
    """
    errors = cuts.errors if groups is None else max(cuts.errors, interval_errors(groups))

    def line(metric: str, side: Literal["above", "below", "beyond"], limit: float | None) -> Condition:
        return Condition(metric, side, np.nan if limit is None else limit, is_chance=True)

    def cut(metric: str, limit: float) -> Condition:
        return Condition(metric, "above", limit, is_chance=False, errors=errors)

    return {
        "entropy": (
            line("null_fraction", "above", chance.null_fraction),
            line("logit_var", "below", chance.logit_var_low),
            cut("ln_mediated", cuts.mediated),
            cut("total_effect", cuts.effect),
        ),
        "token_frequency": (
            line("freq_alignment", "beyond", chance.freq_alignment),
            cut("freq_mediated", cuts.mediated),
            cut("abs_delta_kl", cuts.effect),
        ),
        "prediction": (line("logit_var", "above", chance.logit_var_high),),
    }


def classify(columns: Columns, chance: ChanceLines, groups: int | None, cuts: Cuts = CUTS) -> list[NeuronClass]:
    """The class of every neuron.

    Args:
        columns: metrics and their errors by name, NaN where not measured. Before effects are measured
            no neuron is called an entropy neuron: weights alone do not show the mechanism.
    """
    passed = fits(columns, rules(chance, groups, cuts))
    count = len(columns["null_fraction"])
    return [next((name for name in passed if passed[name][index]), "plain") for index in range(count)]


def fits(columns: Columns, by: Rules) -> dict[NeuronClass, Bool[NDArray[np.bool_], "neurons"]]:
    """Which neurons each rule holds for, whatever other rules do; rules whose metrics are not there are
    left out."""
    return {
        name: np.logical_and.reduce([condition.holds(columns) for condition in conditions])
        for name, conditions in by.items()
        if all(condition.is_measured(columns) for condition in conditions)
    }


def paper_criterion(
    weight_norm: Numbers, logit_var: Numbers, chance: ChanceLines, cuts: Cuts = CUTS
) -> Bool[NDArray[np.bool_], "neurons"]:
    """Whether each neuron passes the paper's own selection (§3.1, Figure 2a)."""
    finite = weight_norm[np.isfinite(weight_norm)]
    heavy = weight_norm >= (np.percentile(finite, cuts.norm_percentile) if finite.size else np.inf)
    passes: NDArray[np.bool_] = heavy & (logit_var < chance.logit_var_low)
    return passes


@dataclass(frozen=True)
class Subject:
    """One neuron whose class is to be explained."""

    neuron_class: NeuronClass
    metrics: Mapping[str, float | None]
    """With standard errors, as `<name>_se`."""
    percentiles: Mapping[str, float | None]
    """0..100 within the run."""
    marked: bool | None = None
    """By the paper's own criterion; None where that is not known."""


def explain(subject: Subject, chance: ChanceLines | None, groups: int | None, cuts: Cuts = CUTS) -> str:
    """Why a neuron has its class, with its numbers beside what they are held against.

    Args:
        chance: None of a run made before there were chance lines.
        groups: of whole sequences, behind the standard errors.
    """
    sentences = [_reason(subject, {} if chance is None else rules(chance, groups, cuts))]
    if chance is None:
        sentences.append(
            "The run was made before there were chance lines: its classes are by quantiles within the run, which noise "
            "can pass."
        )
    elif subject.marked is not None:
        sentences.append(_mark(subject, cuts))
    return " ".join(sentence for sentence in sentences if sentence)


_NAMES = {
    "null_fraction": ("null-space fraction", ".2f", ""),
    "logit_var": ("logit variance", ".3g", ""),
    "ln_mediated": ("LayerNorm-mediated share", ".2f", ""),
    "total_effect": ("total effect", ".4f", " nats"),
    "freq_alignment": ("cosine with the token-frequency direction", ".2f", ""),
    "freq_mediated": ("frequency-mediated share", ".2f", ""),
    "abs_delta_kl": ("mean |change of the distance from token frequencies|", ".4f", " nats"),
}
"""How a sentence calls a metric, and how it writes its numbers."""

_SHOWN: Mapping[NeuronClass, tuple[str, ...]] = {
    "entropy": ("null_fraction", "logit_var", "ln_mediated", "total_effect"),
    "token_frequency": ("freq_alignment", "freq_mediated", "abs_delta_kl"),
    "prediction": ("logit_var", "null_fraction", "ln_mediated"),
    "plain": ("null_fraction", "logit_var", "ln_mediated", "total_effect"),
}


def _reason(subject: Subject, applied: Rules) -> str:
    kind = subject.neuron_class
    limits: dict[str, Condition] = {}
    for name in (kind, "entropy"):  # a plain neuron's numbers are held against the limits of entropy neurons
        for condition in applied.get(name, ()):
            limits.setdefault(condition.metric, condition)
    numbers = ", ".join(_number(subject, metric, limits.get(metric)) for metric in _SHOWN[kind])
    if kind == "entropy":
        return f"It writes into the unembedding's null space and acts through the final norm: {numbers}."
    if kind == "prediction":
        return f"It moves the logits of particular tokens: {numbers}."
    if kind == "token_frequency":
        return f"It {_direction(subject.metrics.get('freq_alignment'))}: {numbers}."
    return " ".join([f"No class fits: {numbers}.", *(_nearly(subject, name, applied) for name in _NEARLY)])


_NEARLY: Mapping[NeuronClass, str] = {"entropy": "an entropy neuron", "token_frequency": "a token-frequency neuron"}


def _nearly(subject: Subject, name: NeuronClass, applied: Rules) -> str:
    """What keeps a neuron out of a class whose conditions on the weights it meets; empty where it does not."""
    columns = {metric: np.array([np.nan if value is None else value]) for metric, value in subject.metrics.items()}
    holds = [(c, c.is_measured(columns) and bool(c.holds(columns)[0])) for c in applied.get(name, ())]
    if not holds or not all(met for condition, met in holds if condition.is_chance):
        return ""
    missed = [condition for condition, met in holds if not met]
    if any(subject.metrics.get(condition.metric) is None for condition in missed):
        return f"By its weights it could be {_NEARLY[name]}; its effects are not measured yet."
    if any(subject.metrics.get(f"{condition.metric}_se") is None for condition in missed):
        return f"By its weights it could be {_NEARLY[name]}; its effects are of one sequence and have no error."
    one, names = len(missed) == 1, " and its ".join(_NAMES[condition.metric][0] for condition in missed)
    return (
        f"By its weights it could be {_NEARLY[name]}, but its {names} {'is' if one else 'are'} not above "
        f"{'its cut' if one else 'their cuts'} by {missed[0].errors:.2g} standard errors."
    )


def _number(subject: Subject, metric: str, limit: Condition | None) -> str:
    label, digits, unit = _NAMES[metric]
    value, error = subject.metrics.get(metric), subject.metrics.get(f"{metric}_se")
    if value is None:
        return f"{label} not measured yet"
    beside = [] if limit is None or not np.isfinite(limit.limit) else [_limit(limit)]
    percentile = subject.percentiles.get(metric)
    if percentile is not None:
        beside.append(f"percentile {percentile:.1f}")
    written = f"{value:{digits}}".replace("-", "−") + ("" if error is None else f" ± {error:{digits}}")
    return f"{label} {written}{unit}" + (f" ({', '.join(beside)})" if beside else "")


def _limit(limit: Condition) -> str:
    if not limit.is_chance:
        return f"cut {limit.limit:g}"
    line = f"chance line {limit.limit:{_NAMES[limit.metric][1]}}"
    return f"beyond ± its {line}" if limit.side == "beyond" else line


def _direction(cosine: float | None) -> str:
    if cosine is None:
        return "shifts the prediction along the token-frequency direction"
    return f"{'raises' if cosine > 0 else 'suppresses'} common tokens when active"


def _mark(subject: Subject, cuts: Cuts) -> str:
    norm = subject.percentiles.get("weight_norm")
    where = "" if norm is None else f": weight norm in percentile {norm:.1f}"
    if subject.marked:
        return f"The paper's own criterion, a high weight norm and a low logit variance, marks it{where}."
    if subject.neuron_class != "entropy":
        return ""
    return (
        f"The paper's own criterion does not mark it{where}, where a norm above {cuts.norm_percentile:g} is called "
        "high and the logit variance must be below its chance line."
    )
