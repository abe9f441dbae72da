"""Sampling on: the kept keys and values change nothing, chance is shared, interventions act on what is generated."""

from collections.abc import Callable

import pytest
import torch

from backend.core.errors import BadIntervention, BadNeuron, BadText
from backend.core.interventions.generation import Continuation, Generation, Sampling, Step, choose
from backend.core.interventions.hooks import replacing
from backend.core.interventions.kinds import Intervention
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.traced_text import TracedText, trace_text
from backend.core.neurons import HeadId, NeuronId
from tests.reference.tiny_models import FAMILIES

Load = Callable[[str], AnalysisModel]
TEXT = "The lamp is lit."


@pytest.fixture(autouse=True)
def _without_gradients() -> object:
    with torch.inference_mode():
        yield


def generated(model: AnalysisModel, interventions: list[Intervention], sampling: Sampling) -> list[Step]:
    generation = Generation(model, trace_text(model, TEXT, 64), interventions, None, sampling)
    steps = []
    while generation.ended is None:
        steps.append(generation.step())
    return steps


def plain(steps: list[Step]) -> list[int]:
    return [step.plain.token for step in steps if step.plain]


def changed(steps: list[Step]) -> list[int]:
    return [step.changed.token for step in steps if step.changed]


@pytest.mark.parametrize("family", FAMILIES)
def test_token_by_token_is_what_the_whole_text_gives(family: str, tiny_model: Load) -> None:
    """For every family: keys and values that are kept must not change what comes next, nor what hooks do."""
    model = tiny_model(family)
    text = trace_text(model, TEXT, 64)
    units: list[NeuronId | HeadId] = [NeuronId(0, 3), HeadId(1, 1), NeuronId(model.last_layer, 5)]
    interventions = [*(Intervention(unit, "scale", 3.0) for unit in units), Intervention(HeadId(1, 3), "bos")]
    for changes in ([], interventions):
        hooks = replacing(changes, [torch.zeros(())] * len(changes))
        growing, tokens = Continuation(model, text.tokens, hooks), list(text.tokens)
        for added in (7, 40, 9, 40, 40, 12):
            whole = replacing(changes, [torch.zeros(())] * len(changes))
            residual = model.extended(torch.tensor([tokens]), model.new_memory(), whole)[0, -1]
            expected = model.readout.logits(*_centred(model, residual))[0]
            found = growing._logits()
            assert torch.allclose(found, expected, atol=2e-4, rtol=1e-4), family
            growing._unread = [added]
            tokens.append(added)


def _centred(model: AnalysisModel, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centred = model.readout.centred(residual[None])
    return centred, model.readout.scale(centred)


def test_greedy_follows_the_models_own_predictions(tiny_model: Load) -> None:
    model = tiny_model("llama")
    tokens = plain(generated(model, [], Sampling(0.0, 0, 12)))
    ids = list(trace_text(model, TEXT, 64).tokens)
    for token in tokens:
        logits = model.bridge(torch.tensor([ids]), return_type="logits")[0, -1]
        assert token == int(logits.argmax())
        ids.append(token)


def test_a_seed_is_repeatable_and_does_not_depend_on_the_intervention(tiny_model: Load) -> None:
    model = tiny_model("llama")
    sampling = Sampling(1.0, 11, 20)
    first, strong = generated(model, [], sampling), [Intervention(NeuronId(0, 3), "value", 50.0)]
    again = generated(model, strong, sampling)
    assert plain(first) == plain(again)
    assert changed(again) != plain(again), "a strong intervention leads elsewhere"
    assert changed(again) == changed(generated(model, strong, sampling))
    assert plain(first) != plain(generated(model, [], Sampling(1.0, 12, 20)))
    assert changed(first) == []


@pytest.mark.parametrize("unit", [NeuronId(1, 5), NeuronId(0, 3), HeadId(0, 1)])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_intervention_that_changes_nothing_gives_the_same_continuation(
    unit: NeuronId | HeadId, temperature: float, tiny_model: Load
) -> None:
    steps = generated(tiny_model("llama"), [Intervention(unit, "scale", 1.0)], Sampling(temperature, 3, 25))
    assert all(step.plain == step.changed for step in steps)


def test_the_noise_samples_from_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    chance = torch.Generator().manual_seed(0)
    draws = 20_000
    for temperature in (1.0, 0.5):
        uniform = torch.rand(draws, 4, generator=chance, dtype=torch.float64)
        noise = -(-uniform.log()).log()
        found = torch.bincount(
            torch.tensor([choose(logits, temperature, row).token for row in noise]), minlength=4
        ).double()
        expected = (logits.double() / temperature).softmax(0)
        error = (expected * (1 - expected) / draws).sqrt()
        assert bool(((found / draws - expected).abs() < 5 * error + 1e-9).all())
    chosen = choose(logits, 0.0, None)
    p = logits.double().softmax(0)
    assert chosen.token == 0
    assert chosen.probability == pytest.approx(float(p[0]))
    assert chosen.entropy == pytest.approx(float(-(p * p.log()).sum()))


def test_a_continuation_that_the_model_ends_ends(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    tokens = plain(generated(model, [], Sampling(1.0, 5, 10)))
    strong = [Intervention(NeuronId(0, 3), "value", 50.0)]
    others = changed(generated(model, strong, Sampling(1.0, 5, 10)))
    last = next(token for token in tokens[1:] if token not in others and token != tokens[0])
    monkeypatch.setattr(type(model), "eos", property(lambda _: last))
    steps = generated(model, [], Sampling(1.0, 5, 10))
    assert plain(steps) == tokens[: tokens.index(last) + 1]
    both = generated(model, strong, Sampling(1.0, 5, 10))
    assert plain(both) == plain(steps)
    assert changed(both) == others, "the other one goes on"


def test_a_full_context_and_bad_names_are_refused(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    text: TracedText = trace_text(model, TEXT, 64)
    sampling = Sampling(0.0, 0, 10)
    with pytest.raises(BadNeuron, match="does not exist"):
        Generation(model, text, [Intervention(NeuronId(9, 0))], None, sampling)
    with pytest.raises(BadIntervention, match="named twice"):
        Generation(model, text, [Intervention(NeuronId(0, 0))] * 2, None, sampling)
    monkeypatch.setattr(model, "max_tokens", len(text.tokens) + 2)
    generation = Generation(model, text, [], None, sampling)
    while generation.ended is None:
        generation.step()
    assert generation.ended == "context_full"
    monkeypatch.setattr(model, "max_tokens", len(text.tokens))
    with pytest.raises(BadText, match="fills the model's context"):
        Generation(model, text, [], None, sampling)
