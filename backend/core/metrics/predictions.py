"""What the fast kernels need of each token's prediction before any ablation."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """p, its logarithm l, and what they say about u = l − b_U, which the recomputed norm rescales."""

    log_p: Float[Tensor, "tokens d_vocab"]
    """l"""
    p: Float[Tensor, "tokens d_vocab"]
    """Rows sum to 1."""
    mean_l: Float[Tensor, "tokens 1"]
    """Σ p·l, minus the entropy, nats."""
    mean_b: Float[Tensor, "tokens 1"]
    """Σ p·b_U, 0 without a bias."""
    log_correct: Float[Tensor, "tokens 1"]
    """l of the correct token, minus the loss, nats."""
    b_correct: Float[Tensor, "tokens 1"]
    """b_U of the correct token, 0 without a bias."""
    deepest: Float[Tensor, "tokens 1"]
    """max |u − Σ p·u|"""

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "tokens d_vocab"],
        targets: Int[Tensor, "tokens"],
        b_U: Float[Tensor, "d_vocab"] | None,
    ) -> "Predictions":
        """From logits, the correct next tokens and the unembedding's bias, None where it is zero."""
        log_p, p = _rows(logits)
        mean_l = torch.linalg.vecdot(p, log_p)[:, None]
        correct = targets[:, None]
        if b_U is None:
            mean_b = b_correct = torch.zeros_like(mean_l)
            deepest = torch.maximum(mean_l - log_p.amin(dim=1, keepdim=True), -mean_l)
        else:
            mean_b, b_correct = (p @ b_U)[:, None], b_U[correct]
            deepest = (log_p - b_U - (mean_l - mean_b)).abs().amax(dim=1, keepdim=True)
        return cls(log_p, p, mean_l, mean_b, log_p.gather(1, correct), b_correct, deepest)

    def centred_correct(self) -> tuple[Float64[Tensor, "tokens"], Float64[Tensor, "tokens"]]:
        """l and b_U of the correct token, less their means under p."""
        log_p, b = self.log_correct.double() - self.mean_l, self.b_correct.double() - self.mean_b
        return log_p[:, 0], b[:, 0]

    def centred_l(self) -> Float[Tensor, "tokens d_vocab"]:
        """l − Σ p·l"""
        return self.log_p - self.mean_l

    def centred_u(self, b_U: Float[Tensor, "d_vocab"]) -> Float[Tensor, "tokens d_vocab"]:
        """u − Σ p·u"""
        return self.log_p - b_U - (self.mean_l - self.mean_b)

    def without_rows(self) -> "Predictions":
        """What is small: all but p and its logarithm."""
        nothing = self.p.new_empty(0, 0)
        return replace(self, log_p=nothing, p=nothing)

    def with_rows(self, logits: Float[Tensor, "tokens d_vocab"]) -> "Predictions":
        """p and its logarithm computed once more, from the logits that `of` was given."""
        log_p, p = _rows(logits)
        return replace(self, log_p=log_p, p=p)

    def at(self, tokens: slice) -> "Predictions":
        """The predictions at some of the tokens."""
        return Predictions(*(getattr(self, f.name)[tokens] for f in fields(self)))


def _rows(
    logits: Float[Tensor, "tokens d_vocab"],
) -> tuple[Float[Tensor, "tokens d_vocab"], Float[Tensor, "tokens d_vocab"]]:
    """log p and p."""
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    total = p.sum(dim=1, keepdim=True)  # rounding of log p is common to a row: 10⁻⁵ of its sum
    p /= total
    log_p -= total.log()
    return log_p, p
