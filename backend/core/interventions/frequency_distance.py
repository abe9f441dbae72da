"""How far a text's predictions are from the token frequencies, D_KL(P_freq‖P): before and under interventions.

With P_freq fixed, D = −H(P_freq) − Σ P_freq·log P: linear in the logits apart from their normaliser, which the loss
knows already. So no intervention on the last layer needs another sum over the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from backend.core.metrics.frequency import Unigram, delta_divergence, read_by
from backend.core.models.readout import Readout
from backend.core.models.traced_text import TracedText


@dataclass(frozen=True)
class LogitChange:
    """What interventions on the last layer do to a text's logits: y = r·(u + x) + b, with u = log p − b, x = c·A."""

    written: Float[Tensor, "tokens d_model"]
    """What they add to the residual stream, divided by the norm's scale."""
    x_correct: Float[Tensor, "tokens"]
    """x of the correct token."""
    r: Float[Tensor, "tokens"] | None
    """s/s′; None with the norm frozen."""
    b_U: Float[Tensor, "d_vocab"] | None


@dataclass(frozen=True)
class TextFrequencies:
    """P_freq as the texts of one model need it."""

    name: str
    """What tells it from others: distances are kept with a text under this name."""
    unigram: Unigram
    read: Float64[Tensor, "d_model"]
    """W_U·P_freq"""

    @classmethod
    def of(cls, name: str, readout: Readout, p: Float[Tensor, "d_vocab"]) -> Self:
        """From probabilities by token id; they are scaled to sum to 1.

        Raises:
            ValueError: one is not above 0, or not finite.
        """
        unigram = Unigram.of_counts(p.to(readout.W_U.device), smoothing=0.0)
        return cls(name, unigram, read_by(readout.W_U, unigram.p))

    def before(self, text: TracedText) -> Float64[Tensor, "tokens"]:
        """D of the text as it is, nats; computed once for a text."""
        if self.name not in text.distances:
            text.distances[self.name] = self.unigram.divergence(text.predictions.log_p)
        return text.distances[self.name]

    def after(
        self, text: TracedText, change: LogitChange
    ) -> Callable[[Float[Tensor, "tokens"]], Float64[Tensor, "tokens"]]:
        """D of the changed logits as a function of their losses, both in nats."""
        before, predictions = self.before(text), text.predictions
        r = torch.ones_like(before) if change.r is None else change.r.double()
        written = r * (change.x_correct.double() - change.written.double() @ self.read)
        lead = self.unigram.lead(predictions, change.b_U, before)
        loss_before = -predictions.log_correct[:, 0].double()
        return lambda loss: (before + delta_divergence(loss - loss_before, r - 1, lead, written)).clamp_min(0)
