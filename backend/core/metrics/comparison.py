"""Two runs beside each other: whether their neurons correspond, and how far what was measured of them agrees.

Neurons correspond by their index where two runs are of one layer in one architecture of one size. That the shapes agree
does not make two neurons the same: of two trainings that began apart, neurons of one index have nothing in common.
`chance_correlation` says what such pairs reach.

**Rank correlation.** Spearman's, of a metric's values in both runs, is over all neurons of the layer. Its 95 % interval
is over neurons: what another layer of as many such neurons could give. It comes from the correlation's influence
function (the infinitesimal jackknife), which holds for any joint distribution and for ties, on Fisher's scale, so that
it ends at ±1.

**The noise ceiling.** A metric that is measured on text is noisy, and noise lowers every correlation (Spearman 1904,
"The proof and measurement of association between two things"). The reliability of a run's ranks is estimated from its
standard errors: if adding that noise once more leaves the correlation c with the values as they are, the reliability is
2 − 1/c², to first order in the noise's share of the variance; where more than half of it is noise that says little, and
no ceiling is given. √(reliability · reliability) is what two samples of this size would agree to were the neurons the
very same. Noise is drawn independently for each neuron; what all neurons of a
run share, as they are measured on the same tokens, changes ranks little, so that two runs may agree better than this.

**Differences.** Of a neuron, z = (b − a)/√(se_a² + se_b²). Where two runs measured the same tokens their errors go
together, and z is smaller than it should be, never larger, unless they go against each other. Of thousands of neurons
the largest |z| is large by chance: `chance_change` is what one of them exceeds with probability 5 % at most where none
differs, by Student's distribution with the degrees of freedom of the run with fewer groups of sequences (Welch's are
never fewer). The error of a mean difference over neurons does not follow from theirs, since neurons share tokens; it is
at most √(mean(se_a)² + mean(se_b)²), however they go together.

**Classes.** How many neurons have a class in both runs, beside what two independent choices of as many out of all would
share: hypergeometric.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from backend.core.metrics.chance import FAMILYWISE
from backend.core.metrics.jackknife import interval_errors, student_quantile
from backend.core.metrics.statistics import rank_correlation, ranks

Array = NDArray[np.float64]

FEWEST_NEURONS = 10
"""Below these an interval over neurons says nothing."""
LEAST_RELIABILITY = 0.5
"""Of a column's ranks, below which no noise ceiling is given."""
_DRAWS = 8
"""Times that noise is drawn for a reliability."""
_SEED = 20240624


@dataclass(frozen=True)
class LayerShape:
    """What must be equal for two runs' neurons to correspond by their index."""

    architecture: str
    n_layers: int
    d_model: int
    d_mlp: int
    layer: int


def differing_shapes(a: LayerShape, b: LayerShape) -> list[str]:
    """The names of the fields of `LayerShape` in which two runs differ; none where neurons correspond."""
    return [name for name in LayerShape.__dataclass_fields__ if getattr(a, name) != getattr(b, name)]


@dataclass(frozen=True)
class RankAgreement:
    """Spearman's correlation of a metric in two runs, with its 95 % interval over neurons; pure numbers."""

    value: float
    low: float | None
    """None, as `high`, where there are too few neurons for an interval."""
    high: float | None


def rank_agreement(a: Float64[Array, "neurons"], b: Float64[Array, "neurons"]) -> RankAgreement | None:
    """Spearman's correlation of two finite columns and its 95 % interval; None where one of them does not vary."""
    value = rank_correlation(a, b)
    if value is None:
        return None
    if len(a) < FEWEST_NEURONS:
        return RankAgreement(value, None, None)
    left = 1 - value * value
    if left < 1e-12:
        return RankAgreement(value, value, value)
    reach = interval_errors(len(a)) * _rank_correlation_error(a, b, value) / left
    low, high = (math.tanh(math.atanh(value) + end) for end in (-reach, reach))
    return RankAgreement(value, min(low, value), max(high, value))


def _rank_correlation_error(a: Float64[Array, "neurons"], b: Float64[Array, "neurons"], value: float) -> float:
    """The standard error of Spearman's correlation over neurons, from its influence function.

    With u = F(a) and v = G(b), mid-distribution functions with mean ½, the correlation is C/√(V_u·V_v) with C = E[uv] −
    ¼ and V = (1 − Σ p³)/12, p the shares of equal values. A neuron's influence on C is u·v + E[h(a ≤ A)·V] + E[h(b ≤
    B)·U] less its mean, h being ½ at ties, and on V it is −¼·(p² − Σ p³).
    """
    n = len(a)
    u, v = (ranks(a) - 0.5) / n, (ranks(b) - 0.5) / n
    of_covariance = u * v + _mean_above(a, v) + _mean_above(b, u)
    (variance_u, of_u), (variance_v, of_v) = _rank_variance(a), _rank_variance(b)
    influence = of_covariance / math.sqrt(variance_u * variance_v)
    influence -= value / 2 * (of_u / variance_u + of_v / variance_v)
    return float(influence.std(ddof=1) / math.sqrt(n))


def _mean_above(order: Float64[Array, "neurons"], values: Float64[Array, "neurons"]) -> Float64[Array, "neurons"]:
    """Of each neuron the mean over all of values where `order` is above its own, a half of them where it is equal."""
    _, place = np.unique(order, return_inverse=True)
    totals = np.bincount(place, weights=values)
    above = totals.sum() - np.cumsum(totals)
    return np.asarray((above + totals / 2)[place] / len(values))


def _rank_variance(values: Float64[Array, "neurons"]) -> tuple[float, Float64[Array, "neurons"]]:
    """The variance of the mid-distribution function, and each neuron's influence on it."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    shares = counts / len(values)
    cubes = float((shares**3).sum())
    return (1 - cubes) / 12, -(shares[place] ** 2 - cubes) / 4


def reliability(values: Float64[Array, "neurons"], errors: Float64[Array, "neurons"]) -> float | None:
    """The share (0..1) of the variance of a column's ranks that is not noise of the given standard errors; None where
    the column does not vary."""
    rng = np.random.default_rng(_SEED)
    noisy = [rank_correlation(values, values + errors * rng.standard_normal(len(values))) for _ in range(_DRAWS)]
    known = [one for one in noisy if one is not None]
    if not known:
        return None
    kept = sum(known) / len(known)
    return 0.0 if kept <= math.sqrt(0.5) else 2 - 1 / min(1.0, kept) ** 2


def noise_ceiling(
    a: Float64[Array, "neurons"], a_errors: Float64[Array, "neurons"],
    b: Float64[Array, "neurons"], b_errors: Float64[Array, "neurons"],
) -> float | None:  # fmt: skip
    """The rank correlation that two independent samples with these standard errors would have were all neurons the very
    same; None where a column does not vary, has too few neurons, or is noise for the greater part."""
    if len(a) < FEWEST_NEURONS:
        return None
    of_a, of_b = reliability(a, a_errors), reliability(b, b_errors)
    if of_a is None or of_b is None or min(of_a, of_b) < LEAST_RELIABILITY:
        return None
    return math.sqrt(of_a * of_b)


def chance_correlation(neurons: int, metrics: int = 1) -> float:
    """The |rank correlation| that one of several metrics exceeds with probability 5 % where neurons are paired at
    random, by the normal limit with variance 1/(neurons − 1)."""
    return NormalDist().inv_cdf(1 - FAMILYWISE / (2 * metrics)) / math.sqrt(max(1, neurons - 1))


@dataclass(frozen=True)
class MeanDifference:
    """A mean over neurons of b − a, in the metric's unit, and the most that its standard error can be; None where a run
    has no errors."""

    value: float
    error: float | None


def mean_difference(
    a: Float64[Array, "neurons"], b: Float64[Array, "neurons"],
    a_errors: Float64[Array, "neurons"] | None, b_errors: Float64[Array, "neurons"] | None,
) -> MeanDifference | None:  # fmt: skip
    """The mean of b − a over neurons; None where there are none."""
    if not len(a):
        return None
    error = None
    if a_errors is not None and b_errors is not None:
        error = float(np.hypot(a_errors.mean(), b_errors.mean()))
    return MeanDifference(float((b - a).mean()), error if error is not None and math.isfinite(error) else None)


@dataclass(frozen=True)
class LargerShare:
    """P(b > a) + ½·P(b = a) for a neuron of each run drawn at random, and its standard error over neurons."""

    value: float
    error: float | None


def larger_share(a: Float64[Array, "of_a"], b: Float64[Array, "of_b"]) -> LargerShare | None:
    """How often a neuron of b has the larger value than one of a; None where either has none.

    Neurons need not correspond. The error is DeLong's, DeLong and Clarke-Pearson's (1988), from each value's place
    among those of the other run.
    """
    if not len(a) or not len(b):
        return None
    together = ranks(np.concatenate([a, b]))
    of_a = (together[: len(a)] - ranks(a)) / len(b)  # how many of b lie below each of a
    of_b = (together[len(a) :] - ranks(b)) / len(a)
    if min(len(a), len(b)) < FEWEST_NEURONS:
        return LargerShare(float(of_b.mean()), None)
    return LargerShare(float(of_b.mean()), math.sqrt(of_a.var(ddof=1) / len(a) + of_b.var(ddof=1) / len(b)))


def standardised_change(
    a: Float64[Array, "neurons"], b: Float64[Array, "neurons"],
    a_errors: Float64[Array, "neurons"], b_errors: Float64[Array, "neurons"],
) -> Float64[Array, "neurons"]:  # fmt: skip
    """z = (b − a)/√(se_a² + se_b²) of every neuron; NaN where one of these is missing or both errors are 0."""
    error = np.hypot(a_errors, b_errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, (b - a) / error, np.nan)


def chance_change(neurons: int, groups: int) -> float:
    """The |z| that the largest of so many neurons exceeds with probability 5 % at most where none differs.

    Args:
        groups: of sequences, behind the errors of the run that has fewer of them; infinite below two.
    """
    if groups < 2:
        return math.inf
    tail = -math.expm1(math.log1p(-FAMILYWISE) / max(1, neurons)) / 2
    return student_quantile(tail, groups - 1)


@dataclass(frozen=True)
class SharedMembers:
    """How many of `neurons` neurons are chosen in a, in b and in both, beside chance."""

    neurons: int
    in_a: int
    in_b: int
    in_both: int
    expected: float
    """How many two independent choices share on average."""
    p_value: float
    """The probability that they share at least as many."""


def shared_members(a: Bool[NDArray[np.bool_], "neurons"], b: Bool[NDArray[np.bool_], "neurons"]) -> SharedMembers:
    """Which neurons two runs choose, beside the hypergeometric distribution of as many chosen at random."""
    neurons, in_a, in_b, both = len(a), int(a.sum()), int(b.sum()), int((a & b).sum())
    expected = in_a * in_b / neurons if neurons else 0.0
    return SharedMembers(neurons, in_a, in_b, both, expected, _share_at_least(both, neurons, in_a, in_b))


def _share_at_least(both: int, neurons: int, in_a: int, in_b: int) -> float:
    """P(X ≥ both), X hypergeometric."""
    lowest, highest = max(0, in_a + in_b - neurons), min(in_a, in_b)
    if both <= lowest:
        return 1.0
    logs = [
        _log_choose(in_a, shared) + _log_choose(neurons - in_a, in_b - shared) - _log_choose(neurons, in_b)
        for shared in range(both, highest + 1)
    ]
    return min(1.0, math.fsum(math.exp(one) for one in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def largest(values: Float64[Array, "neurons"], most: int) -> Int64[NDArray[np.int64], "largest"]:
    """The neurons with the largest |value|, the largest first; those without a value are left out."""
    known = np.flatnonzero(np.isfinite(values))
    return known[np.argsort(-np.abs(values[known]), kind="stable")][:most]
