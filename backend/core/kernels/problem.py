"""What a kernel is given and what it gives back, as data."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from backend.core.metrics.distributions import count_above
from backend.core.metrics.predictions import Predictions

TILE = 4096
"""Tokens of the vocabulary that are summed together in float32, and whose extremes are known."""
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class DirectPath:
    """What neurons write onto the logits."""

    W_out: Tensor
    """[n_neurons, d_model]"""
    W_U: Tensor
    """[d_model, d_vocab]"""
    A: Tensor
    """W_out·W_U, [n_neurons, d_vocab]"""
    highest: Tensor
    """The largest entry of each neuron's row of A, [n_neurons]."""
    lowest: Tensor
    tile_size: Tensor
    """max |A_i| over every tile of the vocabulary, [n_neurons, tiles]."""
    _powers: dict[tuple[int, torch.dtype], Tensor] | None = None

    @classmethod
    def of(cls, W_out: Tensor, W_U: Tensor, *, keep_powers: bool = False) -> "DirectPath":
        """The product and its extremes: the heaviest thing that is kept.

        keep_powers: remember powers of A too, once they were asked for.
        """
        return cls.of_rows(W_out, W_U, W_out @ W_U, keep_powers=keep_powers)

    @classmethod
    def of_rows(cls, W_out: Tensor, W_U: Tensor, A: Tensor, *, keep_powers: bool = False) -> "DirectPath":
        """The same where A is there already."""
        tiles = torch.split(A, TILE, dim=1)
        highest = torch.stack([tile.amax(dim=1) for tile in tiles], dim=1)
        lowest = torch.stack([tile.amin(dim=1) for tile in tiles], dim=1)
        size = torch.maximum(highest, -lowest)
        return cls(W_out, W_U, A, highest.amax(dim=1), lowest.amin(dim=1), size, {} if keep_powers else None)

    def power(self, k: int, kind: torch.dtype, part: slice) -> Tensor:
        """The elementwise power Aᵏ of some neurons' rows, in a type; −k gives |A|ᵏ."""
        if self._powers is None:
            return _power(self.A[part], k, kind)
        if (k, kind) not in self._powers:
            whole = torch.empty(self.A.shape, dtype=kind, device=self.A.device)
            for start in range(0, len(whole), _ROWS_AT_ONCE):
                rows = slice(start, start + _ROWS_AT_ONCE)
                whole[rows] = _power(self.A[rows], k, kind)
            self._powers[k, kind] = whole
        return self._powers[k, kind][part]

    def columns(self) -> Tensor:
        """Aᵀ, [d_vocab, n_neurons], a row a token; kept with the powers."""
        if self._powers is None:
            return self.A.T.contiguous()
        key = (0, self.A.dtype)
        if key not in self._powers:
            self._powers[key] = self.A.T.contiguous()
        return self._powers[key]

    def kept_columns(self) -> Tensor | None:
        """The same if it is there already."""
        return None if self._powers is None else self._powers.get((0, self.A.dtype))

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """What all neurons write onto some tokens' logits, [tokens, n_neurons]."""
        columns = self.kept_columns()
        return self.A[:, tokens].T if columns is None else columns[tokens]

    @property
    def size(self) -> Tensor:
        """max |A_i|, [n_neurons]"""
        return torch.maximum(self.highest, -self.lowest)

    def mean(self, weights: Tensor) -> Tensor:
        """Σ_v weights·A_v, [tokens, n_neurons], for weights [tokens, d_vocab]; through d_model if that is narrower."""
        if len(self.A) < len(self.W_U):
            return weights @ self.A.T
        return (weights @ self.W_U.T) @ self.W_out.T


def _power(rows: Tensor, k: int, kind: torch.dtype) -> Tensor:
    power = rows.clone()
    for _ in range(abs(k) - 1):
        power *= rows
    return (power.abs_() if k < 0 else power).to(kind)


@dataclass(frozen=True)
class Problem:
    """Tokens and the neurons ablated on them, one at a time."""

    logits: Tensor
    """L, [tokens, d_vocab]"""
    targets: Tensor
    """The correct next tokens, [tokens]."""
    c: Tensor
    """δ/s, [tokens, n_neurons]"""
    r: Tensor
    """s/s′, [tokens, n_neurons]"""
    path: DirectPath
    b_U: Tensor | None
    """The unembedding's bias, [d_vocab], or None where it is zero."""
    direction: Tensor | None = None
    """A direction v̂ of the logits, of length 1, [d_vocab]; asks for `delta_loss_freq`."""


@dataclass(frozen=True)
class Before:
    """The predictions without ablation; all but the last [tokens]."""

    loss: Tensor
    entropy: Tensor
    rank: Tensor
    top: Tensor
    predictions: Predictions

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, b_U: Tensor | None) -> "Before":
        """From logits [tokens, d_vocab], the correct next tokens [tokens] and the unembedding's bias [d_vocab]."""
        predictions = Predictions.of(logits, targets, b_U)
        correct = logits.gather(1, targets[:, None])
        scratch = torch.empty_like(logits[:_ROWS_AT_ONCE])
        parts = zip(torch.split(logits, _ROWS_AT_ONCE), torch.split(correct, _ROWS_AT_ONCE), strict=True)
        rank = torch.cat([count_above(rows, own, scratch[: len(rows)]) for rows, own in parts]) + 1
        return cls(
            -predictions.log_correct[:, 0], -predictions.mean_l[:, 0], rank, logits.argmax(dim=1), predictions
        )  # fmt: skip


@dataclass(frozen=True)
class PairStatistics:
    """What ablating neuron i changes at token t, after − before; every tensor is [tokens, n_neurons]."""

    delta_loss: Tensor
    delta_loss_frozen: Tensor
    delta_entropy: Tensor
    delta_entropy_frozen: Tensor
    rank: Tensor
    """The correct token's rank after ablation, norm recomputed; integer from 1."""
    changed: Tensor
    """Whether some token now beats the token that was most probable before (norm recomputed)."""
    delta_loss_freq: Tensor | None = None
    """As delta_loss, with the logits' component along `Problem.direction` put back to what it was; None without one."""

    @classmethod
    def empty(cls, problem: Problem) -> "PairStatistics":
        """Room for all pairs of a problem."""
        kinds = {"rank": torch.int64, "changed": torch.bool}
        names = [f.name for f in fields(cls) if problem.direction is not None or f.name != "delta_loss_freq"]
        return cls(**{name: torch.empty_like(problem.c, dtype=kinds.get(name)) for name in names})
