"""Interventions on neurons of the last layer, without a forward pass or an unembedding.

Any number of them add up in the residual stream, x′ = x + Σ δ_i·w_out_i, so with A_i = w_out_i·W_U the logits are
L + (Σ δ_i·A_i)/s with the norm frozen, and follow by one factor s/s′ with the norm recomputed (`kernels/plain.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from backend.core.interventions.frequency_distance import LogitChange, TextFrequencies
from backend.core.kernels import rows as compiled
from backend.core.kernels.problem import Ablations, Along, Before, DirectPath
from backend.core.metrics.effects import PairStatistics
from backend.core.models.readout import Readout
from backend.core.models.traced_text import PREDICTIONS, State, TracedText, recomputed_and_frozen

_TOKENS_AT_ONCE = 64
_MOST_ROWS = 128
_ROWS_AT_ONCE = 16
"""Rows of logits looked through together: few enough to stay in cache."""

Columns = tuple[
    Float[Tensor, "tokens"],
    Float[Tensor, "tokens"],
    Int[Tensor, "tokens"],
    Int[Tensor, "tokens predictions"],
    Float[Tensor, "tokens predictions"],
]
"""Loss, entropy, rank, top tokens and their probabilities of some tokens."""
Distance = Callable[[Float[Tensor, "tokens"]], Float64[Tensor, "tokens"]] | None
"""From losses to D_KL(P_freq‖P), both in nats; None where token frequencies are not known."""


def states(
    readout: Readout,
    text: TracedText,
    indices: list[int],
    deltas: Float[Tensor, "tokens neurons"],
    frequencies: TextFrequencies | None = None,
) -> tuple[State, State, Float[Tensor, "tokens"]]:
    """The text with the norm recomputed, and with it frozen, and ‖x̃‖ afterwards.

    Args:
        indices: the neurons.
        deltas: what is added to their activations.
        frequencies: those to tell the distance from.
    """
    change = _Change.of(readout, text, indices, deltas)
    if text.scale.device.type != "cpu" or readout.softcap is not None:
        unigram = None if frequencies is None else frequencies.unigram
        both = recomputed_and_frozen(readout, text, text.logits + change.gained(), change.scale, unigram)
        return *both, change.residual_norm
    step = len(change.r) if change.one_row else _TOKENS_AT_ONCE  # others need a row of changes for every token
    parts = [_block(text, change, slice(start, start + step)) for start in range(0, len(change.r), step)]
    totals, frozens = zip(*parts, strict=True)
    total_distance, frozen_distance = change.distances(text, frequencies)
    total = _joined(totals, change.scale, total_distance)
    return total, _joined(frozens, text.scale, frozen_distance), change.residual_norm


def _rows(readout: Readout, text: TracedText, indices: list[int]) -> Tensor:
    """A of these neurons, [neurons, d_vocab]; kept with the text, since a slider asks for the same ones again."""
    unknown = [index for index in indices if index not in text.rows]
    if unknown:
        if len(text.rows) + len(unknown) > _MOST_ROWS:
            text.rows.clear()
            unknown = indices
        computed = readout.direct_logits(torch.tensor(unknown, device=text.scale.device))
        text.rows.update(zip(unknown, computed, strict=True))
    return torch.stack([text.rows[index] for index in indices])


@dataclass(frozen=True)
class _Change:
    """How the logits change before a soft-cap: by c·A + e·v with the norm frozen, then by the factor r on all but the
    bias."""

    written: Float[Tensor, "tokens d_model"]
    """What is added to the residual stream, divided by the norm's scale."""
    c: Float[Tensor, "tokens neurons"]
    A: Float[Tensor, "neurons d_vocab"]
    scale: Float[Tensor, "tokens"]
    """s′"""
    residual_norm: Float[Tensor, "tokens"]
    r: Float[Tensor, "tokens"]
    """s/s′"""
    b_U: Float[Tensor, "d_vocab"] | None
    along: Along | None
    """e·v, [tokens, 1]: what a norm after the MLP adds along a direction of each token's own."""

    @classmethod
    def of(cls, readout: Readout, text: TracedText, indices: list[int], deltas: Tensor) -> Self:
        """Of several neurons together; deltas: what is added to their activations, [tokens, neurons]."""
        s, post, A = text.scale[:, None], readout.post_norm, _rows(readout, text, indices)
        c, along = deltas, None
        if post is not None and text.mlp_raw is not None:
            m, added = text.mlp_raw, deltas @ post.W_raw[indices]
            moved, inverse = post.moved(m, (added * (2 * m + added)).mean(dim=1, keepdim=True))
            c, along = deltas * inverse, Along(text.mlp_direction(readout), moved / s)
        written = c @ readout.W_out[indices]
        if along is not None and text.mlp_raw is not None:
            written = written + along.e * s * readout.gained(text.mlp_raw)
        after = text.centred + readout.centred(written)
        scale = readout.scale(after)
        return cls(written / s, c / s, A, scale, after.norm(dim=1), text.scale / scale, readout.b_U, along)

    @property
    def one_row(self) -> bool:
        """Whether all tokens' logits change along one row of A."""
        return self.c.shape[1] == 1 and self.along is None

    def gained(self, tokens: slice = slice(None)) -> Float[Tensor, "tokens d_vocab"]:
        """By how much the logits of some tokens change with the norm frozen."""
        rows = self.c[tokens] @ self.A
        return rows if self.along is None else rows.addcmul_(self.along.e[tokens], self.along.v[tokens])

    def problem(self, text: TracedText, tokens: slice) -> tuple[Ablations, Tensor]:
        """The tokens with one row of changes for all, or with a row each; and which pairs are meant."""
        c, r = self.c[tokens], self.r[tokens]
        log_p, targets = text.predictions.log_p[tokens], text.following[tokens]
        if self.one_row:
            rows, wanted = self.A, torch.ones_like(c, dtype=torch.bool)
        else:
            rows, wanted = self.gained(tokens), torch.eye(len(c), dtype=torch.bool)
            c = wanted.float()
        path = DirectPath.of_rows(rows, rows, rows)
        return Ablations(log_p, targets, c, r[:, None].expand_as(c).contiguous(), path, self.b_U), wanted

    def distances(self, text: TracedText, frequencies: TextFrequencies | None) -> tuple[Distance, Distance]:
        """D_KL(P_freq‖P) from the losses, with the norm recomputed and frozen."""
        if frequencies is None:
            return None, None
        x_correct = (self.c * self.A[:, text.following].T).sum(dim=1)
        if self.along is not None:
            x_correct = x_correct + self.along.e[:, 0] * self.along.of_tokens(text.following)
        logit_change = LogitChange(self.written, x_correct, self.r, self.b_U)
        return frequencies.after(text, logit_change), frequencies.after(text, replace(logit_change, r=None))


def _block(text: TracedText, change: _Change, tokens: slice) -> tuple[Columns, Columns]:
    problem, wanted = change.problem(text, tokens)
    predictions = text.predictions.at(tokens)
    loss = -predictions.log_correct[:, 0]
    top = text.nearest[tokens, 0]
    before = Before(loss, -predictions.mean_l[:, 0], text.before.rank[tokens], top, predictions)
    rows = problem.path.A
    means = (text.mean_column[tokens] * change.written[tokens]).sum(dim=1)  # Σ p·c·a
    mean_a = (means / problem.c[:, 0].where(problem.c[:, 0] != 0, 1))[:, None] if len(rows) == 1 else torch.diag(means)
    effects = _filled(problem, before, mean_a, wanted)
    frozen_rank = effects.rank
    if change.b_U is not None:  # then the recomputed norm orders tokens differently
        frozen_rank = _filled(_without_rescaling(problem), before, mean_a, wanted).rank
    best = _Best(text, change, problem, tokens)
    entropy = before.entropy
    total_loss, frozen_loss = loss + effects.delta_loss[wanted], loss + effects.delta_loss_frozen[wanted]
    frozen_entropy = entropy + effects.delta_entropy_frozen[wanted]
    total_top, frozen_top = best.both(total_loss, frozen_loss)
    total = (total_loss, entropy + effects.delta_entropy[wanted], effects.rank[wanted], *total_top)
    return total, (frozen_loss, frozen_entropy, frozen_rank[wanted], *frozen_top)


def _filled(problem: Ablations, before: Before, mean_a: Tensor, wanted: Tensor) -> PairStatistics:
    out = problem.room()
    compiled.fill_rows(problem, before, mean_a, wanted, out)
    return out


def _without_rescaling(problem: Ablations) -> Ablations:
    return replace(problem, r=torch.ones_like(problem.r))


class _Best:
    """The ten most probable tokens afterwards, from the few dozen that were best before."""

    def __init__(self, text: TracedText, change: _Change, problem: Ablations, tokens: slice) -> None:
        self._change, self._problem = change, problem
        self._candidates = text.nearest[tokens]
        self._q = change.r[tokens, None] - 1
        rows = problem.path.A
        if len(rows) == 1:
            x, x_correct = problem.c * rows[0, self._candidates], problem.c[:, 0] * rows[0, problem.targets]
            rise = torch.maximum(problem.c * problem.path.highest, problem.c * problem.path.lowest)[:, 0]
        else:
            x, x_correct = rows.gather(1, self._candidates), rows.gather(1, problem.targets[:, None])[:, 0]
            rise = problem.path.highest
        logits = problem.logits
        self._y = logits.gather(1, self._candidates) + x
        self._y_correct = logits.gather(1, problem.targets[:, None])[:, 0] + x_correct
        # No token that is not a candidate can be higher than this afterwards.
        self._others = logits.gather(1, self._candidates[:, -1:])[:, 0] + rise
        if self._candidates.shape[1] == logits.shape[1]:
            self._others = torch.full_like(self._others, -torch.inf)

    def both(self, total_loss: Tensor, frozen_loss: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Tokens and probabilities, each [tokens, 10], with the norm recomputed and with it frozen, given the losses,
        which say how the logits are normalised."""
        b, q = self._change.b_U, self._q
        tokens, values = self._best(self._y, self._others, rescaled=False)
        frozen = tokens, _probabilities(values, frozen_loss, self._y_correct)
        if b is None:  # the recomputed norm multiplies all of a token's logits by one number: they keep their order
            correct = (1 + q[:, 0]) * self._y_correct
            return (tokens, _probabilities((1 + q) * values, total_loss, correct)), frozen
        y = self._y + q * (self._y - b[self._candidates])
        correct = self._y_correct + q[:, 0] * (self._y_correct - b[self._problem.targets])
        others = (1 + q[:, 0]) * self._others + q[:, 0].abs() * b.abs().max()
        tokens, values = self._best(y, others, rescaled=True)
        return (tokens, _probabilities(values, total_loss, correct)), frozen

    def _best(self, y: Tensor, others: Tensor, *, rescaled: bool) -> tuple[Tensor, Tensor]:
        """Tokens and their logits, each [tokens, 10], highest first."""
        top = y.topk(min(PREDICTIONS, y.shape[1]), dim=1)
        tokens, values = self._candidates.gather(1, top.indices), top.values
        unsure = (values[:, -1] <= others).nonzero().squeeze(1)
        for rows in unsure.split(_ROWS_AT_ONCE):  # a strong intervention: look at the whole row
            whole = self._whole(rows, rescaled=rescaled)
            values[rows], tokens[rows] = whole.topk(values.shape[1], dim=1)
        return tokens, values

    def _whole(self, rows: Tensor, *, rescaled: bool) -> Tensor:
        """All logits of some tokens after the intervention, [rows, d_vocab]."""
        A = self._problem.path.A
        x = self._problem.c[rows] * A if len(A) == 1 else A[rows]
        whole = self._problem.logits[rows] + x
        if not rescaled:
            return whole
        b = self._change.b_U
        return whole + self._q[rows] * (whole if b is None else whole - b)


def _probabilities(logits: Tensor, loss: Tensor, correct: Tensor) -> Tensor:
    """Of tokens by their logits [tokens, 10], from the losses and the correct tokens' logits, each [tokens]."""
    return (logits - (loss + correct)[:, None]).exp()


def _joined(parts: Sequence[Columns], scale: Tensor, distance: Distance) -> State:
    loss, entropy, rank, top_tokens, top_probabilities = (torch.cat(column) for column in zip(*parts, strict=True))
    kl = None if distance is None else distance(loss)
    loss[-1], rank[-1] = torch.nan, 0
    return State(loss, entropy, rank, scale, top_tokens, top_probabilities, kl)
