"""What a model does at a position when heads are changed there and nowhere else.

A head that is changed at every position also changes what later positions look back on. The paper's authors change it
at the position that is read, and only there: everything before stays as the unchanged model has it. Here a position's
token runs alone after the keys and values that the unchanged model has computed for all tokens before it, so that every
position costs one token's pass.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from backend.core.interventions.heads import head_hooks
from backend.core.models.analysis_model import AnalysisModel
from backend.core.neurons import HeadId


@dataclass(frozen=True)
class Unchanged:
    """What the unchanged model computes on token sequences, as far as a changed position needs it."""

    tokens: Tensor
    """[sequences, length]"""
    memory: Any
    """Keys and values of all layers."""
    residual: Tensor
    """After the last block, [sequences, length, d_model], on the model's device."""
    activations: Tensor
    """Of the neurons that are read, [sequences, length, neurons]."""
    first: dict[HeadId, Tensor]
    """What each head writes at the first token, [sequences, 1, d_head]: looking at nothing but that token it writes the
    same everywhere."""


def unchanged(model: AnalysisModel, tokens: Tensor, heads: Sequence[HeadId], neurons: Sequence[int]) -> Unchanged:
    """Run the unchanged model over tokens [sequences, length], and keep what `changed_alone` needs.

    Args:
        heads: whose output at the first token is kept.
        neurons: of the last layer, whose activations are read.
    """
    memory, first, kept = model.new_memory(sliding=False), {}, []

    def keep_first(head: HeadId) -> Any:
        def keep(z: Tensor, hook: Any) -> None:
            first[head] = z[:, :1, head.index].detach().clone()

        return keep

    hooks = [(f"blocks.{head.layer}.attn.hook_z", keep_first(head)) for head in heads]
    residual = model.extended(tokens, memory, [*hooks, _reading(model, neurons, kept)])
    return Unchanged(tokens, memory, residual, kept[0], first)


def changed_alone(
    model: AnalysisModel,
    before: Unchanged,
    positions: Sequence[int],
    heads: Sequence[HeadId],
    neurons: Sequence[int],
    outputs: Mapping[HeadId, Tensor] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Change heads at one position after another, each time at that one alone.

    Args:
        outputs: what each head writes there instead, [d_head]; None lets it look at the first token alone.

    Yields:
        A position, the residual stream there after the last block [sequences, d_model], and the neurons' activations
        there [sequences, neurons].
    """
    written = before.first if outputs is None else outputs
    for position in positions:
        kept: list[Tensor] = []
        hooks = [*head_hooks(heads, lambda z, head: written[head].to(z)), _reading(model, neurons, kept)]
        own = before.tokens[:, position : position + 1]
        residual = model.extended(own, _up_to(before.memory, position), hooks)
        yield position, residual[:, 0], kept[0][:, 0]


def _reading(model: AnalysisModel, neurons: Sequence[int], kept: list[Tensor]) -> tuple[str, Any]:
    def keep(activations: Tensor, hook: Any) -> None:
        kept.append(activations[..., list(neurons)].detach().float())

    return f"blocks.{model.last_layer}.mlp.hook_post", keep


def _up_to(memory: Any, length: int) -> Any:
    """The keys and values of the first tokens, as a memory of its own: views of the whole one, which stays as it is."""
    part = copy.copy(memory)
    part.layers = [copy.copy(layer) for layer in memory.layers]
    for layer in part.layers:
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
    return part
