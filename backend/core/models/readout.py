"""The last steps of a model, from the residual stream after the last block to the logits, as data."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

NormKind = Literal["LayerNorm", "RMSNorm"]


@dataclass(frozen=True)
class Readout:
    """The last steps of a model, from the residual stream to the logits, after weight processing.

    logits = (x̃ / s)·W_U + b_U, with x̃ = x (RMSNorm) or x less its mean (LayerNorm), s = √(mean(x̃²) + eps) (Eq. 2).
    """

    W_out: Float[Tensor, "neurons d_model"]
    """For LayerNorm its rows have mean 0."""
    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, "d_vocab"] | None
    """None where it is zero."""
    norm: NormKind
    eps: float

    def centred(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """x̃ of a residual stream x."""
        return x - x.mean(dim=-1, keepdim=True) if self.norm == "LayerNorm" else x

    def scale(self, centred: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """s of an already centred x̃ (Eq. 2)."""
        return (centred.square().mean(dim=-1) + self.eps).sqrt()

    def logits(
        self, centred: Float[Tensor, "... d_model"], scale: Float[Tensor, "..."]
    ) -> Float[Tensor, "... d_vocab"]:
        """The logits of x̃ with the norm's scale s."""
        logits = (centred / scale[..., None]) @ self.W_U
        return logits if self.b_U is None else logits + self.b_U

    def rescaled(self, frozen: Float[Tensor, "... d_vocab"], r: Float[Tensor, "..."]) -> Float[Tensor, "... d_vocab"]:
        """Logits with the norm recomputed from those with its scale frozen; r = s/s′."""
        if self.b_U is None:
            return frozen * r[..., None]
        return (frozen - self.b_U) * r[..., None] + self.b_U

    def direct_logits(self, neurons: slice | Int[Tensor, "neurons"] = slice(None)) -> Float[Tensor, "neurons d_vocab"]:
        """A = W_out·W_U for the chosen neurons."""
        return self.W_out[neurons] @ self.W_U

    def ablated_scale(
        self,
        centred: Float[Tensor, "tokens d_model"],
        scale: Float[Tensor, "tokens"],
        deltas: Float[Tensor, "tokens neurons"],
    ) -> Float[Tensor, "tokens neurons"]:
        """s′ of every token with one neuron ablated, without forming x′; deltas: what is added to the activations.

        ‖x̃ + δw‖² = ‖x̃‖² + 2δ·x̃ᵀw + δ²‖w‖².
        """
        rows = self.centred(self.W_out)
        change = deltas * (2 * (centred @ rows.T) + deltas * rows.square().sum(dim=1))
        # The norm cannot fall below zero; rounding can take it there when an ablation nearly cancels the stream.
        return (scale.square()[:, None] + change / centred.shape[-1]).clamp_min(self.eps).sqrt()
