"""One text through the model: its tokens, and what the model predicts at each of them."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from backend.core.errors import BadText
from backend.core.metrics.distributions import count_above, normalise
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.predictions import Predictions
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import Readout, capped
from backend.core.neurons import Unit

PREDICTIONS = 10
_CANDIDATES = 64
_ROWS_AT_ONCE = 16
"""Rows of logits handled together: few enough to stay in cache between the passes."""


@dataclass(frozen=True)
class State:
    """What the model predicts at every token in one state. Nothing follows the last: its loss is NaN, its rank 0."""

    loss: Float[Tensor, "tokens"]
    """Of the next token, nats."""
    entropy: Float[Tensor, "tokens"]
    """Nats."""
    rank: Int[Tensor, "tokens"]
    """The next token's, from 1."""
    scale: Float[Tensor, "tokens"]
    """The final norm's divisor."""
    top_tokens: Int[Tensor, "tokens predictions"]
    """The most probable first; there are `PREDICTIONS`."""
    top_probabilities: Float[Tensor, "tokens predictions"]
    kl: Float[Tensor, "tokens"] | None = None
    """D_KL(P_freq‖P), nats; None where token frequencies are not known."""


@dataclass(frozen=True)
class TracedText:
    """A text's tokens and what the model computed on them."""

    tokens: list[int]
    counted: list[int]
    """Positions behind the text's means: those that have a target, where neither token nor target is special (BOS,
    EOS, what separates documents)."""
    truncated: bool
    centred: Float[Tensor, "tokens d_model"]
    """x̃"""
    scale: Float[Tensor, "tokens"]
    """s"""
    activations: Float[Tensor, "tokens d_mlp"]
    """Of the last layer."""
    before: State
    predictions: Predictions = field(repr=False)
    nearest: Int[Tensor, "tokens candidates"] = field(repr=False)
    """The most probable tokens at every position, best first: the only ones that a moderate
    intervention can bring among the first ten."""
    mean_column: Float[Tensor, "tokens d_model"] = field(repr=False)
    """Σ_v p_v·W_U[:, v]"""
    uncapped: Float[Tensor, "tokens d_vocab"] | None = field(default=None, repr=False)
    """The logits before the model's soft-cap; None where it has none."""
    mlp_raw: Float[Tensor, "tokens d_model"] | None = field(default=None, repr=False)
    """What the last MLP writes before the norm that follows it (`PostNorm.before`); None where none does."""
    mlp_logits: dict[str, Float[Tensor, "tokens d_vocab"]] = field(default_factory=dict, repr=False)
    """What `mlp_raw` times the norm's gain writes onto the logits, once it was asked for."""
    prefixes: dict[int, Float[Tensor, "tokens d_model"]] = field(default_factory=dict, repr=False)
    """The residual stream before a layer, for the layers that were continued from."""
    rows: dict[int, Float[Tensor, "d_vocab"]] = field(default_factory=dict, repr=False)
    """A_i of the last layer's neurons that were intervened on."""
    values: dict[Unit, Float[Tensor, "tokens *d_head"]] = field(default_factory=dict, repr=False)
    """Of the neurons and heads that were read."""
    distances: dict[str, Float64[Tensor, "tokens"]] = field(default_factory=dict, repr=False)
    """D_KL(P_freq‖P) at every token, nats, by the frequencies' name."""

    def within(self, position: int) -> int:
        """A position that the text has.

        Raises:
            BadText: it has no such position.
        """
        if not 0 <= position < len(self.tokens):
            raise BadText(f"The text has no position {position}: its tokens are 0 to {len(self.tokens) - 1}.")
        return position

    @property
    def residual_norm(self) -> Float[Tensor, "tokens"]:
        """‖x̃‖"""
        lengths: Tensor = self.centred.norm(dim=1)
        return lengths

    @property
    def logits(self) -> Float[Tensor, "tokens d_vocab"]:
        """Before a soft-cap, and where there is none up to a constant a token."""
        return self.predictions.log_p if self.uncapped is None else self.uncapped

    def mlp_direction(self, readout: Readout) -> Float[Tensor, "tokens d_vocab"]:
        """The direction of the logits along which the norm after the MLP moves each token; computed once for a text.

        Raises:
            ValueError: no norm follows the MLP.
        """
        if self.mlp_raw is None:
            raise ValueError("no norm follows this model's last MLP")
        if "last" not in self.mlp_logits:
            self.mlp_logits["last"] = readout.gained(self.mlp_raw) @ readout.W_U
        return self.mlp_logits["last"]

    @property
    def following(self) -> Int[Tensor, "tokens"]:
        """The next token of every position; the last, which has none, is given its own."""
        return torch.tensor([*self.tokens[1:], self.tokens[-1]], device=self.scale.device)


def trace_text(model: AnalysisModel, text: str, max_tokens: int, bos: int | None = None) -> TracedText:
    """Run the model over a text, cut to `max_tokens` (or to the model's limit, where that is lower).

    Args:
        bos: the token before it; None for the text alone.

    Raises:
        BadText: the text has no token in this model's vocabulary.
    """
    head = [] if bos is None else [bos]
    ids = head + model.encode(text)
    limit = min(max_tokens, model.max_tokens)
    if len(ids) == len(head):
        raise BadText("The text has no token in this model's vocabulary: write at least one word.")
    return trace_tokens(model, ids[:limit], bos, truncated=len(ids) > limit)


def trace_tokens(
    model: AnalysisModel, tokens: list[int], bos: int | None = None, *, truncated: bool = False
) -> TracedText:
    """Run the model over tokens as they are.

    Args:
        bos: the token among them that stands for no text, besides those that the tokenizer names; None for no other.
    """
    trace = model.trace(torch.tensor([tokens]))
    readout, activations = model.readout, trace.activations[0]
    centred = readout.centred(trace.residual[0])
    scale = readout.scale(centred)
    logits = readout.uncapped(centred, scale)
    targets = torch.tensor([*tokens[1:], tokens[-1]], device=logits.device)
    predictions = Predictions.of(capped(logits, readout.softcap), targets, readout.b_U)
    nearest = logits.topk(min(_CANDIDATES, logits.shape[1]), dim=1).indices
    return TracedText(
        tokens,
        _counted(tokens, model.uncounted if bos is None else model.uncounted | {bos}),
        truncated,
        centred,
        scale,
        activations,
        _unchanged(logits, targets, scale, predictions, nearest),
        predictions,
        nearest,
        predictions.p @ readout.W_U.T,
        uncapped=None if readout.softcap is None else logits,
        mlp_raw=None if readout.post_norm is None else readout.post_norm.before(activations),
    )


def _counted(tokens: list[int], uncounted: frozenset[int]) -> list[int]:
    positions = range(len(tokens) - 1)
    words = [t for t in positions if tokens[t] not in uncounted and tokens[t + 1] not in uncounted]
    return words or list(positions)  # of a single word after BOS, all that there is is its prediction


def _unchanged(
    logits: Tensor, targets: Tensor, scale: Tensor, predictions: Predictions, nearest: Tensor
) -> State:  # fmt: skip
    """The text as it is, from what its predictions are known by already."""
    parts = zip(logits.split(_ROWS_AT_ONCE), targets.split(_ROWS_AT_ONCE), strict=True)
    rank = torch.cat([_rank(rows, rows.gather(1, correct[:, None])) for rows, correct in parts])
    top = nearest[:, :PREDICTIONS].contiguous()
    loss, entropy = -predictions.log_correct[:, 0], -predictions.mean_l[:, 0]
    loss[-1], rank[-1] = torch.nan, 0
    return State(loss, entropy, rank, scale, top, predictions.p.gather(1, top))


def recomputed_and_frozen(
    readout: Readout,
    text: TracedText,
    frozen: Float[Tensor, "tokens d_vocab"],
    scale: Float[Tensor, "tokens"],
    unigram: Unigram | None,
) -> tuple[State, State]:
    """A changed text with the final norm recomputed, and with its scale frozen.

    Args:
        frozen: the logits with the scale frozen, before a soft-cap.
        scale: what it is where it is recomputed.
        unigram: the token frequencies to take the distance from; None where they are not known.
    """
    with_frozen = _state(frozen, text.following, text.scale, unigram, readout.softcap)
    # Without a bias the recomputed norm multiplies all of a token's logits by one number: they keep their order.
    order = with_frozen if readout.b_U is None else None
    total = readout.rescaled(frozen, text.scale / scale)
    return _state(total, text.following, scale, unigram, readout.softcap, order), with_frozen


def _state(
    logits: Tensor,
    targets: Tensor,
    scale: Tensor,
    unigram: Unigram | None,
    softcap: float | None,
    order: State | None = None,
) -> State:
    """
    Args:
        logits: before the soft-cap, which keeps their order.
        order: a state whose logits have the order of these.
    """
    blocks = (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(logits), _ROWS_AT_ONCE))
    parts = [
        _predictions(
            logits[rows],
            targets[rows],
            unigram,
            softcap,
            None if order is None else (order.rank[rows], order.top_tokens[rows]),
        )
        for rows in blocks
    ]
    loss, entropy, rank, top_tokens, top_probabilities, kl = (torch.cat(column) for column in zip(*parts, strict=True))
    loss[-1], rank[-1] = torch.nan, 0
    return State(loss, entropy, rank, scale, top_tokens, top_probabilities, None if unigram is None else kl)


def _predictions(
    logits: Tensor,
    targets: Tensor,
    unigram: Unigram | None,
    softcap: float | None,
    order: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, ...]:
    if order is None:
        rank = _rank(logits, logits.gather(1, targets[:, None]))
        order = rank, logits.topk(min(PREDICTIONS, logits.shape[1]), dim=1).indices
    rank, top = order
    logits = capped(logits, softcap)
    correct, highest = logits.gather(1, targets[:, None]), logits.gather(1, top[:, :1])
    log_p = logits - highest
    normaliser = normalise(log_p, torch.empty_like(logits))
    loss = normaliser.log_partition + (highest - correct).squeeze(1)
    log_p -= normaliser.log_partition[:, None]
    kl = torch.empty(0) if unigram is None else unigram.divergence(log_p)
    return loss, normaliser.entropy, rank, top, log_p.gather(1, top).exp(), kl


def _rank(logits: Tensor, correct: Tensor) -> Tensor:
    """From 1, of the correct token's logit, [rows, 1] → [rows]."""
    return count_above(logits, correct, torch.empty_like(logits)) + 1
