"""A neuron's class, derived from its metrics: the rule and its thresholds, in one place.

An entropy neuron writes into the unembedding's null space (high null_fraction), moves few logits of its own (low
logit_var), acts through the final norm (high ln_mediated) and has an effect worth the name (total_effect above the
run's median); §3 of the paper. A token-frequency neuron moves the prediction's distance from the token frequencies
(high abs_delta_kl) and acts along their direction (high freq_mediated); §4. A prediction neuron moves particular tokens
(high logit_var). Thresholds are quantiles within the run, so that they mean the same for every model; a neuron that
fits several rules has the first of these classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.glossary import NeuronClass

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Thresholds:
    """Quantiles (0..1) within the run, and two absolute floors."""

    null_fraction: float = 0.98
    logit_var_low: float = 0.25
    logit_var_high: float = 0.98
    total_effect: float = 0.5
    ln_mediated: float = 0.2
    """Not a quantile: the least share of the effect that must go through the norm."""
    abs_delta_kl: float = 0.9
    freq_mediated: float = 0.2
    """Not a quantile either: the least share that must go along the token-frequency direction."""


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
    frequency = np.zeros(count, dtype=bool)
    if "freq_mediated" in columns and "abs_delta_kl" in columns:
        moved = columns["abs_delta_kl"]
        frequency = (columns["freq_mediated"] >= thresholds.freq_mediated) & (
            moved >= _quantile(moved, thresholds.abs_delta_kl)
        )
    rules: list[tuple[NeuronClass, NDArray[np.bool_]]] = [
        ("entropy", entropy), ("token_frequency", frequency), ("prediction", prediction),
    ]  # fmt: skip
    return [next((name for name, fits in rules if fits[index]), "plain") for index in range(count)]


def explain(
    neuron_class: NeuronClass, metrics: Mapping[str, float | None], percentiles: Mapping[str, float | None]
) -> str:
    """One sentence: why a neuron has its class, with its numbers and percentiles (0..100)."""

    def told(name: str, label: str, digits: str, unit: str = "") -> str:
        value, percentile = metrics.get(name), percentiles.get(name)
        if value is None:
            return f"{label} not measured yet"
        place = "" if percentile is None else f" (percentile {percentile:.1f})"
        return f"{label} {value:{digits}}".replace("-", "−") + unit + place

    rho = told("null_fraction", "null-space fraction", ".2f")
    variance = told("logit_var", "logit variance", ".3g")
    mediated = told("ln_mediated", "LayerNorm-mediated share", ".2f")
    effect = told("total_effect", "total effect", ".4f", " nats")
    if neuron_class == "entropy":
        numbers = f"{rho}, {variance}, {mediated}, {effect}"
        return f"It writes into the unembedding's null space and acts through the final norm: {numbers}."
    if neuron_class == "prediction":
        return f"It moves the logits of particular tokens: {variance}; {rho}, {mediated}."
    if neuron_class == "token_frequency":
        share = told("freq_mediated", "frequency-mediated share", ".2f")
        distance = told("abs_delta_kl", "mean change of the distance from token frequencies", ".4f", " nats")
        cosine = metrics.get("freq_alignment")
        does = "shifts" if cosine is None else "raises" if cosine > 0 else "suppresses"
        what = "the prediction along the token-frequency direction" if cosine is None else "common tokens when active"
        return f"It {does} {what}: {share}, {distance}."
    return f"No class stands out: {rho}, {variance}, {mediated}, {effect}."


def _quantile(values: NDArray[np.float64], level: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, level)) if finite.size else np.inf
