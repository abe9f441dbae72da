"""Direct feature attribution: the parts add up, and each is what the original model's component writes."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.errors import UnsupportedModel
from backend.core.induction.attribution import Attribution, components, contributions
from backend.core.induction.experiment import Experiment, Plan
from backend.core.induction.text import Repeats, doubled, random_repeats
from backend.core.metrics.attribution import of_heads, of_vectors
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.neurons import HeadId, NeuronId
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import D_MODEL, FAMILIES, HEADS

Models = Callable[[str], AnalysisModel]
NEURONS = [3, 11, 40]


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"opt-350m"}))
def test_contributions_add_up_to_the_pre_activation(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    repeats = random_repeats(model.ordinary, model.bos, 2, 9, seed=1)
    found = contributions(model, repeats.tokens, NEURONS)
    assert [c.direction.reads for c in found] == (["up", "gate"] if FAMILIES[family].gated else ["in"])
    names = components(model)
    heads = HEADS * (1 if FAMILIES[family].parallel else 2)
    assert len(names) == heads + 1 + 2
    for contribution in found:
        assert contribution.values.shape == (2, 19, len(names), len(NEURONS))
        torch.testing.assert_close(contribution.values.sum(dim=2), contribution.total, atol=2e-5, rtol=0)
    if FAMILIES[family].gated and not FAMILIES[family].experts:  # the activation is a function of the two sums
        up, gate = (c.total for c in found)
        activations = model.trace(repeats.tokens).activations[..., NEURONS]
        act = torch.nn.functional.gelu if family.startswith("gemma") else torch.nn.functional.silu
        torch.testing.assert_close(
            activations, act(gate) * up, atol=5e-3 if family.startswith("gemma") else 1e-5, rtol=1e-3
        )


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama"])
def test_a_heads_contribution_is_what_is_lost_without_it_at_the_same_scale(
    family: str, tiny_model: Models, tiny_files: Callable[[str], ModelFiles]
) -> None:
    """In float64 through the original model: a layer-1 head's z taken away from the MLP's input, scale held."""
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    tokens = random_repeats(model.ordinary, model.bos, 1, 9, seed=1).tokens
    layer = 0 if FAMILIES[family].parallel else 1
    found = contributions(model, tokens, NEURONS)[-1]
    head = components(model).index(HeadId(layer, 2))
    d_head = D_MODEL // HEADS
    module = reference.heads_of(layer)
    z = reference.inputs_of(module, tokens[0])[:, 2 * d_head : 3 * d_head]
    kept = module.get_parameter("weight")
    weight = kept.T if family != "gpt2" else kept
    written = z - z[:1]  # less its first: value biases may have been folded elsewhere
    written = written @ weight[2 * d_head : 3 * d_head].double()
    block = reference.neurons_of(1)
    body = {"gpt2": "transformer.h.1", "gpt-neox": "gpt_neox.layers.1", "llama": "model.layers.1"}[family]
    block = reference.model.get_submodule(body)
    norm = {"gpt2": "ln_2", "gpt-neox": "post_attention_layernorm", "llama": "post_attention_layernorm"}[family]
    first = {"gpt2": "mlp.c_fc", "gpt-neox": "mlp.dense_h_to_4h", "llama": "mlp.gate_proj"}[family]
    gain, project = block.get_parameter(f"{norm}.weight"), block.get_parameter(f"{first}.weight")
    project = project.T if family != "gpt2" else project
    stream = reference.inputs_of(block.get_submodule(norm), tokens[0])

    def centre(x: torch.Tensor) -> torch.Tensor:
        return x if family == "llama" else x - x.mean(-1, keepdim=True)

    scale = (centre(stream).square().mean(-1, keepdim=True) + model.eps).sqrt()
    expected = (centre(written) / scale * gain) @ project[:, NEURONS]
    values = found.values[0, :, head].double()
    moved = values * scale - (values * scale)[:1]
    torch.testing.assert_close(moved / scale, expected, atol=2e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(2, 7), st.integers(1, 3))
def test_heads_and_vectors_are_read_alike(seed: int, heads: int, d_head: int, width: int, neurons: int) -> None:
    """A head's contribution is that of the vector it writes; those of all heads are that of their sum."""
    chance = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    z, W_O, W, scale = drawn(2, 3, heads, d_head), drawn(heads, d_head, width), drawn(width, neurons), drawn(2, 3).exp()
    by_head = of_heads(z, W_O, W, scale)
    written = torch.einsum("bphd,hdm->bphm", z, W_O)
    for head in range(heads):
        torch.testing.assert_close(by_head[:, :, head], of_vectors(written[:, :, head], W, scale))
    torch.testing.assert_close(by_head.sum(dim=2), of_vectors(written.sum(dim=2), W, scale))


def _attributed(model: AnalysisModel, repeats: Repeats) -> list[Attribution]:
    neurons = tuple(NeuronId(model.last_layer, index) for index in NEURONS)
    steps = Experiment(model, repeats, Plan(neurons, frozenset({"attribution"}))).steps()
    return [value for value in steps if isinstance(value, Attribution)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_experiment_averages_over_second_occurrences(family: str, tiny_model: Models) -> None:
    model = tiny_model(family)
    repeats = random_repeats(model.ordinary, model.bos, 40, 7, seed=1)
    corrupted = repeats.corrupted(model.ordinary, 0)
    for found in _attributed(model, repeats):
        by_sequence = []
        for tokens, values in ((repeats.tokens, found.induction), (corrupted.tokens, found.corrupted)):
            each = {c.direction.reads: c for c in contributions(model, tokens, NEURONS)}[found.reads]
            torch.testing.assert_close(values.float(), each.values[:, 8:].mean(dim=(0, 1)), atol=1e-5, rtol=0)
            torch.testing.assert_close(values.sum(dim=0).float(), each.total[:, 8:].mean(dim=(0, 1)), atol=1e-5, rtol=0)
            by_sequence.append(each.values[:, 8:].mean(dim=1))
        difference = by_sequence[0] - by_sequence[1]
        error = difference.std(dim=0) / len(difference) ** 0.5
        torch.testing.assert_close(found.difference_se.float(), error, atol=1e-5, rtol=1e-3)
        assert not torch.allclose(found.induction, found.corrupted)


def test_where_every_token_is_the_same_corruption_changes_nothing(tiny_model: Models) -> None:
    model = tiny_model("llama")
    assert model.bos is not None
    for found in _attributed(model, doubled(torch.full((3, 6), 9), model.bos)):
        assert torch.equal(found.induction, found.corrupted)


def test_a_stream_with_another_writer_is_refused(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    repeats = random_repeats(model.ordinary, model.bos, 1, 6, seed=1)
    W_O, b_O = model.head_outputs(0)
    monkeypatch.setattr(model, "head_outputs", lambda layer: (0.5 * W_O, b_O))
    with pytest.raises(UnsupportedModel, match="does not add up"):
        contributions(model, repeats.tokens, NEURONS)


def test_a_stream_that_is_normed_between_components_is_refused(tiny_model: Models) -> None:
    model = tiny_model("opt-350m")
    with pytest.raises(UnsupportedModel, match="does not add up"):
        contributions(model, random_repeats(model.ordinary, model.bos, 2, 9, seed=1).tokens, NEURONS)
