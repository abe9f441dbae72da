"""The last steps of a model, from the residual stream after the last block to the logits, as data."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

NormKind = Literal["LayerNorm", "RMSNorm"]


@dataclass(frozen=True)
class Readout:
    """The last steps of a model, from the residual stream to the logits, after weight processing.

    logits = (x̃ / s)·W_U + b_U, with x̃ = x (RMSNorm) or x less its mean (LayerNorm), s = √(mean(x̃²) + eps).
    """

    W_out: Tensor
    """[n_neurons, d_model]; for LayerNorm its rows have mean 0."""
    W_U: Tensor
    """[d_model, d_vocab]"""
    b_U: Tensor | None
    """[d_vocab], or None where it is zero."""
    norm: NormKind
    eps: float

    def centred(self, x: Tensor) -> Tensor:
        """x̃, [..., d_model]."""
        return x - x.mean(dim=-1, keepdim=True) if self.norm == "LayerNorm" else x

    def scale(self, centred: Tensor) -> Tensor:
        """s of an already centred x̃, [...]."""
        return (centred.square().mean(dim=-1) + self.eps).sqrt()

    def logits(self, centred: Tensor, scale: Tensor) -> Tensor:
        """[..., d_vocab]"""
        logits = (centred / scale[..., None]) @ self.W_U
        return logits if self.b_U is None else logits + self.b_U

    def rescaled(self, frozen: Tensor, r: Tensor) -> Tensor:
        """Logits with the norm recomputed from those with its scale frozen, [..., d_vocab]; r = s/s′, [...]."""
        if self.b_U is None:
            return frozen * r[..., None]
        return (frozen - self.b_U) * r[..., None] + self.b_U

    def direct_logits(self, neurons: slice | Tensor = slice(None)) -> Tensor:
        """A = W_out·W_U for the chosen neurons, [n_chosen, d_vocab]."""
        return self.W_out[neurons] @ self.W_U

    def ablated_scale(self, centred: Tensor, scale: Tensor, deltas: Tensor) -> Tensor:
        """s′ for every (token, neuron), [tokens, n_neurons], without forming x′.

        ‖x̃ + δw‖² = ‖x̃‖² + 2δ·x̃ᵀw + δ²‖w‖².
        """
        rows = self.centred(self.W_out)
        change = deltas * (2 * (centred @ rows.T) + deltas * rows.square().sum(dim=1))
        # The norm cannot fall below zero; rounding can take it there when an ablation nearly cancels the stream.
        return (scale.square()[:, None] + change / centred.shape[-1]).clamp_min(self.eps).sqrt()
