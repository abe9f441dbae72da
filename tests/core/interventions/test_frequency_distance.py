"""A text's distance from the token frequencies, before and under interventions, against float64 brute force."""

from collections.abc import Callable

import pytest
import torch

from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.frequency_distance import TextFrequencies
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import trace_text
from backend.core.neurons import HeadId, NeuronId
from tests.core.metrics.test_frequency import zipf
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import ENDINGS, FAMILIES, LAYERS

TEXT = "The cat sat on the mat."
LAST = LAYERS - 1


def _known(model: AnalysisModel) -> TextFrequencies:
    return TextFrequencies.of("words", model.readout, zipf(5, model.readout.W_U.shape[1]).p)


def _reference(
    family: str, tiny_files: Callable[[str], ModelFiles], edits: list[tuple[int, int, float]], tokens: torch.Tensor,
    p: torch.Tensor, *, frozen: bool,
) -> torch.Tensor:  # fmt: skip
    """D at every position with neurons (layer, index) set to values, from the original model's own logits."""
    reference = Reference(str(tiny_files(family).folder), FAMILIES[family])
    replaced = [
        (reference.neurons_of(layer), slice(index, index + 1), torch.tensor([value])) for layer, index, value in edits
    ]
    log_p = reference.edited_logits(tokens, replaced, frozen=frozen).double().log_softmax(-1)
    return (p * (p.log() - log_p)).sum(-1)


@pytest.mark.parametrize("family", ["gpt2", "phi", "llama", "gemma", *ENDINGS])
@pytest.mark.parametrize("values", [{5: 1.5}, {5: 30.0}, {3: 0.0, 8: -2.0, 1: 4.0}])
def test_neurons_of_the_last_layer_agree_with_brute_force(
    family: str, values: dict[int, float], tiny_model: Callable[[str], AnalysisModel],
    tiny_files: Callable[[str], ModelFiles],
) -> None:  # fmt: skip
    model = tiny_model(family)
    text, known = trace_text(model, TEXT, 64), _known(model)
    chosen = [Intervention(NeuronId(LAST, index), "value", value) for index, value in values.items()]
    result = ablate_text(model, text, chosen, None, known)
    edits = [(LAST, index, value) for index, value in values.items()]
    tokens, p = torch.tensor(text.tokens), known.unigram.p
    for state, frozen in ((result.total, False), (result.frozen, True)):
        expected = _reference(family, tiny_files, edits, tokens, p, frozen=frozen)
        assert state.kl is not None
        torch.testing.assert_close(state.kl, expected, atol=3e-5, rtol=1e-6)
    before = _reference(family, tiny_files, [], tokens, p, frozen=False)
    assert result.kl_before is not None
    torch.testing.assert_close(result.kl_before, before, atol=3e-5, rtol=0)
    assert result.total.kl is not None
    assert float((result.total.kl - result.kl_before).abs().max()) > 1e-2, "it must matter, or agreement says nothing"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_neurons_of_an_earlier_layer_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    model = tiny_model(family)
    text, known = trace_text(model, TEXT, 64), _known(model)
    chosen = [Intervention(NeuronId(0, 2), "value", 5.0), Intervention(NeuronId(LAST, 1), "value", -3.0)]
    result = ablate_text(model, text, chosen, None, known)
    tokens = torch.tensor(text.tokens)
    for state, frozen in ((result.total, False), (result.frozen, True)):
        edits = [(0, 2, 5.0), (LAST, 1, -3.0)]
        expected = _reference(family, tiny_files, edits, tokens, known.unigram.p, frozen=frozen)
        assert state.kl is not None
        torch.testing.assert_close(state.kl, expected, atol=3e-5, rtol=1e-6)


@pytest.mark.parametrize(
    "kind", [Intervention(NeuronId(LAST, 2), "scale", 1.0), Intervention(HeadId(0, 1), "scale", 1.0)]
)
def test_nothing_done_changes_nothing(kind: Intervention, tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    text = trace_text(model, TEXT, 64)
    result = ablate_text(model, text, [kind], None, _known(model))
    for state in (result.total, result.frozen):
        assert state.kl is not None
        torch.testing.assert_close(state.kl, result.kl_before, atol=1e-5, rtol=0)


def test_a_texts_own_distance_is_computed_once_and_by_name(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    text, known = trace_text(model, TEXT, 64), _known(model)
    assert known.before(text) is known.before(text)
    other = TextFrequencies.of("others", model.readout, zipf(9, model.readout.W_U.shape[1]).p)
    assert not torch.allclose(known.before(text), other.before(text))
    p = known.unigram.p
    expected = (p * (p.log() - text.predictions.log_p.double())).sum(dim=1)
    torch.testing.assert_close(known.before(text), expected, atol=1e-5, rtol=0)


def test_without_frequencies_there_is_no_distance(tiny_model: Callable[[str], AnalysisModel]) -> None:
    model = tiny_model("llama")
    text = trace_text(model, TEXT, 64)
    result = ablate_text(model, text, [Intervention(NeuronId(LAST, 5), "zero")], None)
    assert result.kl_before is result.total.kl is result.frozen.kl is None
