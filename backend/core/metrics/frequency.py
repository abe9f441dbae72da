"""Token frequency (§4): the unigram distribution, the direction of the logits that it sets, and the distance from it.

P_freq says how often each token occurs whatever the context. v_freq = log P_freq less its mean over the vocabulary is
the direction of the logits along which a prediction moves towards P_freq or away from it (Eq. 7). A neuron's direct
effect beside that direction (Eq. 8) is computed by the kernels; what it does to D_KL(P_freq‖P) follows here from its
change of loss, without another sum over the vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from backend.core.metrics.predictions import Predictions

_COLUMNS = 4096
"""Of W_U that are read in float64 at once."""
COUNT_SMOOTHING = 1.0
"""Added to every token's count (Laplace), so that no probability is 0."""
MEAN_SMOOTHING = 1e-9
"""Added to every token's probability where P_freq is a mean of predictions; then the whole is scaled to sum to 1."""


@dataclass(frozen=True)
class Unigram:
    """P_freq over a model's vocabulary."""

    p: Float64[Tensor, "d_vocab"]
    """Positive, and sums to 1."""

    @classmethod
    def of_counts(
        cls,
        counts: Shaped[Tensor, "d_vocab"] | Float64[NDArray[np.float64], "d_vocab"],
        smoothing: float = COUNT_SMOOTHING,
    ) -> Self:
        """From how often each token was seen: (count + smoothing) / (total + smoothing·d_vocab).

        Raises:
            ValueError: a count is negative or not finite, the smoothing is negative, or a probability would be 0.
        """
        counts = torch.as_tensor(counts, dtype=torch.float64)
        smoothed = counts + smoothing
        if smoothing < 0 or not bool(torch.isfinite(counts).all()) or bool((counts < 0).any()):
            raise ValueError("counts and smoothing must be finite and not negative")
        if not bool((smoothed > 0).all()):
            raise ValueError("a token without a count has no probability: smooth the counts")
        return cls(smoothed / smoothed.sum())

    @classmethod
    def of_mean(cls, total: Float[Tensor, "d_vocab"]) -> Self:
        """From the sum of a model's predictions over positions.

        Raises:
            ValueError: an entry is negative or not finite.
        """
        return cls.of_counts(total.double() / total.double().sum(), MEAN_SMOOTHING)

    @cached_property
    def v(self) -> Float64[Tensor, "d_vocab"]:
        """v_freq (Eq. 7)."""
        log_p = self.p.log()
        return log_p - log_p.mean()

    @cached_property
    def direction(self) -> Float64[Tensor, "d_vocab"]:
        """v_freq at length 1; 0 everywhere where all tokens are equally frequent."""
        length = float(torch.linalg.vector_norm(self.v))
        # A uniform P_freq leaves rounding in place of a direction.
        return self.v / length if length > 1e-9 * len(self.v) ** 0.5 else torch.zeros_like(self.v)

    @cached_property
    def entropy(self) -> float:
        """H(P_freq), nats."""
        return -float((self.p * self.p.log()).sum())

    def divergence(self, log_p: Float[Tensor, "tokens d_vocab"]) -> Float64[Tensor, "tokens"]:
        """D_KL(P_freq‖P) = −H(P_freq) − Σ P_freq·log P of predictions, in nats; never below 0."""
        # float32 of P_freq errs by 6·10⁻⁸ of each term: 10⁻⁶ nats in all.
        expected = log_p @ self.p.to(log_p)
        return (-self.entropy - expected.double()).clamp_min(0)

    def lead(
        self, predictions: Predictions, b_U: Float[Tensor, "d_vocab"] | None, divergence: Float64[Tensor, "tokens"]
    ) -> Float64[Tensor, "tokens"]:
        """u = log P − b_U of the correct token less its mean under P_freq; divergence: D_KL(P_freq‖P)."""
        lead = predictions.log_correct[:, 0].double() + self.entropy + divergence
        if b_U is None:
            return lead
        return lead - (predictions.b_correct[:, 0].double() - b_U.double() @ self.p)


def delta_divergence(
    delta_loss: Float[Tensor, "tokens neurons"],
    q: Float[Tensor, "tokens neurons"],
    lead: Float[Tensor, "tokens 1"],
    written_lead: Float[Tensor, "tokens neurons"],
) -> Float64[Tensor, "tokens neurons"]:
    """The change of D_KL(P_freq‖P) when logits change by q·u + w, after − before, in nats.

    As log P = y − log Z and loss = log Z − y_correct, D = loss + (y_correct − Σ P_freq·y) − H(P_freq): beside the loss
    only the correct token's lead over the mean under P_freq counts, which is linear in the logits y.

    Args:
        lead: of u, as `Unigram.lead` has it.
        written_lead: of w, what is written onto the logits beside the rescaling: d·A_i of a neuron.
    """
    return delta_loss.double() + q.double() * lead + written_lead


def read_by(W_U: Float[Tensor, "d_model d_vocab"], values: Float[Tensor, "d_vocab"]) -> Float64[Tensor, "d_model"]:
    """W_U·values: a residual stream's product with it is that of the logits it writes with the values."""
    read = torch.zeros(len(W_U), dtype=torch.float64, device=W_U.device)
    values = values.to(read)
    for start in range(0, W_U.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        read += W_U[:, part].double() @ values[part]
    return read


@dataclass(frozen=True)
class ReadDirection:
    """v_freq as the residual stream's directions reach it through the unembedding; both on W_U's device."""

    gram: Float64[Tensor, "d_model d_model"]
    """W_U·W_Uᵀ: uᵀ·gram·u is the squared length of the logits that u writes."""
    read: Float64[Tensor, "d_model"]
    """W_U·v̂: u·read is what u writes along v_freq."""

    @classmethod
    def of(cls, W_U: Float[Tensor, "d_model d_vocab"], unigram: Unigram) -> Self:
        """Of an unembedding and P_freq over its vocabulary."""
        gram = torch.zeros(len(W_U), len(W_U), dtype=torch.float64, device=W_U.device)
        for start in range(0, W_U.shape[1], _COLUMNS):
            part = W_U[:, start : start + _COLUMNS].double()
            gram += part @ part.T
        return cls(gram, read_by(W_U, unigram.direction))

    def cosines(self, rows: Float[Tensor, "rows d_model"]) -> Float64[Tensor, "rows"]:
        """Cosine of what each row writes onto the logits with v_freq; 0 for a row that writes nothing."""
        rows = rows.to(self.gram)
        length = ((rows @ self.gram) * rows).sum(dim=1).clamp_min(0).sqrt()
        return torch.where(length > 0, rows @ self.read / length.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def alignment(
    W_out: Float[Tensor, "neurons d_model"], W_U: Float[Tensor, "d_model d_vocab"], unigram: Unigram
) -> Float64[Tensor, "neurons"]:
    """Cosine of each neuron's A_i with v_freq (§4).

    Positive: while the activation is, the neuron raises common tokens and suppresses rare ones; negative: it suppresses
    common tokens. 0 for a neuron that writes nothing.
    """
    return ReadDirection.of(W_U, unigram).cosines(W_out)
