"""What a reproduction is made from: everything it needs of one model's run, asked for once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.reproduce.induction import Chosen, Induction, JobKind, random_neurons
from backend.client import ApiError, AsyncClient, calls
from backend.glossary import METRIC_COLUMNS, NeuronClass
from backend.schemas import (
    ContextAblateRequest,
    ContextAblation,
    ModelSummary,
    NeuronColumns,
    RunPositions,
    RunSummary,
    Spectrum,
    TokenEffects,
    TokenFrequencies,
)

MOST_ENTROPY, MOST_FREQUENCY = 6, 5
"""Neurons that are looked at one by one: as many as the paper shows."""
GPT2_SMALL, LLAMA2_7B, PHI2 = r"^(openai-community/|openai-community-)?gpt2$", r"llama-2-7b", r"phi-2"
PYTHIA_410M, PYTHIA_1B, PYTHIA_160M, GEMMA = r"pythia-410m", r"pythia-1b\b", r"pythia-160m", r"gemma-2b"

Place = Literal["entropy", "frequency"]
"""The two classes of neurons that claims are about."""
STRENGTH: dict[Place, str] = {"entropy": "ln_mediated", "frequency": "abs_delta_kl"}
"""The metric by which a class's neurons are put in order."""

NAMED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    GPT2_SMALL: (("11.2378", "11.584", "11.2870", "11.2123", "11.1611", "11.2910"), ()),
    LLAMA2_7B: (("31.3228",), ()),
    PYTHIA_410M: ((), ("23.417", "23.3412", "23.2017", "23.87")),
}
"""Entropy and token-frequency neurons that the paper names, by model."""


@dataclass(frozen=True)
class Evidence:
    """One model's run as far as the figures need it."""

    model: ModelSummary
    run: RunSummary
    columns: NeuronColumns
    """Every metric of every neuron."""
    spectrum: Spectrum
    positions: RunPositions | None
    frequencies: TokenFrequencies | None
    entropy: list[str]
    """The entropy neurons that are looked at, the strongest first; empty where the run has none."""
    frequency: list[str]
    """The token-frequency neurons that are looked at, the strongest first; empty where the run has none."""
    effects: Mapping[str, TokenEffects]
    cosines: Mapping[str, Spectrum]
    context: ContextAblation | None
    others: list[str] = field(default_factory=list)
    """Random neurons without a class, of which single tokens are known too: what stands in a class's place when a check
    is tried on chance."""
    other_contexts: Mapping[str, ContextAblation] = field(default_factory=dict)
    """What `context` is to the strongest entropy neuron, of each of these."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why something is not there, by what it is."""
    induction: Mapping[JobKind, Induction] = field(default_factory=dict)
    """What the induction jobs found that the figures need."""
    no_induction: Mapping[JobKind, str] = field(default_factory=dict)
    """Why there is no such job."""
    beside: "Evidence | None" = None
    """The second model, where two are compared."""

    @property
    def chosen(self) -> Chosen:
        """The neurons, and those that are looked at one by one."""
        return Chosen(self.columns, self.entropy, self.frequency)

    def of(self, *patterns: str) -> bool:
        """Whether the model is one of these."""
        return any(
            re.search(pattern, name, re.IGNORECASE) for pattern in patterns for name in (self.model.id, self.model.name)
        )

    def of_class(self, place: Place) -> list[str]:
        """The neurons of a class that are looked at, the strongest first."""
        return self.entropy if place == "entropy" else self.frequency

    @property
    def named(self) -> bool:
        """Whether the paper names this model's neurons, so that no metric of the run has chosen them."""
        return any(self.of(pattern) for pattern in NAMED)

    def metric(self, name: str) -> NDArray[np.float64]:
        """A metric of all neurons, NaN where not measured."""
        return np.array([np.nan if value is None else value for value in self.columns.columns[name]], dtype=np.float64)

    def at(self, name: str, neurons: Sequence[str]) -> NDArray[np.float64]:
        """A metric of some neurons."""
        place = {neuron: row for row, neuron in enumerate(self.columns.neuron)}
        return self.metric(name)[[place[neuron] for neuron in neurons]]

    def percentile(self, name: str, neurons: Sequence[str]) -> NDArray[np.float64]:
        """Where some neurons lie among all, 0..100."""
        all_values = self.metric(name)
        all_values = all_values[np.isfinite(all_values)]
        return np.array([100 * np.mean(all_values <= value) for value in self.at(name, neurons)])


async def choose(client: AsyncClient, model: ModelSummary, run: RunSummary) -> Chosen:
    """The neurons of a run that are looked at one by one.

    Raises:
        ApiError: the run has not measured its neurons.
    """
    columns = await client.send(calls.columns(run.id, list(METRIC_COLUMNS)))
    entropy = _strongest(model, columns, "entropy", 0, STRENGTH["entropy"], MOST_ENTROPY)
    frequency = _strongest(model, columns, "token_frequency", 1, STRENGTH["frequency"], MOST_FREQUENCY)
    return Chosen(columns, entropy, frequency)


async def gather(client: AsyncClient, model: ModelSummary, run: RunSummary) -> Evidence:
    """Ask the service for all of it.

    Raises:
        ApiError: the run has not measured its neurons.
    """
    chosen = await choose(client, model, run)
    entropy, frequency = chosen.entropy, chosen.frequency
    problems: dict[str, str] = {}

    async def maybe(what: str, call: Any) -> Any:
        try:
            return await client.send(call)
        except ApiError as error:
            problems[what] = error.problem.detail
            return None

    others = random_neurons(chosen)
    looked_at = [*entropy, *frequency, *others]
    effects = {name: await maybe(f"effects of {name}", calls.effects(run.id, name)) for name in looked_at}
    contexts = {name: await _context(client, run.id, name, maybe) for name in (others if entropy else [])}
    cosines = {name: await maybe(f"cosines of {name}", calls.spectrum(run.id, name)) for name in entropy}
    return Evidence(
        model,
        run,
        chosen.columns,
        await client.send(calls.spectrum(run.id)),
        await maybe("positions", calls.positions(run.id)),
        await maybe("token frequencies", calls.frequencies(run.id)),
        entropy,
        frequency,
        {name: answer for name, answer in effects.items() if answer is not None},
        {name: answer for name, answer in cosines.items() if answer is not None},
        await _context(client, run.id, entropy[0], maybe) if entropy else None,
        others,
        {name: answer for name, answer in contexts.items() if answer is not None},
        problems,
    )


def _strongest(
    model: ModelSummary, columns: NeuronColumns, kind: NeuronClass, place: int, strength: str, most: int
) -> list[str]:
    """The neurons that the paper names for this model, else those of a class that are strongest by a metric."""
    for pattern, named in NAMED.items():
        there = [name for name in named[place] if name in columns.neuron]
        if there and re.search(pattern, model.name, re.IGNORECASE):
            return there
    rows = [row for row, neuron_class in enumerate(columns.neuron_class) if neuron_class == kind]
    rows.sort(key=lambda row: -(columns.columns[strength][row] or 0.0))
    return [columns.neuron[row] for row in rows[:most]]


async def _context(client: AsyncClient, run: int, neuron: str, maybe: Any) -> ContextAblation | None:
    """Of the contexts where the neuron fires most, the one with the highest spike of loss that it holds down."""
    contexts = await maybe("contexts", calls.contexts(run, neuron))
    best: ContextAblation | None = None
    for shown in (contexts.contexts if contexts is not None else [])[:6]:
        request = ContextAblateRequest(kind="clip")
        ablated = await maybe("a context without the neuron", calls.ablate_context(run, neuron, shown.id, request))
        if ablated is None:
            return None
        if best is None or spike(ablated)[1] > spike(best)[1]:
            best = ablated
    return best


def spike(ablated: ContextAblation) -> tuple[int, float]:
    """The token whose loss the ablation raises most, and by how much."""
    changes = [
        -np.inf if before is None or after is None else after - before
        for before, after in zip(ablated.loss_before, ablated.loss_after, strict=True)
    ]
    place = int(np.argmax(changes))
    return place, float(changes[place])
