"""Interventions on earlier layers and on heads, against the original model with the same values replaced."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from backend.core.errors import BadNeuron
from backend.core.interventions.ablation import TextAblation, ablate_text
from backend.core.interventions.forward import activations_of
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import trace_text
from backend.core.neurons import HeadId, NeuronId, parse_unit
from tests.reference.brute_force import Edit, Reference
from tests.reference.tiny_models import D_MODEL, FAMILIES, HEADS, KEY_VALUE_HEADS

TEXT = "The cat sat on the mat."
D_HEAD = D_MODEL // HEADS


def _columns(head: int) -> slice:
    return slice(head * D_HEAD, (head + 1) * D_HEAD)


def _assert_same(found: TextAblation, reference: Reference, tokens: torch.Tensor, edits: list[Edit]) -> None:
    for state, frozen in ((found.total, False), (found.frozen, True)):
        outcome = reference.edited(tokens, edits, frozen=frozen)
        torch.testing.assert_close(state.loss[:-1].double(), outcome.loss, atol=3e-5, rtol=0)
        torch.testing.assert_close(state.entropy[:-1].double(), outcome.entropy, atol=3e-5, rtol=0)
        assert torch.equal(state.rank[:-1], outcome.rank)
        assert torch.equal(state.top_tokens[:-1, 0], outcome.top)


@pytest.mark.parametrize("family", FAMILIES)
def test_earlier_layers_heads_and_several_at_once_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    text = trace_text(model, TEXT, 64)
    tokens = torch.tensor(text.tokens)
    neuron = (reference.neurons_of(0), slice(5, 6), torch.tensor([1.5]))
    last = (reference.neurons_of(1), slice(7, 8), torch.tensor([-0.5]))
    heads = reference.heads_of(1)
    # A head's mean, unlike zero, does not depend on where its value's bias went when the weights were processed.
    head = (heads, _columns(2), reference.inputs_of(heads, tokens)[:, _columns(2)].mean(dim=0))
    for interventions, edits in (
        ([Intervention(NeuronId(0, 5), "value", 1.5)], [neuron]),
        ([Intervention(HeadId(1, 2), "mean")], [head]),
        ([Intervention(NeuronId(1, 7), "value", -0.5), Intervention(NeuronId(0, 5), "value", 1.5)], [neuron, last]),
    ):
        found = ablate_text(model, text, interventions, None)
        _assert_same(found, reference, tokens, edits)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_look_at_the_first_token_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    """With a BOS before the text and without, alone and after a change that reaches the first token too."""
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    heads, columns = reference.heads_of(1), _columns(2)
    neuron = (reference.neurons_of(0), slice(5, 6), torch.tensor([1.5]))
    for bos in (None, model.bos):
        text = trace_text(model, TEXT, 64, bos)
        tokens = torch.tensor(text.tokens)
        for before, edits in (([], []), ([Intervention(NeuronId(0, 5), "value", 1.5)], [neuron])):
            first = reference.inputs_of(heads, tokens, edits)[0, columns]
            found = ablate_text(model, text, [*before, Intervention(HeadId(1, 2), "bos")], None)
            _assert_same(found, reference, tokens, [*edits, (heads, columns, first)])
            assert (found.total.loss[:-1] - text.before.loss[:-1]).abs().max() > 1e-3


def _value_bias(reference: Reference, family: str) -> torch.Tensor:
    """What the values of all tokens have in common in the second layer's third head: their bias, and what the bias of
    the norm before them makes of them, [d_head]."""
    block: Any = reference.block(1)  # its parts are named as its family names them
    columns = _columns(2)
    if family == "llama":
        return torch.zeros(D_HEAD, dtype=torch.float64)
    if family == "gpt2":  # queries, keys and values side by side; weights are [in, out]
        weight, bias = block.attn.c_attn.weight[:, -D_MODEL:].T, block.attn.c_attn.bias[-D_MODEL:]
        value: torch.Tensor = (weight @ block.ln_1.bias + bias)[columns]
        return value.detach()
    projection = block.self_attn.v_proj
    if family == "phi":
        value = (projection.weight @ block.input_layernorm.bias + projection.bias)[columns]
    else:
        value = projection.bias[_columns(2 * KEY_VALUE_HEADS // HEADS)]
    return value.detach()


@pytest.mark.parametrize("family", ["gpt2", "phi", "qwen2", "llama"])
def test_a_heads_value_bias_stays_in_place_where_its_output_is_set_to_zero_or_scaled(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    """In the original model z has the bias b in it: zero leaves b, a factor f makes b + f·(z − b)."""
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    text = trace_text(model, TEXT, 64)
    tokens, heads, columns = torch.tensor(text.tokens), reference.heads_of(1), _columns(2)
    z, bias = reference.inputs_of(heads, tokens)[:, columns], _value_bias(reference, family)
    assert bool(bias.abs().max() > 1e-3) is (family != "llama")
    for intervention, target in (
        (Intervention(HeadId(1, 2), "zero"), bias.expand_as(z)),
        (Intervention(HeadId(1, 2), "scale", 2.5), bias + 2.5 * (z - bias)),
    ):
        found = ablate_text(model, text, [intervention], None)
        _assert_same(found, reference, tokens, [(heads, columns, target)])


def test_the_forward_pass_agrees_with_the_closed_form(tiny_model: Callable[[str], AnalysisModel]) -> None:
    """A scale of 1 on a head changes nothing, but sends the other interventions the long way."""
    model = tiny_model("qwen3")
    text = trace_text(model, TEXT, 64)
    neurons = [Intervention(NeuronId(1, 3), "zero"), Intervention(NeuronId(1, 8), "scale", 3.0)]
    short = ablate_text(model, text, neurons, None)
    long = ablate_text(model, text, [*neurons, Intervention(HeadId(0, 1), "scale", 1.0)], None)
    for one, other in ((short.total, long.total), (short.frozen, long.frozen)):
        torch.testing.assert_close(one.loss[:-1], other.loss[:-1], atol=2e-5, rtol=0)
        torch.testing.assert_close(one.entropy, other.entropy, atol=2e-5, rtol=0)
        torch.testing.assert_close(one.top_probabilities, other.top_probabilities, atol=1e-5, rtol=0)
        assert torch.equal(one.rank, other.rank)


def test_blocks_before_the_first_intervention_do_not_run_again(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    text = trace_text(model, TEXT, 64)
    zero = [Intervention(HeadId(1, 0), "zero")]
    first = ablate_text(model, text, zero, None)
    runs: list[int] = []
    handles = [
        block.mlp.register_forward_hook(lambda *_, layer=layer: runs.append(layer))
        for layer, block in enumerate(model.bridge.blocks)
    ]
    again = ablate_text(model, text, zero, None)
    for handle in handles:
        handle.remove()
    assert torch.equal(again.total.entropy, first.total.entropy)
    assert runs == [1]
    assert model.trace(torch.tensor([text.tokens])).residual.isfinite().all()
    torch.testing.assert_close(trace_text(model, TEXT, 64).before.entropy, text.before.entropy)


def test_activations_of_any_layer_are_those_of_the_original(
    tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model("gpt2"), Reference(str(tiny_files("gpt2").folder), FAMILIES["gpt2"])
    text = trace_text(model, TEXT, 64)
    found = activations_of(model, text, [NeuronId(0, 4), NeuronId(1, 4)])
    for layer, values in enumerate(found):
        expected = reference.inputs_of(reference.neurons_of(layer), torch.tensor(text.tokens))[:, 4]
        torch.testing.assert_close(values.double(), expected, atol=1e-5, rtol=0)


def test_units_are_read_from_their_names() -> None:
    assert parse_unit(" 3.14 ") == NeuronId(3, 14)
    assert parse_unit("L5H1") == parse_unit("l5h1") == HeadId(5, 1)
    assert str(HeadId(5, 1)) == "L5H1"
    for junk in ("L5", "H5L1", "5.1H", "LxHy", "L5H1.2"):
        with pytest.raises(BadNeuron):
            parse_unit(junk)
