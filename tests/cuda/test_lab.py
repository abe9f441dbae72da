"""The text and induction labs on a card: every answer is that of the processor."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.core.induction.experiment import Experiment, Plan, Progress
from backend.core.induction.text import random_repeats
from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.frequency_distance import TextFrequencies
from backend.core.interventions.generation import Generation, Sampling
from backend.core.interventions.kinds import Intervention
from backend.core.interventions.sweep import sweep_text
from backend.core.kernels.engine import EffectsEngine
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.core.models.traced_text import trace_text
from backend.core.neurons import HeadId, NeuronId

TEXT = "The lamp hangs by a hook."
Files = Callable[[str], ModelFiles]
pytestmark = pytest.mark.cuda
INTERVENTIONS = {
    "a neuron of the last layer": [Intervention(NeuronId(1, 5), "mean")],
    "two neurons": [Intervention(NeuronId(1, 5), "zero"), Intervention(NeuronId(1, 7), "value", 2.0)],
    "an earlier neuron and a head": [Intervention(NeuronId(0, 3), "clip"), Intervention(HeadId(1, 2), "bos")],
}


@pytest.fixture(params=["llama", "gpt2"])
def both(request: pytest.FixtureRequest, tiny_files: Files) -> Iterator[tuple[AnalysisModel, AnalysisModel]]:
    """A model on the processor, and on a card."""
    files = tiny_files(request.param)
    with torch.inference_mode():
        yield AnalysisModel.load(files, "cpu"), AnalysisModel.load(files, "cuda:0")


def numbers(value: Any) -> Iterator[np.ndarray]:
    """Every number in an answer, on the processor."""
    if isinstance(value, Tensor):
        yield value.double().cpu().numpy()
    elif isinstance(value, np.ndarray):
        yield value.astype(float)
    elif is_dataclass(value):
        for name in (field.name for field in fields(value)):
            yield from numbers(getattr(value, name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield np.asarray(float(value))


def assert_alike(here: Any, there: Any) -> None:
    ours, theirs = list(numbers(here)), list(numbers(there))
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(other, one, atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("what", INTERVENTIONS)
def test_interventions_on_a_text(what: str, both: tuple[AnalysisModel, AnalysisModel]) -> None:
    answers = []
    for model in both:
        p = torch.rand(model.d_vocab, generator=torch.Generator().manual_seed(2)).double() + 0.1
        frequencies = TextFrequencies.of("frequencies", model.readout, p / p.sum())
        answers.append(ablate_text(model, trace_text(model, TEXT, 64), INTERVENTIONS[what], None, frequencies))
    assert_alike(*answers)


@pytest.mark.parametrize("position", [None, 4])
def test_a_sweep_over_all_neurons(position: int | None, both: tuple[AnalysisModel, AnalysisModel]) -> None:
    means = np.linspace(-1, 1, both[0].d_mlp)
    assert_alike(
        *(
            sweep_text(EffectsEngine(model.readout), trace_text(model, TEXT, 64), position, "mean", means)
            for model in both
        )
    )


def test_generated_texts(both: tuple[AnalysisModel, AnalysisModel]) -> None:
    answers = []
    for model in both:
        interventions = INTERVENTIONS["an earlier neuron and a head"]
        generation = Generation(model, trace_text(model, TEXT, 64), interventions, None, Sampling(0.8, 3, 5))
        answers.append([generation.step() for _ in range(5)])
    assert_alike(*answers)


def test_the_induction_lab(both: tuple[AnalysisModel, AnalysisModel]) -> None:
    answers = []
    for model in both:
        repeats = random_repeats(model.ordinary, None, 3, 8, 0)
        parts = frozenset({"curves", "change", "clip", "heads", "bos", "mean_output", "attribution"})
        plan = Plan((NeuronId(model.last_layer, 5), NeuronId(model.last_layer, 9)), parts)  # type: ignore[arg-type]
        steps = Experiment(model, repeats, plan).steps()
        answers.append([step for step in steps if not isinstance(step, Progress)])
    assert_alike(*answers)
