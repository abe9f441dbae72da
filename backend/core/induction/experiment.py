"""The induction lab: repeated text through a model, what changes the second time, and which heads it takes (§6, H, I).

An experiment is a generator: it does a little work, tells how far it is, and yields a part's result when it is ready.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadNeuron
from backend.core.induction.attribution import Attribution, attribute
from backend.core.induction.clipping import Clipping, clip_neurons, clipping_steps
from backend.core.induction.heads import (
    Knockout,
    KnockoutPositions,
    Knockouts,
    ScoredHeads,
    groups_planned,
    head_groups,
    score_heads,
    scoring_text,
)
from backend.core.induction.readings import ActivationChange, Curves, PlainPass, Readings
from backend.core.induction.text import Repeats
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId, NeuronId

ExperimentPart = Literal["curves", "clip", "change", "heads", "bos", "mean_output", "attribution"]
TOKENS_AT_ONCE = 512
"""Tokens through the model in one step: others wait that long."""

Returned = TypeVar("Returned")
Result = Curves | Clipping | ActivationChange | ScoredHeads | Knockout | Attribution


@dataclass(frozen=True)
class Progress:
    """How far the experiment is, in steps, and what it is doing."""

    done: int
    of: int
    doing: str


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    neurons: tuple[NeuronId, ...]
    """Of the last layer."""
    parts: frozenset[ExperimentPart]
    top_heads: int = 3
    heads: tuple[HeadId, ...] = ()
    """Instead of those with the highest scores."""
    seed: int = 0
    references: Float[Tensor, "d_mlp"] | None = None
    """What clipping brings every neuron of the layer down to; None for its mean over first occurrences."""
    reference: str = "its mean over the first occurrences"
    knocked_out_at: KnockoutPositions = "every"

    def clipped_to(self, means: Float64[NDArray[np.float64], "d_mlp"], reference: str) -> "Plan":
        """This plan with other references for clipping, and what to call them."""
        return replace(self, references=torch.from_numpy(means), reference=reference)

    def summary(self, repeats: str) -> str:
        """What is measured on repeats, given the sentence of `find_repeats` that tells what they are."""
        return f"{repeats} Clipping brings a neuron down to {self.reference}." if "clip" in self.parts else repeats


class Experiment:
    """One run of the lab."""

    def __init__(self, model: AnalysisModel, repeats: Repeats, plan: Plan, bos: int | None = None) -> None:
        """A run that is prepared; `steps` does the work.

        Args:
            bos: the token before the random text that heads are scored on; None for none.

        Raises:
            BadNeuron: a neuron that is not of the last layer, or a head that the model does not have.
        """
        for neuron in plan.neurons:
            if neuron.within(model.n_layers, model.d_mlp).layer != model.last_layer:
                raise BadNeuron(
                    f"Neuron {neuron} is not of the last layer: the induction lab measures "
                    f"{model.neuron(model.last_layer, 0)} to {model.neuron(model.last_layer, model.d_mlp - 1)}."
                )
        for head in plan.heads:
            head.within(model.n_layers, model.n_heads)
        self._model, self._repeats, self._plan, self._bos = model, repeats, plan, bos
        self._neurons = [neuron.index for neuron in plan.neurons]
        self._batches = list(repeats.batches(TOKENS_AT_ONCE))
        self._done = self._of = 0

    def steps(self) -> Iterator[Progress | Result]:
        """Work, a little between two values."""
        parts, plan, model = self._plan.parts, self._plan, self._model
        knockouts = Knockouts(model, self._repeats, self._neurons, TOKENS_AT_ONCE, plan.knocked_out_at)
        planned = groups_planned(len(plan.heads) or plan.top_heads, parts)
        mean_outputs = "mean_output" in parts
        needs_heads = bool(parts & {"heads", "bos", "mean_output", "attribution"})
        measures = bool(parts & {"curves", "clip", "change"})
        clipping = clipping_steps(self._repeats) if "clip" in parts and self._neurons else 0
        scored = list(scoring_text(model, self._bos, plan.seed).batches(TOKENS_AT_ONCE)) if needs_heads else []
        passes = measures + 2 * ("attribution" in parts)
        changing = knockouts.steps_of(planned, mean_outputs=mean_outputs) if planned else 0
        self._of = passes * len(self._batches) + clipping + len(scored) + changing
        if measures:
            yield from self._measured()
        if not needs_heads:
            return
        heads = yield from self._counted(score_heads(model, scored, plan.top_heads, plan.heads, plan.seed))
        yield heads
        if "attribution" in parts and self._neurons:
            scores = heads.prefix_matching.mean
            steps = attribute(model, self._repeats, self._neurons, scores, plan.seed, TOKENS_AT_ONCE)
            yield from self._counted(steps)
        if parts & {"bos", "mean_output"}:
            groups = head_groups(heads.chosen, heads.baselines, parts)
            self._of += knockouts.steps_of(len(groups), mean_outputs=mean_outputs) - changing
            yield from self._counted(knockouts.steps(groups))

    def _measured(self) -> Iterator[Progress | Result]:
        parts, repeats = self._plan.parts, self._repeats
        plain = PlainPass(self._model, repeats, self._neurons, keep_stream="clip" in parts)
        yield from self._counted(plain.run(self._batches))
        references = self._references(plain.readings)
        if "curves" in parts:
            yield Curves.of(plain.readings, repeats, references, plain.examples)
        if "change" in parts:
            yield plain.activation_change
        if "clip" in parts and self._neurons:
            steps = clip_neurons(self._model, repeats, plain, self._neurons, references, self._plan.seed)
            yield from self._counted(steps)

    def _references(self, readings: Readings) -> Tensor:
        """What clipping brings the neurons down to, [neurons]."""
        if self._plan.references is not None:
            return self._plan.references[self._neurons].float()
        return readings.activations[:, : self._repeats.span].flatten(0, 1).nanmean(dim=0)

    def _counted(self, steps: Generator[str | Result, None, Returned]) -> Generator[Progress | Result, None, Returned]:
        """The results of some work as they come, and for its words on progress how far the experiment is."""
        while True:
            try:
                value = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # its type is Returned, which StopIteration does not say
            if isinstance(value, str):
                self._done += 1
                yield Progress(self._done, max(self._of, self._done), value)
            else:
                yield value
