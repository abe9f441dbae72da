"""What must hold for any weights, norm and text."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.errors import BadIntervention, BadNeuron
from backend.core.interventions.kinds import Intervention
from backend.core.kernels.engine import ablation_effects
from backend.core.metrics.effects import MEANS, SHARES, EffectSums, TokenBatch
from backend.core.models.readout import NormKind
from backend.core.neurons import NeuronId
from backend.glossary import METRICS
from tests.core.readouts import random_batch, random_readout

SEEDS = st.integers(0, 2**31)
NORMS: st.SearchStrategy[NormKind] = st.sampled_from(["LayerNorm", "RMSNorm"])
ROUNDING = 5e-6

quick = settings(max_examples=25, deadline=None)


@quick
@given(SEEDS, NORMS, st.booleans(), st.integers(0, 6))
def test_ablating_to_the_present_value_changes_nothing(seed: int, norm: NormKind, bias: bool, neuron: int) -> None:
    readout = random_readout(seed, norm=norm, bias=bias)
    batch = random_batch(seed, readout)
    constant = batch.activations.clone()
    constant[:, neuron] = 0.25
    effects = ablation_effects(readout, replace(batch, activations=constant), constant[0])
    assert float(effects.delta_loss[:, neuron].abs().max()) < ROUNDING
    assert float(effects.delta_entropy[:, neuron].abs().max()) < ROUNDING
    assert not effects.changed[:, neuron].any()
    assert float(effects.delta_reciprocal_rank[:, neuron].abs().max()) == 0


@quick
@given(SEEDS, NORMS, st.booleans(), st.integers(0, 6))
def test_a_neuron_without_output_weights_has_no_effect(seed: int, norm: NormKind, bias: bool, neuron: int) -> None:
    readout = random_readout(seed, norm=norm, bias=bias)
    readout.W_out[neuron] = 0
    columns = EffectSums.of(ablation_effects(readout, random_batch(seed, readout), torch.zeros(7))).columns()
    assert columns["total_effect"][neuron] < ROUNDING
    assert columns["direct_effect_ln"][neuron] < ROUNDING
    assert columns["prediction_change"][neuron] == 0


@quick
@given(SEEDS, NORMS, st.booleans())
def test_frozen_equals_total_where_the_norm_does_not_change(seed: int, norm: NormKind, bias: bool) -> None:
    """x′ = x + δw has the length of x when δ = −2·x·w/‖w‖²: the neuron mirrors the residual stream."""
    readout = random_readout(seed, norm=norm, bias=bias)
    batch = random_batch(seed, readout, tokens=1)
    mirror = -2 * (readout.centred(batch.residual) @ readout.W_out.T) / readout.W_out.square().sum(dim=1)
    effects = ablation_effects(readout, batch, batch.activations[0] + mirror[0])
    assert float(effects.delta_loss.abs().max()) > 1e-3
    torch.testing.assert_close(effects.delta_loss, effects.delta_loss_frozen, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(effects.delta_entropy, effects.delta_entropy_frozen, atol=2e-4, rtol=1e-4)


@quick
@given(SEEDS, st.floats(-50, 50))
def test_a_bias_that_is_equal_for_all_tokens_changes_nothing(seed: int, constant: float) -> None:
    readout = random_readout(seed, bias=True)
    assert readout.b_U is not None
    shifted = replace(readout, b_U=readout.b_U + constant)
    batch = random_batch(seed, readout)
    plain, moved = (ablation_effects(r, batch, torch.zeros(7)) for r in (readout, shifted))
    # Logits of ±50 are rounded to 4·10⁻⁶, and ablations of this readout are large.
    torch.testing.assert_close(plain.delta_loss, moved.delta_loss, atol=2e-4, rtol=0)
    torch.testing.assert_close(plain.delta_entropy, moved.delta_entropy, atol=2e-4, rtol=0)


@quick
@given(SEEDS, NORMS, st.integers(1, 8))
def test_sums_do_not_depend_on_how_tokens_are_split(seed: int, norm: NormKind, cut: int) -> None:
    readout = random_readout(seed, norm=norm)
    batch = random_batch(seed, readout)
    parts = [
        TokenBatch(batch.residual[s], batch.activations[s], batch.targets[s]) for s in (slice(0, cut), slice(cut, None))
    ]
    groups = np.arange(len(batch.targets)) % 3
    whole, *split = (
        EffectSums.of(ablation_effects(readout, b, torch.zeros(7)), own)
        for b, own in zip((batch, *parts), (groups, groups[:cut], groups[cut:]), strict=True)
    )
    merged = split[0].plus(EffectSums.from_arrays(split[1].to_arrays())).columns()
    for name, column in whole.columns().items():
        np.testing.assert_allclose(merged[name], column, atol=2e-6, rtol=1e-3, err_msg=name)


@quick
@given(SEEDS)
def test_means_and_errors_are_those_of_the_sequences(seed: int) -> None:
    readout = random_readout(seed)
    effects = ablation_effects(readout, random_batch(seed, readout, tokens=12), torch.zeros(7))
    columns = EffectSums.of(effects, np.arange(12) // 3).columns()
    told = {
        "total_effect": effects.delta_loss.abs(),
        "direct_effect_ln": effects.delta_loss_frozen.abs(),
        "delta_loss": effects.delta_loss,
        "loss_increase_share": effects.delta_loss > 0,
        "delta_entropy": effects.delta_entropy,
        "abs_delta_entropy": effects.delta_entropy.abs(),
        "delta_reciprocal_rank": effects.delta_reciprocal_rank.abs(),
        "prediction_change": effects.changed,
    }
    assert columns.keys() == {*told, *(f"{name}_se" for name in told), "ln_mediated", "ln_mediated_se"}
    for name, values in told.items():
        summands = values.double().numpy()
        by_sequence = summands.reshape(4, 3, 7).mean(axis=1)
        error = by_sequence.std(axis=0, ddof=1) / 2
        np.testing.assert_allclose(columns[name], summands.mean(axis=0), rtol=1e-9, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(columns[f"{name}_se"], error, rtol=1e-6, atol=1e-9, err_msg=name)
    total, frozen = (told[name].double().numpy().mean(axis=0) for name in ("total_effect", "direct_effect_ln"))
    np.testing.assert_allclose(columns["ln_mediated"], 1 - frozen / total)


def test_one_sequence_has_effects_but_no_errors() -> None:
    readout = random_readout(4)
    columns = EffectSums.of(ablation_effects(readout, random_batch(4, readout), torch.zeros(7)), 3).columns()
    assert all(np.isnan(column).all() == name.endswith("_se") for name, column in columns.items())


def test_the_error_of_a_share_agrees_with_the_bootstrap() -> None:
    readout = random_readout(5)
    effects = ablation_effects(readout, random_batch(5, readout, tokens=400), torch.zeros(7))
    columns = EffectSums.of(effects, np.arange(400) % 50).columns()
    total, frozen = effects.delta_loss.abs().numpy(), effects.delta_loss_frozen.abs().numpy()
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, 400, 400) for _ in range(600)]
    shares = np.array([1 - frozen[d].mean(axis=0) / total[d].mean(axis=0) for d in draws])
    np.testing.assert_allclose(columns["ln_mediated_se"], shares.std(axis=0), rtol=0.3)


@quick
@given(st.lists(st.floats(-20, 20), min_size=1, max_size=20), st.floats(-20, 20))
def test_interventions_do_what_they_say(values: list[float], mean: float) -> None:
    n, neuron = torch.tensor(values), NeuronId(0, 0)
    assert torch.equal(Intervention(neuron, "scale", 1.0).target(n, torch.tensor(mean)), n)
    assert torch.equal(Intervention(neuron, "zero").target(n, torch.tensor(mean)), torch.zeros_like(n))
    assert torch.equal(Intervention(neuron, "value", 3.0).target(n, torch.tensor(mean)), torch.full_like(n, 3.0))
    clipped = Intervention(neuron, "clip").target(n, torch.tensor(mean))
    assert bool((clipped <= n).all())
    assert torch.equal(clipped[n <= torch.tensor(mean)], n[n <= torch.tensor(mean)])


@pytest.mark.parametrize(
    ("kind", "value"), [("value", None), ("scale", None), ("mean", 1.0), ("zero", 0.0), ("value", float("nan")),
                        ("scale", float("inf"))]
)  # fmt: skip
def test_an_intervention_without_sense_is_refused(kind: str, value: float | None) -> None:
    with pytest.raises(BadIntervention, match=r"0\.0"):
        Intervention(NeuronId(0, 0), kind, value)  # type: ignore[arg-type]


@given(st.integers(0, 9999), st.integers(0, 9_999_999))
def test_a_neurons_name_reads_back(layer: int, index: int) -> None:
    assert NeuronId.parse(str(NeuronId(layer, index))) == NeuronId(layer, index)


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "11",
        "11.",
        ".5",
        "11,5",
        "-1.5",
        "1.5.2",
        "a.b",
        "١.٢",
        "1 .5",
        "99999.1",
        "1e3.2",
        "1.99999999",
        "1.-2",
        "+1.2",
        "1.2.",
        "0x1.2",
        "1_0.2",
        "1. 5",
        "²．³",
        "1\n2",
    ],
)
def test_junk_is_not_a_neuron(junk: str) -> None:
    with pytest.raises(BadNeuron, match=r"layer\.index"):
        NeuronId.parse(junk)


def test_a_neuron_out_of_range_says_what_there_is() -> None:
    with pytest.raises(BadNeuron, match="layers are 0 to 11"):
        NeuronId(99, 5).within(12, 3072)
    with pytest.raises(BadNeuron, match="neurons are 0 to 3071"):
        NeuronId(11, 3072).within(12, 3072)


def test_the_glossary_has_every_effect_with_its_error() -> None:
    """A column that the glossary lacks would be computed, and kept nowhere."""
    assert {metric.name for metric in METRICS if metric.stage == "effects" and metric.has_se} == {*MEANS, *SHARES}
