"""A neuron's class, derived from its metrics: the rule and its thresholds, in one place.

An entropy neuron writes into the unembedding's null space (high null_fraction), moves few logits of its own (low
logit_var), acts through the final norm (high ln_mediated) and has an effect worth the name (total_effect above the
run's median); §3 of the paper. A prediction neuron moves particular tokens (high logit_var). Thresholds are quantiles
within the run, so that they mean the same for every model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.glossary import NeuronClass

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Thresholds:
    """Quantiles (0..1) within the run, and one absolute floor."""

    null_fraction: float = 0.98
    logit_var_low: float = 0.25
    logit_var_high: float = 0.98
    total_effect: float = 0.5
    ln_mediated: float = 0.2
    """Not a quantile: the least share of the effect that must go through the norm."""


DEFAULT = Thresholds()


def classify(columns: Columns, thresholds: Thresholds = DEFAULT) -> list[NeuronClass]:
    """The class of every neuron, [n_neurons].

    Args:
        columns: metrics by name, each [n_neurons], NaN where not measured. Before effects are measured no neuron is
            called an entropy neuron: weights alone do not show the mechanism.
    """
    null_fraction, logit_var = columns["null_fraction"], columns["logit_var"]
    count = len(null_fraction)
    prediction = logit_var >= _quantile(logit_var, thresholds.logit_var_high)
    entropy = np.zeros(count, dtype=bool)
    if "ln_mediated" in columns and "total_effect" in columns:
        total_effect = columns["total_effect"]
        entropy = (
            (null_fraction >= _quantile(null_fraction, thresholds.null_fraction))
            & (logit_var <= _quantile(logit_var, thresholds.logit_var_low))
            & (columns["ln_mediated"] >= thresholds.ln_mediated)
            & (total_effect >= _quantile(total_effect, thresholds.total_effect))
        )
    return ["entropy" if e else "prediction" if p else "plain" for e, p in zip(entropy, prediction, strict=True)]


def explain(
    neuron_class: NeuronClass, metrics: Mapping[str, float | None], percentiles: Mapping[str, float | None]
) -> str:
    """One sentence: why a neuron has its class, with its numbers and percentiles (0..100)."""

    def told(name: str, label: str, digits: str, unit: str = "") -> str:
        value, percentile = metrics.get(name), percentiles.get(name)
        if value is None:
            return f"{label} not measured yet"
        place = "" if percentile is None else f" (percentile {percentile:.1f})"
        return f"{label} {value:{digits}}{unit}{place}"

    rho = told("null_fraction", "null-space fraction", ".2f")
    variance = told("logit_var", "logit variance", ".2e")
    mediated = told("ln_mediated", "LayerNorm-mediated share", ".2f")
    effect = told("total_effect", "total effect", ".4f", " nats")
    if neuron_class == "entropy":
        numbers = f"{rho}, {variance}, {mediated}, {effect}"
        return f"It writes into the unembedding's null space and acts through the final norm: {numbers}."
    if neuron_class == "prediction":
        return f"It moves the logits of particular tokens: {variance}; {rho}, {mediated}."
    if neuron_class == "token_frequency":
        share = told("freq_mediated", "frequency-mediated share", ".2f")
        return f"It shifts the prediction along the unigram direction: {share}."
    return f"No class stands out: {rho}, {variance}, {mediated}, {effect}."


def _quantile(values: NDArray[np.float64], level: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, level)) if finite.size else np.inf
