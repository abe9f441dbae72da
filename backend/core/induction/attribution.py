"""Direct feature attribution through a model: which components wrote what last-layer neurons read (I.3, Figure 14)."""

from collections.abc import Generator
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.errors import UnsupportedModel
from backend.core.induction.text import Repeats
from backend.core.metrics.attribution import InputDirection, Reads, of_heads, of_vectors
from backend.core.metrics.jackknife import GroupSums, groups_of
from backend.core.models import hook_points
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import centre, norm_scale
from backend.core.neurons import HeadId

_TOLERANCE = 1e-3
"""Of the largest pre-activation; observed 1e-6."""


@dataclass(frozen=True)
class Contributions:
    """What each component contributes to neurons' pre-activations: they add up to these."""

    direction: InputDirection
    values: Float[Tensor, "sequences length components neurons"]
    total: Float[Tensor, "sequences length neurons"]
    """The pre-activations that the model itself computed."""


@dataclass(frozen=True)
class Attribution:
    """Figure 14, for one of the directions that the neurons read: mean contributions over second occurrences."""

    reads: Reads
    components: list[HeadId | str]
    induction: Float[Tensor, "components neurons"]
    """On the repeated text; a neuron's add up to its mean pre-activation."""
    corrupted: Float[Tensor, "components neurons"]
    """On the text with something else in place of the first occurrences."""
    difference_se: Float[Tensor, "components neurons"]
    """The standard error of induction − corrupted."""
    scores: Float[Tensor, "layers heads"]
    """Prefix-matching scores."""


def attribute(
    model: AnalysisModel,
    repeats: Repeats,
    neurons: list[int],
    scores: Float[Tensor, "layers heads"],
    seed: int,
    tokens_at_once: int,
) -> Generator[str | Attribution, None, None]:
    """Attribute the input of last-layer neurons: says what it does, then yields a result for each direction they read.

    Args:
        scores: prefix-matching scores, which are handed on.
        seed: of the text that stands in place of the first occurrences.
        tokens_at_once: tokens through the model in one step.

    Raises:
        UnsupportedModel: something else writes into the stream too.
    """
    texts = {"induction": repeats, "corrupted": repeats.corrupted(model.ordinary, seed)}
    sums: dict[Reads, dict[str, list[GroupSums]]] = {}
    for name, text in texts.items():
        for batch in text.batches(tokens_at_once):
            rows = batch.second_tokens
            source = batch.source[rows[0]].numpy()
            for contribution in contributions(model, batch.tokens, neurons):
                added = GroupSums.of({name: contribution.values.cpu()[rows].double().numpy()}, source)
                sums.setdefault(contribution.direction.reads, {}).setdefault(name, []).append(added)
            yield "attributing the neurons' input"
    for reads, by_text in sums.items():
        yield _attribution(model, reads, by_text, scores)


def _attribution(
    model: AnalysisModel, reads: Reads, sums: dict[str, list[GroupSums]], scores: Tensor
) -> Attribution:  # fmt: skip
    """From sums over tokens by source of the text; the corrupted text has the sources and tokens of the repeated."""
    repeated, corrupted = (reduce(GroupSums.plus, sums[name]) for name in ("induction", "corrupted"))
    both = GroupSums(repeated.groups, repeated.counts, repeated.totals | corrupted.totals)
    both = both.regrouped(groups_of(both.groups))
    difference = both.estimate(lambda means: means["induction"] - means["corrupted"])
    means = {name: torch.as_tensor(both.mean(name).value) for name in ("induction", "corrupted")}
    error = torch.as_tensor(difference.error)
    return Attribution(reads, components(model), **means, difference_se=error, scores=scores)


def components(model: AnalysisModel) -> list[HeadId | str]:
    """What writes into the stream that the last MLP reads: heads, earlier MLPs with their biases, the embedding, and
    the other biases. Heads of the last layer are among them unless the MLP runs in parallel to them."""
    heads = [HeadId(layer, head) for layer in _attention_layers(model) for head in range(model.n_heads)]
    return [*heads, *(f"MLP {layer}" for layer in range(model.last_layer)), "Embedding", "Biases"]


def contributions(
    model: AnalysisModel, tokens: Int[Tensor, "sequences length"], neurons: list[int]
) -> list[Contributions]:
    """What components contribute to each direction that the neurons read (of a gated MLP two), on every token (I.3).

    Raises:
        UnsupportedModel: the contributions do not add up to the pre-activation: something else writes into the stream.
    """
    points = _HookPoints(model)
    _, kept = model.run(tokens, *points.names, stop_at_layer=model.n_layers)
    norm = model.input_norm(model.last_layer)
    scale = norm_scale(centre(kept[points.read], norm.kind), norm.kind, norm.eps)
    attributed = []
    for direction in model.input_directions(neurons):
        values = torch.cat(_in_order(model, points, kept, direction, scale), dim=-2)
        total = points.pre_activation(kept, direction, neurons).reshape(*tokens.shape, -1)
        if not (values.sum(dim=-2) - total).abs().max() <= _TOLERANCE * total.abs().max().clamp_min(1e-6):
            raise UnsupportedModel(
                f"{model.name}: what its heads, MLPs and embedding write does not add up to what its last MLP reads, "
                "so their contributions would be wrong. Leave the attribution out for this model."
            )
        attributed.append(Contributions(direction, values, total))
    return attributed


def _attention_layers(model: AnalysisModel) -> range:
    return range(model.last_layer if model.parallel else model.n_layers)


class _HookPoints:
    """The hook points that an attribution reads."""

    def __init__(self, model: AnalysisModel) -> None:
        last = model.last_layer
        self.heads = [hook_points.head_outputs(layer) for layer in _attention_layers(model)]
        self.head_scales = [model.attention_scale_point(layer) for layer in _attention_layers(model)]
        self.mlps = [hook_points.mlp_output(layer) for layer in range(last)]
        self.embedding = hook_points.residual_before(0)
        self.read = (hook_points.residual_before if model.parallel else hook_points.residual_between)(last)
        pre = hook_points.pre_activations(last)
        self._activation = {"in": pre, "gate": pre, "up": hook_points.up_projections(last)}
        scales = [point for point in self.head_scales if point is not None]
        # A mixture forms what a neuron's expert would read only where the expert is chosen: it is formed here.
        self._mlp_input = None if model.experts is None else hook_points.mlp_input(last)
        gated = len(model.input_directions([0])) > 1
        passing = ["gate", "up"] if gated else ["in"]
        own = [self._activation[reads] for reads in passing] if self._mlp_input is None else [self._mlp_input]
        self.names = sorted({*self.heads, *scales, *self.mlps, self.embedding, self.read, *own})

    def pre_activation(
        self, kept: dict[str, Tensor], direction: InputDirection, neurons: list[int]
    ) -> Float[Tensor, "... neurons"]:
        """What the model's neurons read along a direction, as it computed it."""
        if self._mlp_input is None:
            return kept[self._activation[direction.reads]][..., neurons]
        read = kept[self._mlp_input] @ direction.W
        return read if direction.b is None else read + direction.b


def _in_order(
    model: AnalysisModel, points: _HookPoints, kept: dict[str, Tensor], direction: InputDirection, scale: Tensor
) -> list[Tensor]:
    """Each [sequences, length, some components, neurons]."""
    W, shape = direction.W, (*scale.shape, -1)
    parts, constant = [], scale.new_zeros(*scale.shape, W.shape[1])
    for layer, name, divisor in zip(_attention_layers(model), points.heads, points.head_scales, strict=True):
        W_O, b_O = model.head_outputs(layer)
        by = scale if divisor is None else scale * kept[divisor].reshape(scale.shape)
        parts.append(of_heads(kept[name], W_O, W, by))
        constant = constant if b_O is None else constant + of_vectors(b_O.expand(*shape), W, by)
    for name in (*points.mlps, points.embedding):
        parts.append(of_vectors(kept[name].reshape(shape), W, scale)[..., None, :])
    parts.append((constant if direction.b is None else constant + direction.b)[..., None, :])
    return parts
