"""A text under interventions, against brute force through the original model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from backend.core.errors import BadIntervention, BadNeuron, BadText
from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import trace_text
from backend.core.neurons import HeadId, NeuronId
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import ENDINGS, FAMILIES, LAYERS

TEXT = "The cat sat on the mat."
LAST = LAYERS - 1


@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "gemma", *ENDINGS])
def test_setting_a_neuron_agrees_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), FAMILIES[family])
    text = trace_text(model, TEXT, 64)
    tokens = torch.tensor(text.tokens)
    result = ablate_text(model, text, [Intervention(NeuronId(LAST, 5), "value", 1.5)], None)
    for found, frozen in ((result.total, False), (result.frozen, True)):
        expected = reference.ablated(tokens, 5, 1.5, frozen=frozen)
        torch.testing.assert_close(found.loss[:-1].double(), expected.loss, atol=2e-5, rtol=0)
        torch.testing.assert_close(found.entropy[:-1].double(), expected.entropy, atol=2e-5, rtol=0)
        assert torch.equal(found.rank[:-1], expected.rank)
        assert torch.equal(found.top_tokens[:-1, 0], expected.top)
    before = reference.plain(tokens)
    torch.testing.assert_close(text.before.loss[:-1].double(), before.loss, atol=2e-5, rtol=0)


def test_several_interventions_add_up(tiny_model: Callable[[str], AnalysisModel]) -> None:
    """Two neurons at once are the forward pass with both replaced."""
    model = tiny_model("llama")
    text = trace_text(model, TEXT, 64)
    both = [Intervention(NeuronId(LAST, 3), "zero"), Intervention(NeuronId(LAST, 8), "scale", 3.0)]
    result = ablate_text(model, text, both, None)
    x = text.centred - text.activations[:, 3, None] * model.readout.W_out[3]
    x = x + 2 * text.activations[:, 8, None] * model.readout.W_out[8]
    logits = model.readout.logits(x, model.readout.scale(x))
    expected = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(text.tokens[1:]), reduction="none")
    torch.testing.assert_close(result.total.loss[:-1], expected, atol=1e-5, rtol=0)


def test_probabilities_are_the_most_probable_in_order(tiny_model: Callable[[str], AnalysisModel]) -> None:
    text = trace_text(tiny_model("gpt2"), TEXT, 64)
    top = text.predictions.p.topk(10)
    torch.testing.assert_close(text.before.top_probabilities, top.values, atol=1e-6, rtol=1e-4)
    assert torch.equal(text.before.top_tokens, top.indices)


def test_the_mean_comes_from_the_reference_or_the_text(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("gpt2")
    text = trace_text(model, TEXT, 64)
    mean = [Intervention(NeuronId(LAST, 2), "mean")]
    own = ablate_text(model, text, mean, None).activations_after
    torch.testing.assert_close(own, text.activations[:, [2]].mean().expand_as(own))
    given = ablate_text(model, text, mean, np.full(model.d_mlp, 0.75)).activations_after
    torch.testing.assert_close(given, torch.full_like(given, 0.75))


def test_a_long_text_is_cut_and_says_so(tiny_model: Callable[[str], AnalysisModel]) -> None:
    text = trace_text(tiny_model("gpt2"), "a" * 500, 1024)
    assert len(text.tokens) == 64, "the tiny model's limit"
    assert text.truncated


@pytest.mark.parametrize("text", ["a", "\x00", "🙂", "<script>alert(1)</script>", "\u202e", " "])
def test_odd_texts_are_texts(text: str, tiny_model: Callable[[str], AnalysisModel]) -> None:
    traced = trace_text(tiny_model("llama"), text, 64)
    assert torch.isfinite(traced.before.entropy).all()
    assert torch.isnan(traced.before.loss[-1])


def test_what_cannot_be_done_says_why(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("gpt2")
    text = trace_text(model, TEXT, 64)
    with pytest.raises(BadNeuron, match="layers are 0 to 1"):
        ablate_text(model, text, [Intervention(NeuronId(2, 1))], None)
    with pytest.raises(BadNeuron, match="heads are 0 to 3"):
        ablate_text(model, text, [Intervention(HeadId(0, 4), "zero")], None)
    with pytest.raises(BadIntervention, match="is a head"):
        Intervention(HeadId(0, 1), "clip")
    with pytest.raises(BadNeuron, match="does not exist"):
        ablate_text(model, text, [Intervention(NeuronId(LAST, 4000))], None)
    with pytest.raises(BadIntervention, match="named twice"):
        ablate_text(model, text, [Intervention(NeuronId(LAST, 1)), Intervention(NeuronId(LAST, 1), "zero")], None)
    with pytest.raises(BadText, match="no token"):
        trace_text(model, "", 64)
