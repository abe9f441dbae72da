"""The induction lab: repeated text through a model, what changes the second time, and which heads it takes (§6, H, I).

An experiment is a generator: it does a little work, tells how far it is, and yields a part's result when it is ready.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadNeuron
from backend.core.induction import knockouts
from backend.core.induction.attribution import components, contributions
from backend.core.induction.clipping import Clip, Points, second_places
from backend.core.induction.knockouts import Knockout
from backend.core.induction.readings import OverOccurrence, Readings, predicted, read_repeats
from backend.core.induction.repeats import Repeats, random_repeats
from backend.core.interventions.heads import HeadScores, head_scores
from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.attribution import Reads
from backend.core.metrics.effects import TokenBatch
from backend.core.metrics.induction import (
    Mean,
    baseline_heads,
    change,
    induction_heads,
    mean_over,
)
from backend.core.metrics.jackknife import GroupSums, groups_of
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId, NeuronId

Part = Literal["curves", "clip", "change", "heads", "bos", "mean_output", "attribution"]
TOKENS_AT_ONCE = 512
"""Tokens through the model in one step: others wait that long."""
_CLIPPED_AT_ONCE = 256
_SAMPLES, _POINTS = 3, 1_000
_KEYS_BYTES = 1 << 30
"""Keys and values kept at once, where heads are changed at one position alone."""
_SCORED_SEQUENCES, _SCORED_SPAN = 10, 50


@dataclass(frozen=True)
class Progress:
    """How far the experiment is, in steps, and what it is doing."""

    done: int
    of: int
    doing: str


@dataclass(frozen=True)
class Sample:
    """A sequence to look at."""

    sequence: int
    loss: Tensor
    """At a token, of the next one; NaN at the last, [length]."""


@dataclass(frozen=True)
class After:
    """B and X in Figure 9a: the position after the first occurrence, and the one after the second; [2] each."""

    loss: Mean
    entropy: Mean
    activations: Mean
    """[2, neurons]"""


@dataclass(frozen=True)
class Curves:
    """Figures 5a, 9a, 10a: [2·span] each."""

    loss: Mean
    entropy: Mean
    activations: Mean
    """[2·span, neurons]"""
    references: Tensor
    """What clipping brings each neuron down to, [neurons]."""
    samples: list[Sample]
    after: After | None
    """None where text is doubled."""
    first: OverOccurrence
    """Means over the whole of the first occurrence."""
    second: OverOccurrence
    change: OverOccurrence
    """Second − first, paired by repeat."""


@dataclass(frozen=True)
class Change:
    """Figure 11: mean activation over the second occurrence less that over the first, [d_mlp]."""

    change: Mean


@dataclass(frozen=True)
class Heads:
    """Scores of all heads, [layers, heads], on `sequences` doubled random sequences."""

    prefix_matching: Mean
    bos_attention: Mean
    chosen: list[HeadId]
    baselines: list[HeadId]
    sequences: int


@dataclass(frozen=True)
class Attribution:
    """Figure 14, for one of the directions that the neurons read: mean contributions over second occurrences."""

    reads: Reads
    components: list[HeadId | str]
    induction: Tensor
    """[components, neurons]; a neuron's add up to its mean pre-activation."""
    corrupted: Tensor
    difference_se: Tensor
    """The standard error of induction − corrupted."""
    scores: Tensor
    """Prefix-matching scores, [layers, heads]."""


Result = Curves | Clip | Change | Heads | Knockout | Attribution


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    neurons: tuple[NeuronId, ...]
    """Of the last layer."""
    parts: frozenset[Part]
    top_heads: int = 3
    heads: tuple[HeadId, ...] = ()
    """Instead of those with the highest scores."""
    seed: int = 0
    references: Tensor | None = None
    """What clipping brings every neuron of the layer down to, [d_mlp]; None for its mean over first occurrences."""
    reference: str = "its mean over the first occurrences"
    knocked_out_at: knockouts.Where = "every"

    def clipped_to(self, means: NDArray[np.float64], reference: str) -> "Plan":
        """The same with other references, and what to call them."""
        return replace(self, references=torch.from_numpy(means), reference=reference)


class Experiment:
    """One run of the lab."""

    def __init__(self, model: AnalysisModel, repeats: Repeats, plan: Plan, bos: int | None = None) -> None:
        """bos: the token before the random text that heads are scored on; None for none.

        Raises:
            BadNeuron: a neuron that is not of the last layer, or a head that the model does not have.
        """
        for neuron in plan.neurons:
            if neuron.within(model.n_layers, model.d_mlp).layer != model.last_layer:
                raise BadNeuron(
                    f"Neuron {neuron} is not of the last layer: the induction lab measures {model.last_layer}.0 to "
                    f"{model.last_layer}.{model.d_mlp - 1}."
                )
        for head in plan.heads:
            head.within(model.n_layers, model.n_heads)
        self._model, self._repeats, self._plan, self._bos = model, repeats, plan, bos
        self._indices = [neuron.index for neuron in plan.neurons]
        self._batches = list(repeats.parts(TOKENS_AT_ONCE))
        self._done = self._of = 0

    def steps(self) -> Iterator[Progress | Result]:
        """Work, a little between two values."""
        parts = self._plan.parts
        changing = knockouts.planned(self._plan.top_heads if not self._plan.heads else len(self._plan.heads), parts)
        own = self._knockouts()
        mean_outputs = "mean_output" in parts
        needs_heads = bool(parts & {"heads", "bos", "mean_output", "attribution"})
        measures = bool(parts & {"curves", "clip", "change"})
        clips = "clip" in parts and self._indices
        clipped = -(-int(second_places(self._repeats).sum()) // _CLIPPED_AT_ONCE) if clips else 0
        scored = self._scored() if needs_heads else []
        passes = measures + 2 * ("attribution" in parts)
        changed = own.steps_of(changing, mean_outputs=mean_outputs) if changing else 0
        self._of = passes * len(self._batches) + clipped + len(scored) + changed
        if measures:
            yield from self._measured()
        if not needs_heads:
            return
        heads = yield from self._heads(scored)
        if "attribution" in parts and self._indices:
            yield from self._attribution(heads)
        if parts & {"bos", "mean_output"}:
            jobs = knockouts.jobs(heads.chosen, heads.baselines, parts)
            self._of += own.steps_of(len(jobs), mean_outputs=mean_outputs) - changed
            for told in own.steps(jobs):
                yield self._step(told) if isinstance(told, str) else told

    def _knockouts(self) -> knockouts.Knockouts:
        """Where heads are changed at one position alone, each costs one token's pass: the more sequences go together,
        the less a pass costs each of them."""
        alone = self._plan.knocked_out_at == "measured"
        batches = list(self._repeats.parts(_tokens_in_memory(self._model))) if alone else self._batches
        return knockouts.Knockouts(self._model, batches, self._indices, self._plan.knocked_out_at)

    def _step(self, doing: str) -> Progress:
        self._done += 1
        return Progress(self._done, max(self._of, self._done), doing)

    def _measured(self) -> Iterator[Progress | Result]:
        found = _Measured(self._model, self._repeats, self._indices, keep_stream="clip" in self._plan.parts)
        for part in self._batches:
            found.add(part)
            yield self._step("running the model on the repeated text")
        readings, parts, groups = found.readings(), self._plan.parts, self._repeats.groups
        references = self._references(readings)
        if "curves" in parts:
            inside = self._repeats.inside
            after = None if inside.all() else After(*readings.means(~inside, groups))
            first, second = readings.occurrences(inside)
            both = {"first": first, "second": second}
            yield Curves(
                *readings.means(inside, groups),
                references,
                found.samples,
                after,
                first=OverOccurrence.of(both, groups, lambda means: means["first"]),
                second=OverOccurrence.of(both, groups, lambda means: means["second"]),
                change=OverOccurrence.of(both, groups, lambda means: means["second"] - means["first"]),
            )
        if "change" in parts:
            yield Change(change(torch.cat(found.first), torch.cat(found.second), groups))
        if "clip" in parts and self._indices:
            yield from self._clipped(found, references)

    def _references(self, readings: Readings) -> Tensor:
        if self._plan.references is not None:
            return self._plan.references[self._indices].float()
        span = self._repeats.span
        return readings.activations[:, :span].flatten(0, 1).nanmean(dim=0)

    def _clipped(self, found: "_Measured", references: Tensor) -> Iterator[Progress | Result]:
        model, repeats = self._model, self._repeats
        readout = replace(model.readout, W_out=model.readout.W_out[self._indices])
        engine = EffectsEngine(readout)
        stream, activations, targets = found.stream()
        columns = (stream, activations, targets)
        own = references.to(stream.device)
        effects = []
        for x, n, target in zip(*(column.split(_CLIPPED_AT_ONCE) for column in columns), strict=True):
            # δ = min(reference − n, 0): what setting the activation's excess to 0 does.
            batch = TokenBatch(x, (n - own).clamp_min(0), target.clamp_min(0))
            effects.append(engine.effects(batch, torch.zeros_like(own)))
            yield self._step("clipping the neurons")
        known, rank = targets.cpu() >= 0, torch.cat([e.before_rank.cpu() for e in effects])
        before = [torch.cat([getattr(e, f"before_{name}").cpu() for e in effects]) for name in ("loss", "entropy")]
        deltas = [torch.cat([getattr(e, f"delta_{name}").cpu() for e in effects]) for name in ("loss", "entropy")]
        tokens = repeats.tokens[repeats.sequence[:, None], repeats.places[:, repeats.reach :]][second_places(repeats)]
        sources = repeats.source[repeats.sequence][:, None].expand_as(second_places(repeats))[second_places(repeats)]
        chosen = self._chosen(known)
        loss, entropy = before[0].where(known, torch.nan), before[1]
        for place, index in enumerate(self._indices):
            delta_loss, delta_entropy = deltas[0][:, place].where(known, torch.nan), deltas[1][:, place]
            rows = [loss[chosen], delta_loss[chosen], delta_entropy[chosen], 1 / rank[chosen]]
            points = Points(*rows, tokens[chosen], targets.cpu()[chosen], sources[chosen])
            yield Clip.of(index, float(references[place]), repeats, points, loss, entropy, delta_loss, delta_entropy)

    def _chosen(self, known: Tensor) -> Tensor:
        """Which of the tokens that `_second` means become points: some of the repeats' own that have a target."""
        repeats, chance = self._repeats, torch.Generator().manual_seed(self._plan.seed)
        shown = known & repeats.inside[repeats.reach :].expand_as(second_places(repeats))[second_places(repeats)]
        order = torch.randperm(int(shown.sum()), generator=chance)[:_POINTS]
        return shown.nonzero().squeeze(1)[order.sort().values]

    def _scored(self) -> list[Repeats]:
        """Doubled random tokens, whatever the source: scores on text with a meaning would mix in what it means."""
        model = self._model
        span = min(_SCORED_SPAN, (model.max_tokens - 1) // 2)
        repeats = random_repeats(model.ordinary, self._bos, _SCORED_SEQUENCES, span, self._plan.seed)
        return list(repeats.parts(TOKENS_AT_ONCE))

    def _heads(self, scored: Sequence[Repeats]) -> "Iterator[Progress | Result]":
        found: list[HeadScores] = []
        for part in scored:
            found.append(head_scores(self._model, part))
            yield self._step("scoring the attention heads")
        groups = np.concatenate([part.source.numpy() for part in scored])  # each sequence is a text of its own
        matching = mean_over(torch.cat([scores.prefix_matching for scores in found]), groups)
        bos = mean_over(torch.cat([scores.bos_attention for scores in found]), groups)
        chosen = [(head.layer, head.index) for head in self._plan.heads]
        chosen = chosen or induction_heads(matching.mean, self._plan.top_heads)
        baselines = baseline_heads(matching.mean, bos.mean, chosen, len(chosen), self._plan.seed)
        heads = Heads(
            matching,
            bos,
            [HeadId(*head) for head in chosen],
            [HeadId(*head) for head in baselines],
            sum(len(part.tokens) for part in scored),
        )
        yield heads
        return heads

    def _attribution(self, heads: Heads) -> Iterator[Progress | Result]:
        texts = (self._repeats, self._repeats.corrupted(self._model.ordinary, self._plan.seed))
        sums: dict[Reads, dict[str, list[GroupSums]]] = {}
        for name, whole in zip(("induction", "corrupted"), texts, strict=True):
            for part in whole.parts(TOKENS_AT_ONCE):
                rows = part.sequence[:, None].expand_as(part.second)[part.valid], part.second[part.valid]
                source = part.source[rows[0]].numpy()
                for found in contributions(self._model, part.tokens, self._indices):
                    own = GroupSums.of({name: found.values.cpu()[rows].double().numpy()}, source)
                    sums.setdefault(found.direction.reads, {}).setdefault(name, []).append(own)
                yield self._step("attributing the neurons' input")
        for reads, by_text in sums.items():
            yield _attributed(self._model, reads, by_text, heads.prefix_matching.mean)


def _attributed(
    model: AnalysisModel, reads: Reads, sums: dict[str, list[GroupSums]], scores: Tensor
) -> Attribution:  # fmt: skip
    """From sums over tokens by source of the text; the corrupted text has the sources and tokens of the repeated."""
    own, other = (reduce(GroupSums.plus, sums[name]) for name in ("induction", "corrupted"))
    both = GroupSums(own.groups, own.counts, own.totals | other.totals).regrouped(groups_of(own.groups))
    difference = both.estimate(lambda means: means["induction"] - means["corrupted"])
    means = (torch.as_tensor(both.mean(name).value) for name in ("induction", "corrupted"))
    return Attribution(reads, components(model), *means, torch.as_tensor(difference.error), scores)


def _tokens_in_memory(model: AnalysisModel) -> int:
    """Tokens whose keys and values, at most as wide as the residual stream, fit into the memory that is set aside."""
    return max(TOKENS_AT_ONCE, _KEYS_BYTES // (2 * 4 * model.n_layers * model.d_model))


@dataclass
class _Measured:
    """What the plain model does, gathered batch by batch."""

    model: AnalysisModel
    repeats: Repeats
    indices: list[int]
    keep_stream: bool
    first: list[Tensor] = field(default_factory=list)
    """Mean activation of every neuron over a first occurrence, [repeats, d_mlp]."""
    second: list[Tensor] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    _readings: list[Readings] = field(default_factory=list)
    _stream: list[Tensor] = field(default_factory=list)
    _seen: int = 0

    def add(self, part: Repeats) -> None:
        trace, readout = self.model.trace(part.tokens), self.model.readout
        self._readings.append(read_repeats(readout, part, trace.residual, trace.activations[..., self.indices]))
        for places, means in ((part.first, self.first), (part.second, self.second)):
            means.append(_mean_there(trace.activations, part, places))
        if self.keep_stream:
            meant = second_places(part)
            rows = part.sequence[:, None].expand_as(meant)[meant]
            self._stream.append(trace.residual[rows, part.places[:, part.reach :][meant]])
        for own in range(min(len(part.tokens), _SAMPLES - len(self.samples))):
            targets = torch.cat([part.tokens[own, 1:], torch.tensor([-1])]).to(trace.residual.device)
            loss, _ = predicted(readout, trace.residual[own], targets)
            self.samples.append(Sample(self._seen + own, loss.cpu()))
        self._seen += len(part.tokens)

    def readings(self) -> Readings:
        return Readings.joined(self._readings)

    def stream(self) -> tuple[Tensor, Tensor, Tensor]:
        """Residual, activations and next tokens (−1 for none) at all that `_second` means."""
        reach, meant = self.repeats.reach, second_places(self.repeats)
        residual = torch.cat(self._stream)
        activations = self.readings().activations[:, reach:][meant]
        targets = self.repeats.targets[:, reach:][meant]
        return residual, activations.to(residual), targets.to(residual.device)


def _mean_there(activations: Tensor, part: Repeats, places: Tensor) -> Tensor:
    """Over the tokens at places [repeats, span], [repeats, d_mlp]."""
    means = [
        activations[sequence, own[valid].to(activations.device)].mean(dim=0)
        for sequence, own, valid in zip(part.sequence.tolist(), places, part.valid, strict=True)
    ]
    return torch.stack(means).cpu() if means else torch.zeros(0, activations.shape[-1])
