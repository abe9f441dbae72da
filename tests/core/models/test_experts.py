"""Mixtures of experts: the row of activations that is read and replaced, and the names of its neurons.

What effects and interventions come to is compared with the original models in the tests that all families share.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import BadNeuron, NoSuchNeuron, UnsupportedModel
from backend.core.induction.attribution import contributions
from backend.core.induction.text import random_repeats
from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.kinds import Intervention
from backend.core.metrics.routing import expert_of_neurons, routed_to
from backend.core.metrics.statistics import Moments
from backend.core.models import hook_points
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.experts import MixtureLayer
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import trace_text
from backend.core.neurons import Experts, HeadId, NeuronId, parse_unit
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import D_EXPERT, D_MLP, FAMILIES, VOCAB

MIXTURES = [name for name, family in FAMILIES.items() if family.experts]
Models = Callable[[str], AnalysisModel]
Files = Callable[[str], ModelFiles]


def _chosen(reference: Reference, tokens: torch.Tensor, layer: int = -1) -> torch.Tensor:
    """Which experts the original model's router chooses for each token, [tokens, chosen], in order."""
    mixture: Any = reference.mlp_out if layer == -1 else reference.neurons_of(layer)
    router = mixture.router if hasattr(mixture, "router") else mixture.gate
    seen: list[torch.Tensor] = []
    handle = router.register_forward_hook(lambda _, __, output: seen.append(output[2]))
    with torch.no_grad():
        reference.model(tokens[None])
    handle.remove()
    return seen[0].sort(dim=1).values


@pytest.mark.parametrize("family", MIXTURES)
def test_activations_are_zero_exactly_where_the_router_does_not_choose_the_expert(
    family: str, tiny_model: Models, tiny_files: Files
) -> None:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    count = FAMILIES[family].experts
    shared = D_MLP - count * D_EXPERT
    assert model.experts == Experts(count, D_EXPERT, shared)
    tokens = torch.randint(2, VOCAB, (20,), generator=torch.Generator().manual_seed(5))
    expected = torch.nn.functional.one_hot(_chosen(reference, tokens), count).sum(dim=1).bool()
    activations = model.trace(tokens[None]).activations[0].numpy()
    routed = routed_to(activations, model.experts)
    assert np.array_equal(routed[:, :count], expected.numpy())
    assert 0 < routed[:, :count].mean() < 1
    assert routed[:, count:].all(), "every token passes the shared expert"
    of_neurons = routed[:, expert_of_neurons(model.experts)]
    assert np.array_equal(activations != 0, of_neurons)
    columns = Moments.of(activations, np.arange(20) // 5, model.experts).columns()
    np.testing.assert_allclose(columns["routed_share"], of_neurons.mean(axis=0))
    by_sequence = of_neurons.reshape(4, 5, -1).mean(axis=1)
    np.testing.assert_allclose(columns["routed_share_se"], by_sequence.std(axis=0, ddof=1) / 2, atol=1e-12)


@pytest.mark.parametrize("family", MIXTURES)
def test_looking_on_and_putting_back_change_nothing(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    tokens = torch.randint(2, VOCAB, (2, 9), generator=torch.Generator().manual_seed(5))
    plain = model.observed(tokens, [])
    seen: list[torch.Tensor] = []
    for hook in (lambda values, hook: seen.append(values), lambda values, hook: values.clone()):
        points = [(hook_points.activations(layer), hook) for layer in range(model.n_layers)]
        assert torch.equal(model.observed(tokens, points), plain)
    assert [values.shape for values in seen] == [(2, 9, D_MLP)] * model.n_layers


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe"])
def test_what_an_experts_neurons_read_makes_their_activations_up_to_its_weight(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    repeats = random_repeats(model.ordinary, model.bos, 1, 9, seed=1)
    activations = model.trace(repeats.tokens).activations[0]
    for expert in (1, FAMILIES[family].experts - (family == "mixtral")):  # of Qwen's the shared one
        neurons = list(range(expert * D_EXPERT, (expert + 1) * D_EXPERT))
        up, gate = (one.total[0] for one in contributions(model, repeats.tokens, neurons))
        weights = activations[:, neurons] / (torch.nn.functional.silu(gate) * up)
        torch.testing.assert_close(weights, weights[:, :1].expand_as(weights), atol=1e-3, rtol=1e-3)
        assert bool((weights >= 0).all() and (weights < 1).all() and (weights > 0).any())


def test_other_layers_route_otherwise_after_an_intervention(tiny_model: Models, tiny_files: Files) -> None:
    """A neuron of the first layer, set far off, makes the second layer's router choose other experts."""
    model, reference = tiny_model("olmoe"), Reference(str(tiny_files("olmoe").folder), FAMILIES["olmoe"])
    text = trace_text(model, "The cat sat on the mat.", 64)
    tokens, edit = torch.tensor(text.tokens), (reference.neurons_of(0), slice(5, 6), torch.tensor([4.0]))
    found = ablate_text(model, text, [Intervention(model.neuron(0, 5), "value", 4.0)], None)
    expected = reference.edited(tokens, [edit], frozen=False)
    torch.testing.assert_close(found.total.loss[:-1].double(), expected.loss, atol=3e-5, rtol=0)
    plain = _chosen(reference, tokens)
    mixture: Any = reference.neurons_of(0)
    row = mixture.experts.down_proj[0, :, 5]
    handle = mixture.register_forward_hook(lambda _, __, output: output + 4.0 * row)
    assert not torch.equal(_chosen(reference, tokens), plain), "or this says nothing of routing"
    handle.remove()


def test_output_biases_of_experts_belong_to_no_neuron(
    tiny_model: Models, tiny_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpt-oss adds each chosen expert's bias, weighed by the router: the check on loading takes it away first."""
    assert tiny_model("gpt-oss").self_check.mlp_output < 1e-5
    whole = MixtureLayer.activations

    def without(self: MixtureLayer, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations, biases = whole(self, read)
        return activations, torch.zeros_like(biases)

    monkeypatch.setattr(MixtureLayer, "activations", without)
    with pytest.raises(UnsupportedModel, match="not activations"):
        AnalysisModel.load(tiny_files("gpt-oss"), "cpu")


def test_a_mixture_that_is_read_wrongly_is_refused(tiny_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose router's weights count twice."""
    whole = MixtureLayer.activations

    def squared(self: MixtureLayer, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        activations, biases = whole(self, read)
        return activations * 1.01, biases

    monkeypatch.setattr(MixtureLayer, "activations", squared)
    with pytest.raises(UnsupportedModel, match="not activations"):
        AnalysisModel.load(tiny_files("mixtral"), "cpu")


LAYOUTS = st.builds(Experts, st.integers(1, 200), st.integers(1, 3000), st.integers(0, 3000))


@given(LAYOUTS, st.integers(0, 9999), st.data())
def test_a_neurons_name_in_an_expert_reads_back(experts: Experts, layer: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, experts.neurons - 1))
    neuron = NeuronId(layer, index, experts)
    assert NeuronId.parse(str(neuron), experts) == neuron
    assert parse_unit(f" {neuron} ", experts) == neuron
    assert str(neuron).count(".") == 2
    assert (neuron.routed_expert is None) == (".shared." in str(neuron))
    assert neuron.within(10_000, experts.neurons) is neuron


def test_names_are_those_of_the_field() -> None:
    experts = Experts(4, 11, 7)
    assert [str(NeuronId(1, index, experts)) for index in (0, 10, 11, 43, 44, 50)] == [
        "1.0.0", "1.0.10", "1.1.0", "1.3.10", "1.shared.0", "1.shared.6"
    ]  # fmt: skip
    assert parse_unit("L5H1", experts) == HeadId(5, 1)


@pytest.mark.parametrize(
    ("name", "experts", "words"),
    [
        ("1.5", Experts(4, 11), "write layer.expert.index, all from 0, as in 11.3.240"),
        ("1.5", Experts(4, 11, 2), "shared for the shared expert"),
        ("1.2.5", None, "write layer.index, both from 0, as in 11.2378"),
        ("1.x.5", Experts(4, 11), "write layer.expert.index"),
        ("1.2.3.4", Experts(4, 11), "write layer.expert.index"),
    ],
)
def test_a_name_in_the_wrong_form_says_what_the_right_one_is(name: str, experts: Experts | None, words: str) -> None:
    with pytest.raises(BadNeuron, match=words) as refused:
        NeuronId.parse(name, experts)
    assert not isinstance(refused.value, NoSuchNeuron)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("1.4.0", "no expert 4: its experts are 0 to 3, and shared"),
        ("1.3.11", "Expert 3 has no neuron 11: its neurons are 0 to 10"),
        ("1.shared.2", "Expert shared has no neuron 2: its neurons are 0 to 1"),
    ],
)
def test_an_expert_that_is_not_there_says_which_are(name: str, words: str) -> None:
    with pytest.raises(NoSuchNeuron, match=words):
        NeuronId.parse(name, Experts(4, 11, 2))
    with pytest.raises(NoSuchNeuron, match="no shared expert"):
        NeuronId.parse("1.shared.0", Experts(4, 11))
