"""What attention heads look at, and forward passes with heads knocked out.

A head that attends to the first token alone writes the same everywhere: that token's value, which is its own output z
at the first position, where it can attend to nothing else. So BOS ablation sets z to z of position 0. Replacing the
pattern would say the same, but for some families (OPT, GPT-Neo) TransformerLens only tells the pattern, and what is put
in its place changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backend.core.induction.repeats import Repeats
from backend.core.metrics.induction import first_token_attention, prefix_matching
from backend.core.models.analysis_model import AnalysisModel, Hooks
from backend.core.neurons import HeadId


@dataclass(frozen=True)
class HeadScores:
    """Of every head, by sequence or repeat."""

    prefix_matching: Tensor
    """[repeats, layers, heads]"""
    bos_attention: Tensor
    """[sequences, layers, heads]"""


def head_scores(model: AnalysisModel, part: Repeats) -> HeadScores:
    """How every head attends on repeated text; patterns are read as they pass, none is kept."""
    places = [places.to(model.device) for places in (part.sequence, part.first, part.second, part.valid)]
    scores: dict[int, tuple[Tensor, Tensor]] = {}

    def reading(layer: int) -> Any:
        def read(pattern: Tensor, hook: Any) -> None:
            pattern = pattern.detach().float()
            scores[layer] = prefix_matching(pattern, *places).cpu(), first_token_attention(pattern).cpu()

        return read

    layers = range(model.n_layers)
    model.observed(part.tokens, [(f"blocks.{layer}.attn.hook_pattern", reading(layer)) for layer in layers])
    matching, bos = zip(*(scores[layer] for layer in layers), strict=True)
    return HeadScores(torch.stack(matching, dim=1), torch.stack(bos, dim=1))


def bos_hooks(heads: Iterable[HeadId]) -> Hooks:
    """Heads attend to the first token alone, at every position."""

    def replace(z: Tensor, head: HeadId) -> Tensor:
        return z[:, :1, head.index]

    return head_hooks(heads, replace)


def output_hooks(heads: Iterable[HeadId], outputs: Mapping[HeadId, Tensor]) -> Hooks:
    """Heads write the same at every position: z is replaced by a given one, [d_head]."""

    def replace(z: Tensor, head: HeadId) -> Tensor:
        return outputs[head].to(z)

    return head_hooks(heads, replace)


def head_hooks(heads: Iterable[HeadId], value: Callable[[Tensor, HeadId], Tensor]) -> Hooks:
    """Hooks that replace each head's z by `value(z of all heads, head)`, at every position that is run."""
    by_layer: dict[int, list[HeadId]] = defaultdict(list)
    for head in heads:
        by_layer[head.layer].append(head)

    def replacing(own: list[HeadId]) -> Any:
        def replace(z: Tensor, hook: Any) -> Tensor:
            changed = z.clone()
            for head in own:
                changed[:, :, head.index] = value(z, head)
            return changed

        return replace

    return [(f"blocks.{layer}.attn.hook_z", replacing(own)) for layer, own in by_layer.items()]


def output_sums(model: AnalysisModel, part: Repeats, heads: Sequence[HeadId]) -> tuple[dict[HeadId, Tensor], int]:
    """Σ z of heads over all tokens of second occurrences, [d_head] each in float64, and how many those are."""
    points = {head: f"blocks.{head.layer}.attn.hook_z" for head in heads}
    last = max(head.layer for head in heads)
    _, kept = model.run(part.tokens, *set(points.values()), stop_at_layer=last + 1)
    rows = part.sequence[:, None].expand_as(part.second)[part.valid], part.second[part.valid]
    sums = {head: kept[point][..., head.index, :][rows].double().sum(dim=0) for head, point in points.items()}
    return sums, int(part.valid.sum())


def prefixes(model: AnalysisModel, tokens: Tensor, layers: Iterable[int]) -> dict[int, Tensor]:
    """The residual stream before some layers, from one pass: [batch, position, d_model] by layer."""
    wanted = sorted(set(layers))
    names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in wanted}
    _, kept = model.run(tokens, *names.values(), stop_at_layer=wanted[-1] + 1)
    return {layer: kept[name] for layer, name in names.items()}


def continued(model: AnalysisModel, prefix: Tensor, layer: int, hooks: Hooks) -> tuple[Tensor, Tensor]:
    """From the residual stream before a layer on: that after the last block, and the last layer's activations."""
    kept: list[Tensor] = []

    def keep(activations: Tensor, hook: Any) -> None:
        kept.append(activations.detach().float())

    residual = model.continued(prefix, layer, [*hooks, (f"blocks.{model.last_layer}.mlp.hook_post", keep)])
    return residual, kept[-1]
