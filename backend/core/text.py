"""One text through the model, and what interventions on neurons of the last layer do to every token of it.

Any number of interventions add up in the residual stream, x′ = x + Σ δ_i·w_out_i, so with A_i = w_out_i·W_U the logits
are L + (Σ δ_i·A_i)/s with the norm frozen, and follow by one scale s/s′ with the norm recomputed: no forward pass and
no unembedding is redone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import BadIntervention, BadNeuron, BadText
from backend.core.interventions import Intervention
from backend.core.metrics.distributions import Normaliser, count_above, normalise
from backend.core.metrics.effects import Readout
from backend.core.model import AnalysisModel
from backend.core.neurons import NeuronId

PREDICTIONS = 10
_ROWS_AT_ONCE = 16
"""Rows of logits handled together: few enough to stay in cache between the passes."""


@dataclass(frozen=True)
class State:
    """What the model predicts at every token in one state. Nothing follows the last: its loss is NaN, its rank 0."""

    loss: Tensor
    """[tokens]"""
    entropy: Tensor
    rank: Tensor
    scale: Tensor
    """The final norm's divisor, [tokens]."""
    top_tokens: Tensor
    """[tokens, 10], most probable first."""
    top_probabilities: Tensor


@dataclass(frozen=True)
class TracedText:
    """A text's tokens and what the model computed on them."""

    tokens: list[int]
    counted: list[int]
    """Positions behind the text's means: those that have a target, where neither token nor target is BOS or EOS."""
    truncated: bool
    centred: Tensor
    """x̃, [tokens, d_model]"""
    scale: Tensor
    activations: Tensor
    """Of the last layer, [tokens, d_mlp]."""
    before: State
    logits: Tensor = field(repr=False)
    """[tokens, d_vocab]"""


@dataclass(frozen=True)
class TextAblation:
    """A text under interventions."""

    total: State
    frozen: State
    activations_before: Tensor
    """Of the intervened neurons, [tokens, interventions]."""
    activations_after: Tensor


def trace_text(model: AnalysisModel, text: str, max_tokens: int) -> TracedText:
    """Run the model over a text, cut to `max_tokens` (or to the model's limit, where that is lower).

    Raises:
        BadText: the text has no token in this model's vocabulary.
    """
    head = [] if model.bos is None else [model.bos]
    ids = head + model.encode(text)
    limit = min(max_tokens, model.max_tokens)
    if len(ids) == len(head):
        raise BadText("The text has no token in this model's vocabulary: write at least one word.")
    tokens = ids[:limit]
    trace = model.trace(torch.tensor([tokens]))
    readout = model.readout
    centred = readout.centred(trace.residual[0])
    scale = readout.scale(centred)
    logits = readout.logits(centred, scale)
    before = _state(logits, tokens, scale)
    return TracedText(
        tokens,
        _counted(tokens, model.uncounted),
        len(ids) > limit,
        centred,
        scale,
        trace.activations[0],
        before,
        logits,
    )


def _counted(tokens: list[int], uncounted: frozenset[int]) -> list[int]:
    positions = range(len(tokens) - 1)
    words = [t for t in positions if tokens[t] not in uncounted and tokens[t + 1] not in uncounted]
    return words or list(positions)  # of a single word, all that there is is its prediction after BOS


def ablate_text(
    model: AnalysisModel, text: TracedText, interventions: Sequence[Intervention], means: NDArray[np.float64] | None
) -> TextAblation:
    """The text under all interventions together.

    Args:
        means: the reference mean of every neuron of the last layer, [d_mlp]; None takes the means over this text.

    Raises:
        BadNeuron: a neuron that does not exist, or is not in the last layer.
        BadIntervention: the same neuron twice.
    """
    indices = [last_layer_index(i.neuron, model.last_layer, model.d_mlp) for i in interventions]
    if len(set(indices)) < len(indices):
        raise BadIntervention("A neuron is named twice: give each neuron one intervention.")
    before = text.activations[:, indices]
    reference = before.mean(dim=0).tolist() if means is None else means[indices].tolist()
    after = torch.stack(
        [i.target(before[:, k], mean) for k, (i, mean) in enumerate(zip(interventions, reference, strict=True))], dim=1
    )
    readout, deltas = model.readout, after - before
    written = deltas @ readout.W_out[indices]
    scale = readout.scale(text.centred + readout.centred(written))
    frozen = text.logits + (deltas / text.scale[:, None]) @ readout.direct_logits(torch.tensor(indices))
    return TextAblation(
        total=_state(_rescaled(readout, frozen, text.scale / scale), text.tokens, scale),
        frozen=_state(frozen, text.tokens, text.scale),
        activations_before=before,
        activations_after=after,
    )


def last_layer_index(neuron: NeuronId, last_layer: int, d_mlp: int) -> int:
    """The index of a neuron of the last layer.

    Raises:
        BadNeuron: the model does not have it, or it is in an earlier layer.
    """
    neuron.within(last_layer + 1, d_mlp)
    if neuron.layer != last_layer:
        raise BadNeuron(
            f"Neuron {neuron} is not in the last layer: only neurons {last_layer}.0 to {last_layer}.{d_mlp - 1} can be "
            "read and intervened on."
        )
    return neuron.index


def _rescaled(readout: Readout, frozen: Tensor, r: Tensor) -> Tensor:
    """Logits with the norm recomputed from those with it frozen; r = s/s′, [tokens]."""
    if readout.b_U is None:
        return frozen * r[:, None]
    return (frozen - readout.b_U) * r[:, None] + readout.b_U


def _state(logits: Tensor, tokens: list[int], scale: Tensor) -> State:
    following = torch.tensor([*tokens[1:], tokens[-1]], device=logits.device)
    parts = [
        _predictions(rows, targets)
        for rows, targets in zip(logits.split(_ROWS_AT_ONCE), following.split(_ROWS_AT_ONCE), strict=True)
    ]
    loss, entropy, rank, top_tokens, top_probabilities = (torch.cat(column) for column in zip(*parts, strict=True))
    loss[-1], rank[-1] = torch.nan, 0
    return State(loss, entropy, rank, scale, top_tokens, top_probabilities)


def _predictions(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    scratch = torch.empty_like(logits)
    top = logits.topk(min(PREDICTIONS, logits.shape[1]), dim=1)
    correct = logits.gather(1, targets[:, None])
    rank = count_above(logits, correct, scratch) + 1
    highest = top.values[:, :1]
    normaliser: Normaliser = normalise(logits - highest, scratch)
    loss = normaliser.log_partition + (highest - correct).squeeze(1)
    probabilities = (top.values - highest - normaliser.log_partition[:, None]).exp()
    return loss, normaliser.entropy, rank, top.indices, probabilities
