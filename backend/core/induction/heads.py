"""Which attention heads repetition takes, and what last-layer neurons and predictions do without them (§6).

Heads are scored on doubled random tokens (Figures 5c, 12). Some are then changed, at every position or at the position
that is read alone: they look at the first token alone (BOS ablation, Figures 5c and 12), or write their mean output
(Figure 13).
"""

import copy
from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from backend.core.induction.readings import OccurrenceMeans, Readings, RepeatMeans, read_repeats
from backend.core.induction.text import Repeats, random_repeats
from backend.core.interventions.forward import continued_with_activations, residuals_before
from backend.core.interventions.hooks import replacing
from backend.core.interventions.kinds import Intervention
from backend.core.metrics.induction import (
    Mean,
    baseline_heads,
    first_token_attention,
    induction_heads,
    knocked_out,
    mean_over,
    prefix_matching,
)
from backend.core.metrics.jackknife import Array
from backend.core.models import hook_points
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId, Unit

KnockoutKind = Literal["bos", "mean_output"]
"""`bos`: heads look at the first token alone. `mean_output`: they write their mean output over second occurrences."""
HeadRole = Literal["induction", "baseline"]
KnockoutPositions = Literal["every", "measured"]
"""`every`: heads are changed at every position, so that later positions look back on changed ones. `measured`: at the
position that is read alone, as in the paper's authors' code."""
_SCORED_SEQUENCES, _SCORED_SPAN = 10, 50
_POSITIONS_AT_ONCE = 16
"""Positions between two words on progress, where heads are changed at one alone."""
_RESIDUAL_BYTES = 1 << 30
"""Residual streams kept, so that the model before the first changed head runs once."""
_KEYS_BYTES = 1 << 30
"""Keys and values kept at once, where heads are changed at one position alone."""


@dataclass(frozen=True)
class HeadScores:
    """How every head attends on repeated text."""

    prefix_matching: Float[Tensor, "repeats layers heads"]
    """Mean attention from a token of the second occurrence to the one that followed it in the first."""
    bos_attention: Float[Tensor, "sequences layers heads"]
    """Mean attention to the first token, from all later ones."""


@dataclass(frozen=True)
class ScoredHeads:
    """Scores of all heads, [layers, heads], on `sequences` doubled random sequences, and which are knocked out."""

    prefix_matching: Mean
    bos_attention: Mean
    chosen: list[HeadId]
    """Induction heads, best first."""
    baselines: list[HeadId]
    sequences: int


@dataclass(frozen=True)
class HeadGroup:
    """Heads that are changed together, and how."""

    kind: KnockoutKind
    role: HeadRole
    heads: list[HeadId]

    @property
    def layer(self) -> int:
        """The first that is changed."""
        return min(head.layer for head in self.heads)

    @property
    def interventions(self) -> list[Intervention]:
        """What is done to each head."""
        return [Intervention(head, "bos" if self.kind == "bos" else "mean") for head in self.heads]

    def means(self, outputs: Mapping[HeadId, Float[Tensor, "d_head"]]) -> list[Float[Tensor, "d_head"] | None]:
        """Each head's mean output where that is what the heads write."""
        return [outputs[head] if self.kind == "mean_output" else None for head in self.heads]


@dataclass(frozen=True)
class Knockout:
    """What the model does with some heads changed: by position of the first occurrence, then of the second."""

    group: HeadGroup
    positions: KnockoutPositions
    loss: Mean
    """[2·span], nats."""
    entropy: Mean
    """[2·span], nats."""
    activations: Mean
    """[2·span, neurons]"""
    second: OccurrenceMeans
    """Means over the whole of the second occurrence."""
    difference: OccurrenceMeans
    """By how much they differ from those with every head in place, paired by repeat."""
    left: Mean
    """What is left of each neuron's change of activation between the occurrences, [neurons]: (second occurrence with
    the heads changed − first) / (second − first), the latter two with every head in place; 1 is all, 0 nothing."""


def scoring_text(model: AnalysisModel, bos: int | None, seed: int) -> Repeats:
    """Doubled random tokens to score heads on, whatever text is measured: scores on text with a meaning would mix in
    what it means.

    Args:
        bos: the token before each sequence; None for none.
    """
    span = min(_SCORED_SPAN, (model.max_tokens - 1) // 2)
    return random_repeats(model.ordinary, bos, _SCORED_SEQUENCES, span, seed)


def score_heads(
    model: AnalysisModel, batches: Sequence[Repeats], top: int, named: Sequence[HeadId], seed: int
) -> Generator[str, None, ScoredHeads]:
    """Score all heads and choose those to knock out.

    Args:
        batches: of `scoring_text`.
        top: how many induction heads are chosen, unless some are named.
        named: heads to knock out instead.
        seed: of the choice of baselines.
    """
    scores: list[HeadScores] = []
    for batch in batches:
        scores.append(head_scores(model, batch))
        yield "scoring the attention heads"
    groups = np.concatenate([batch.source.numpy() for batch in batches])  # each sequence is a text of its own
    matching = mean_over(torch.cat([batch.prefix_matching for batch in scores]), groups)
    bos = mean_over(torch.cat([batch.bos_attention for batch in scores]), groups)
    chosen = [(head.layer, head.index) for head in named] or induction_heads(matching.mean, top)
    baselines = baseline_heads(matching.mean, bos.mean, chosen, len(chosen), seed)
    return ScoredHeads(
        matching,
        bos,
        [HeadId(*head) for head in chosen],
        [HeadId(*head) for head in baselines],
        sum(len(batch.tokens) for batch in batches),
    )


def head_scores(model: AnalysisModel, batch: Repeats) -> HeadScores:
    """How every head attends on repeated text; patterns are read as they pass, none is kept."""
    places = [places.to(model.device) for places in (batch.sequence, batch.first, batch.second, batch.valid)]
    scores: dict[int, tuple[Tensor, Tensor]] = {}

    def reading(layer: int) -> Any:
        def read(pattern: Tensor, hook: Any) -> None:
            pattern = pattern.detach().float()
            scores[layer] = prefix_matching(pattern, *places).cpu(), first_token_attention(pattern).cpu()

        return read

    layers = range(model.n_layers)
    model.observed(batch.tokens, [(hook_points.attention_patterns(layer), reading(layer)) for layer in layers])
    matching, bos = zip(*(scores[layer] for layer in layers), strict=True)
    return HeadScores(torch.stack(matching, dim=1), torch.stack(bos, dim=1))


def head_groups(chosen: Sequence[HeadId], baselines: Sequence[HeadId], kinds: AbstractSet[str]) -> list[HeadGroup]:
    """Induction heads alone and together, baselines alone and together; mean outputs of induction heads alone."""
    groups: list[HeadGroup] = []
    if "bos" in kinds:
        groups += [HeadGroup("bos", "induction", heads) for heads in _together(chosen)]
        groups += [HeadGroup("bos", "baseline", heads) for heads in _together(baselines)]
    if "mean_output" in kinds:
        groups += [HeadGroup("mean_output", "induction", heads) for heads in _together(chosen)]
    return groups


def groups_planned(heads: int, kinds: AbstractSet[str]) -> int:
    """How many groups so many induction heads, and as many baselines, will be."""
    together = len(knocked_out([(0, head) for head in range(heads)]))
    return 2 * together * ("bos" in kinds) + together * ("mean_output" in kinds)


def _together(heads: Sequence[HeadId]) -> list[list[HeadId]]:
    pairs = [(head.layer, head.index) for head in heads]
    return [[HeadId(*pair) for pair in group] for group in knocked_out(pairs)]


class Knockouts:
    """Changes groups of heads on repeated text, one group after another."""

    def __init__(
        self,
        model: AnalysisModel,
        repeats: Repeats,
        neurons: Sequence[int],
        tokens_at_once: int,
        positions: KnockoutPositions = "every",
    ) -> None:
        """Knock-outs on some repeats, before any is done.

        Args:
            neurons: of the last layer, whose activations are read.
            tokens_at_once: tokens through the model in one step.
            positions: at which heads are changed.
        """
        self._model, self._neurons, self._positions = model, list(neurons), positions
        if positions == "measured":
            # Each position costs one token's pass: the more sequences go together, the less it costs each of them.
            # Keys and values are at most as wide as the residual stream.
            tokens_at_once = max(tokens_at_once, _KEYS_BYTES // (2 * 4 * model.n_layers * model.d_model))
        self._batches = list(repeats.batches(tokens_at_once))
        self._inside, self._groups = repeats.inside, repeats.groups
        self._kept: dict[int, dict[int, Tensor]] = {}
        self._bytes = 0

    def steps_of(self, groups: int, *, mean_outputs: bool) -> int:
        """How many words on progress `steps` has for so many groups."""
        a_group = sum(1 if self._positions == "every" else len(_pieces(batch)) for batch in self._batches)
        return groups * a_group + (mean_outputs + bool(groups)) * len(self._batches)

    def steps(self, groups: Sequence[HeadGroup]) -> Generator[str | Knockout, None, None]:
        """Does a little at a time: says what it did, and yields each group's result."""
        outputs = yield from self._mean_outputs([group for group in groups if group.kind == "mean_output"])
        readings: list[list[Readings]] = [[] for _ in groups]
        if self._positions == "measured":
            yield from self._at_measured(groups, outputs, readings)
        layers = {group.layer for group in groups}
        plain = yield from self._plain(groups)
        for group, read in zip(groups, readings, strict=True):
            if self._positions == "every":
                yield from self._everywhere(group, outputs, layers, read)
            joined = Readings.joined(read)
            means = plain | {"changed": joined.occurrences(self._inside)[1]}
            yield Knockout(
                group,
                self._positions,
                *joined.means(self._inside, self._groups),
                second=OccurrenceMeans.of(means, self._groups, lambda means: means["changed"]),
                difference=OccurrenceMeans.of(means, self._groups, lambda means: means["changed"] - means["second"]),
                left=OccurrenceMeans.of(means, self._groups, _left).activations,
            )

    def _plain(self, groups: Sequence[HeadGroup]) -> Generator[str, None, dict[str, RepeatMeans]]:
        """Each repeat's means over both occurrences with every head in place."""
        readings: list[Readings] = []
        for batch in self._batches if groups else ():
            trace = self._model.trace(batch.tokens)
            activations = trace.activations[..., self._neurons]
            readings.append(read_repeats(self._model.readout, batch, trace.residual, activations))
            yield "reading the neurons with every head in place"
        if not readings:
            return {}
        first, second = Readings.joined(readings).occurrences(self._inside)
        return {"first": first, "second": second}

    def _everywhere(
        self, group: HeadGroup, outputs: Mapping[HeadId, Tensor], layers: AbstractSet[int], readings: list[Readings]
    ) -> Iterator[str]:
        for number, batch in enumerate(self._batches):
            hooks = replacing(group.interventions, group.means(outputs))
            before = self._residuals_before(number, batch, layers)[group.layer]
            residual, activations = continued_with_activations(self._model, before, group.layer, hooks)
            readings.append(read_repeats(self._model.readout, batch, residual, activations[..., self._neurons]))
            yield _doing(group)

    def _at_measured(
        self, groups: Sequence[HeadGroup], outputs: Mapping[HeadId, Tensor], readings: Sequence[list[Readings]]
    ) -> Iterator[str]:
        heads = sorted({head for group in groups for head in group.heads})
        for batch in self._batches:
            plain = SinglePositions.of(self._model, batch.tokens, heads, self._neurons)
            for group, read in zip(groups, readings, strict=True):
                # At the first position a head has nothing else to look at: BOS ablation leaves it as it is.
                residual, activations = plain.residual.clone(), plain.activations.clone()
                for places in _pieces(batch):
                    for place, x, n in plain.changed(places, group, outputs):
                        residual[:, place], activations[:, place] = x, n
                    yield _doing(group)
                read.append(read_repeats(self._model.readout, batch, residual, activations))

    def _mean_outputs(self, groups: Sequence[HeadGroup]) -> Generator[str, None, dict[HeadId, Tensor]]:
        """Each head's z, averaged over the tokens of all second occurrences, [d_head]."""
        heads = sorted({head for group in groups for head in group.heads})
        sums: dict[HeadId, Tensor] = {}
        for batch in self._batches if heads else ():
            added = output_sums(self._model, batch, heads)
            sums = {head: total + sums.get(head, 0) for head, total in added.items()}
            yield "averaging what the heads write"
        count = sum(int(batch.valid.sum()) for batch in self._batches)
        return {head: total / count for head, total in sums.items()}

    def _residuals_before(self, number: int, batch: Repeats, layers: AbstractSet[int]) -> dict[int, Tensor]:
        if number in self._kept:
            return self._kept[number]
        residuals = residuals_before(self._model, batch.tokens, layers)
        size = sum(tensor.numel() * tensor.element_size() for tensor in residuals.values())
        if self._bytes + size <= _RESIDUAL_BYTES:
            self._kept[number], self._bytes = residuals, self._bytes + size
        return residuals


def output_sums(
    model: AnalysisModel, batch: Repeats, heads: Sequence[HeadId]
) -> dict[HeadId, Float64[Tensor, "d_head"]]:
    """Σ z of heads over all tokens of second occurrences."""
    points = {head: hook_points.head_outputs(head.layer) for head in heads}
    last = max(head.layer for head in heads)
    _, kept = model.run(batch.tokens, *set(points.values()), stop_at_layer=last + 1)
    rows = batch.second_tokens
    return {head: kept[point][..., head.index, :][rows].double().sum(dim=0) for head, point in points.items()}


@dataclass(frozen=True)
class SinglePositions:
    """What a model does at a position when heads are changed there and nowhere else.

    A head that is changed at every position also changes what later positions look back on. The paper's authors change
    it at the position that is read, and only there: everything before stays as the unchanged model has it. So a
    position's token runs alone after the keys and values that the unchanged model has computed for all tokens before
    it, and every position costs one token's pass.
    """

    model: AnalysisModel
    tokens: Int[Tensor, "sequences length"]
    neurons: list[int]
    """Of the last layer, whose activations are read."""
    memory: Any
    """Keys and values of all layers of the unchanged model."""
    residual: Float[Tensor, "sequences length d_model"]
    """After the last block of the unchanged model, on the model's device."""
    activations: Float[Tensor, "sequences length neurons"]
    """Of the neurons in the unchanged model."""
    first: dict[Unit, Float[Tensor, "sequences 1 d_head"]]
    """What each head writes at the first token: looking at nothing but that token it writes the
    same everywhere."""

    @classmethod
    def of(
        cls, model: AnalysisModel, tokens: Int[Tensor, "sequences length"], heads: Sequence[HeadId], neurons: list[int]
    ) -> "SinglePositions":
        """Run the unchanged model over tokens.

        Args:
            heads: whose output at the first token is kept.
        """
        memory = model.new_memory(sliding=False)
        first: dict[Unit, Tensor] = {}
        kept: list[Tensor] = []

        def keep_first(head: HeadId) -> Any:
            def keep(z: Tensor, hook: Any) -> None:
                first[head] = z[:, :1, head.index].detach().clone()

            return keep

        hooks = [(hook_points.head_outputs(head.layer), keep_first(head)) for head in heads]
        residual = model.extended(tokens, memory, [*hooks, _reading(model, neurons, kept)])
        return cls(model, tokens, neurons, memory, residual, kept[0], first)

    def changed(
        self, positions: Sequence[int], group: HeadGroup, outputs: Mapping[HeadId, Float[Tensor, "d_head"]]
    ) -> Iterator[tuple[int, Float[Tensor, "sequences d_model"], Float[Tensor, "sequences neurons"]]]:
        """Change heads at one position after another, each time at that one alone.

        Args:
            outputs: each head's mean output where that is what the heads write.

        Yields:
            A position, the residual stream there after the last block, and the neurons' activations there.
        """
        for position in positions:
            kept: list[Tensor] = []
            changing = replacing(group.interventions, group.means(outputs), first=self.first)
            token = self.tokens[:, position : position + 1]
            hooks = [*changing, _reading(self.model, self.neurons, kept)]
            residual = self.model.extended(token, _up_to(self.memory, position), hooks)
            yield position, residual[:, 0], kept[0][:, 0]


def _reading(model: AnalysisModel, neurons: list[int], kept: list[Tensor]) -> tuple[str, Any]:
    def keep(activations: Tensor, hook: Any) -> None:
        kept.append(activations[..., neurons].detach().float())

    return hook_points.activations(model.last_layer), keep


def _up_to(memory: Any, length: int) -> Any:
    """The keys and values of the first tokens, as a memory of its own: views of the whole one, which stays as it is."""
    part = copy.copy(memory)
    part.layers = [copy.copy(layer) for layer in memory.layers]
    for layer in part.layers:
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
    return part


def _left(means: Mapping[str, Array]) -> Array:
    return (means["changed"] - means["first"]) / (means["second"] - means["first"])


def _doing(group: HeadGroup) -> str:
    return f"knocking out {', '.join(map(str, group.heads))}"


def _pieces(batch: Repeats) -> list[list[int]]:
    """The positions that are read of some sequence, a few at a time."""
    places = torch.unique(batch.places[batch.present]).tolist()
    return [places[start : start + _POSITIONS_AT_ONCE] for start in range(0, len(places), _POSITIONS_AT_ONCE)]
