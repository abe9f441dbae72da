"""Two runs beside each other: against SciPy, by identities, and on noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from backend.core.metrics import comparison
from backend.core.metrics.jackknife import GroupSums, student_quantile
from backend.core.metrics.statistics import rank_correlation

Column = NDArray[np.float64]
FINITE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 2))
COLUMN = arrays(np.float64, st.integers(10, 40), elements=FINITE)
FEW_VALUES = arrays(np.float64, st.integers(10, 40), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0]))


def varies(column: Column) -> bool:
    return bool(np.ptp(column) > 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(10, 200), st.booleans())
def test_the_rank_correlation_is_scipys(seed: int, size: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=size)
    b = a + rng.standard_cauchy(size=size)
    if tied:
        a, b = np.round(a), np.round(b)
    found = comparison.rank_agreement(a, b)
    if not varies(a) or not varies(b):
        assert found is None
        return
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("tied", [False, True])
def test_its_error_is_that_of_leaving_out_each_neuron(tied: bool) -> None:
    rng = np.random.default_rng(4)
    a = rng.normal(size=150)
    b = a + np.abs(a) * rng.normal(size=150)
    if tied:
        a, b = np.round(a), np.round(b)
    found = comparison.rank_agreement(a, b)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    without = np.array([stats.spearmanr(np.delete(a, i), np.delete(b, i)).statistic for i in range(len(a))])
    expected = math.sqrt((len(a) - 1) / len(a) * ((without - without.mean()) ** 2).sum())
    reach = (math.atanh(found.high) - math.atanh(found.low)) / 2
    error = reach * (1 - found.value**2) / stats.t.isf(0.025, len(a) - 1)
    assert error == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("size", "r"), [(40, 0.0), (40, 0.8), (300, 0.95)])
def test_nine_intervals_in_ten_and_a_half_hold_the_true_correlation(size: int, r: float) -> None:
    rng, held, times = np.random.default_rng(size), 0, 1000
    true = 6 / math.pi * math.asin(r / 2)  # of two normal variables with Pearson's r
    for _ in range(times):
        a = rng.normal(size=size)
        found = comparison.rank_agreement(a, r * a + math.sqrt(1 - r * r) * rng.normal(size=size))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= true <= found.high
    assert 0.92 <= held / times <= 0.975


def test_few_neurons_have_a_correlation_without_an_interval_and_one_value_has_none() -> None:
    few = comparison.rank_agreement(np.arange(5.0), np.arange(5.0) ** 2)
    assert few is not None
    assert few.value == pytest.approx(1)
    assert (few.low, few.high) == (None, None)
    assert comparison.rank_agreement(np.zeros(20), np.arange(20.0)) is None
    assert comparison.rank_agreement(np.zeros(0), np.zeros(0)) is None


@settings(max_examples=60, deadline=None)
@given(COLUMN | FEW_VALUES)
def test_a_run_against_itself_agrees_wholly(column: Column) -> None:
    errors = np.full_like(column, 0.25)
    found = comparison.rank_agreement(column, column)
    if varies(column):
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))
    difference = comparison.mean_difference(column, column, errors, errors)
    assert difference is not None
    assert difference.value == 0
    larger = comparison.larger_share(column, column)
    assert larger is not None
    assert larger.value == pytest.approx(0.5)
    assert not comparison.standardised_change(column, column, errors, errors).any()
    chosen = column > np.median(column)
    shared = comparison.shared_members(chosen, chosen)
    assert shared.in_both == shared.in_a == shared.in_b


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(10, 60))
def test_what_changes_with_the_order_and_with_the_scale(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, a_errors, b_errors = rng.gamma(1.0, size=(4, size))
    forth, back = comparison.rank_agreement(a, b), comparison.rank_agreement(b, a)
    logarithms = comparison.rank_agreement(np.log(a), b**3)
    assert forth is not None
    assert back is not None
    assert logarithms is not None
    for other in (back, logarithms):
        assert (other.value, other.low) == pytest.approx((forth.value, forth.low))
    mirrored = comparison.rank_agreement(-a, b)
    assert mirrored is not None
    assert mirrored.low == pytest.approx(-(forth.high or 0))
    z = comparison.standardised_change(a, b, a_errors, b_errors)
    np.testing.assert_allclose(comparison.standardised_change(b, a, b_errors, a_errors), -z)
    np.testing.assert_allclose(comparison.standardised_change(3 * a, 3 * b, 3 * a_errors, 3 * b_errors), z)
    more, less = comparison.larger_share(a, b), comparison.larger_share(b, a)
    assert more is not None
    assert less is not None
    assert more.value == pytest.approx(1 - less.value)
    assert more.error == pytest.approx(less.error)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40))
def test_how_often_one_run_is_larger_is_mann_and_whitneys(seed: int, of_a: int, of_b: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 9, of_a).astype(float), rng.integers(2, 12, of_b).astype(float)
    found = comparison.larger_share(a, b)
    assert found is not None
    assert found.value == pytest.approx(stats.mannwhitneyu(b, a).statistic / (of_a * of_b))
    assert (found.error is None) == (min(of_a, of_b) < 10)
    assert comparison.larger_share(a, np.zeros(0)) is None


def test_its_error_is_how_far_it_moves_from_sample_to_sample() -> None:
    rng = np.random.default_rng(1)
    found = [comparison.larger_share(rng.gamma(1.0, size=60), 0.3 + rng.gamma(2.0, size=90)) for _ in range(800)]
    values = [one.value for one in found if one is not None]
    errors = [one.error for one in found if one is not None and one.error is not None]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.08)


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 3000), st.data())
def test_shared_members_are_those_of_the_hypergeometric_distribution(neurons: int, data: st.DataObject) -> None:
    in_a, in_b = (data.draw(st.integers(0, neurons)) for _ in range(2))
    both = data.draw(st.integers(max(0, in_a + in_b - neurons), min(in_a, in_b)))
    a, b = np.zeros(neurons, bool), np.zeros(neurons, bool)
    a[:in_a] = True
    b[in_a - both : in_a - both + in_b] = True
    found = comparison.shared_members(a, b)
    assert (found.in_a, found.in_b, found.in_both) == (in_a, in_b, both)
    assert found.expected == pytest.approx(in_a * in_b / neurons)
    assert found.p_value == pytest.approx(stats.hypergeom.sf(both - 1, neurons, in_a, in_b), rel=1e-6, abs=1e-300)


def test_no_neurons_share_nothing() -> None:
    found = comparison.shared_members(np.zeros(0, bool), np.zeros(0, bool))
    assert (found.expected, found.p_value) == (0, 1)


@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-4, 1e-8])
@pytest.mark.parametrize("freedom", [1, 2, 9, 49, 5000])
def test_quantiles_are_students(tail: float, freedom: int) -> None:
    assert student_quantile(tail, freedom) == pytest.approx(stats.t.isf(tail, freedom), rel=1e-6)


def measured(rng: np.random.Generator, truth: Column, groups: int, shared: float) -> tuple[Column, Column]:
    """A run's means and jackknife errors where neurons have these true means; `shared`: how much of the noise is that
    of the tokens, the same for all neurons."""
    noise = rng.gamma(0.5, size=(4 * groups, len(truth))) + shared * rng.gamma(0.5, size=(4 * groups, 1))
    sums = GroupSums.of({"q": truth + noise}, np.arange(4 * groups) % groups).mean("q")
    return sums.value, sums.error


@pytest.mark.parametrize("shared", [0.0, 3.0])
def test_where_no_neuron_has_changed_one_run_in_twenty_at_most_has_one_beyond_the_line(shared: float) -> None:
    rng, crossed, times = np.random.default_rng(3), 0, 200
    truth = rng.gamma(1.0, size=200)
    line = comparison.chance_change(200, 12)
    for _ in range(times):
        (a, a_errors), (b, b_errors) = (measured(rng, truth, groups, shared) for groups in (12, 20))
        crossed += bool(np.abs(comparison.standardised_change(a, b, a_errors, b_errors)).max() > line)
    assert crossed / times <= 0.08


def test_the_line_is_no_farther_than_it_must_be() -> None:
    """Where all noise is that of the run with fewer groups one run in twenty does cross it."""
    rng, crossed, times = np.random.default_rng(4), 0, 1500
    line = comparison.chance_change(50, 8)
    for _ in range(times):
        noise = rng.normal(size=(8, 50))
        error = noise.std(axis=0, ddof=1) / math.sqrt(8)
        z = comparison.standardised_change(np.zeros(50), noise.mean(axis=0), np.zeros(50), error)
        crossed += bool(np.abs(z).max() > line)
    assert 0.035 <= crossed / times <= 0.065


def test_a_neuron_that_has_changed_is_beyond_the_line() -> None:
    rng = np.random.default_rng(5)
    truth = rng.gamma(1.0, size=200)
    changed = truth.copy()
    changed[17] += 8.0
    (a, a_errors), (b, b_errors) = measured(rng, truth, 20, 0.5), measured(rng, changed, 20, 0.5)
    z = comparison.standardised_change(a, b, a_errors, b_errors)
    assert z[17] > comparison.chance_change(200, 20)
    assert comparison.largest(z, 3)[0] == 17


def test_the_line_grows_with_the_neurons_and_falls_with_the_groups() -> None:
    assert comparison.chance_change(1, 50) == pytest.approx(stats.t.isf(0.025, 49), rel=1e-6)
    assert comparison.chance_change(14_336, 50) > comparison.chance_change(1_536, 50) > comparison.chance_change(1, 50)
    assert comparison.chance_change(1_536, 6) > 2 * comparison.chance_change(1_536, 50)
    assert comparison.chance_change(1_536, 1) == math.inf


@pytest.mark.parametrize(
    ("noise", "proportional"), [(0.05, False), (0.05, True), (0.3, False), (0.3, True), (0.7, False)]
)
def test_the_noise_ceiling_is_what_two_samples_of_the_same_neurons_agree_to(noise: float, proportional: bool) -> None:
    rng = np.random.default_rng(11)
    truth = rng.lognormal(sigma=1.0, size=1500) if proportional else rng.normal(size=1500)
    errors = noise * (truth if proportional else np.ones_like(truth))
    agreed, ceilings = [], []
    for _ in range(12):
        a, b = (truth + errors * rng.normal(size=len(truth)) for _ in range(2))
        agreed.append(rank_correlation(a, b) or 0.0)
        known = [noise * np.abs(run) if proportional else errors for run in (a, b)]
        ceilings.append(comparison.noise_ceiling(a, known[0], b, known[1]) or 0.0)
    assert np.mean(ceilings) == pytest.approx(np.mean(agreed), abs=0.03)


def test_the_ceiling_is_one_without_noise_and_none_is_given_where_noise_prevails() -> None:
    values = np.random.default_rng(0).normal(size=400)
    still, loud = np.zeros(400), np.full(400, 3.0)
    assert comparison.noise_ceiling(values, still, values, still) == pytest.approx(1)
    assert comparison.reliability(values, loud) == 0
    assert comparison.noise_ceiling(values, loud, values, still) is None
    assert comparison.noise_ceiling(np.ones(400), still, values, still) is None
    assert comparison.noise_ceiling(values[:5], still[:5], values[:5], still[:5]) is None


@pytest.mark.parametrize("shared", [0.0, 3.0])
def test_a_mean_difference_is_no_less_sure_than_it_says(shared: float) -> None:
    rng = np.random.default_rng(8)
    truth = rng.gamma(1.0, size=50)
    found = []
    for _ in range(200):
        (a, a_errors), (b, b_errors) = (measured(rng, truth, 12, shared) for _ in range(2))
        found.append(comparison.mean_difference(a, b, a_errors, b_errors))
    values = np.array([one.value for one in found if one is not None])
    bounds = np.array([one.error for one in found if one is not None])
    assert values.std() <= 1.1 * bounds.mean()
    if shared:
        assert values.std() > 0.8 * bounds.mean(), "it is no looser than it must be where all noise is shared"
    exact = comparison.mean_difference(truth, truth + 1, None, None)
    assert exact is not None
    assert exact.value == pytest.approx(1)
    assert exact.error is None
    assert comparison.mean_difference(truth[:0], truth[:0], None, None) is None


def test_strangers_rarely_go_together() -> None:
    rng, crossed, times = np.random.default_rng(2), 0, 600
    line = comparison.chance_correlation(300, 3)
    for _ in range(times):
        a, b = rng.normal(size=(2, 3, 300))
        crossed += any(abs(rank_correlation(x, y) or 0) > line for x, y in zip(a, b, strict=True))
    assert 0.025 <= crossed / times <= 0.075


def test_neurons_correspond_where_all_that_names_a_layer_is_equal() -> None:
    one = comparison.LayerShape("LlamaForCausalLM", 30, 576, 1536, 29)
    assert comparison.differing_shapes(one, one) == []
    other = comparison.LayerShape("LlamaForCausalLM", 24, 576, 1536, 23)
    assert comparison.differing_shapes(one, other) == ["n_layers", "layer"]
    assert comparison.largest(np.array([1.0, np.nan, -3.0, 2.0]), 2).tolist() == [2, 3]
