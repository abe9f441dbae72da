"""The last steps of a model, from the last MLP's activations and the residual stream to the logits, as data."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

NormKind = Literal["LayerNorm", "RMSNorm", "none"]
"""none: nothing is divided by, so that the scale is 1 whatever is ablated."""


def centre(x: Float[Tensor, "... d_model"], kind: NormKind) -> Float[Tensor, "... d_model"]:
    """x̃: x less its mean where the norm is LayerNorm, else x."""
    return x - x.mean(dim=-1, keepdim=True) if kind == "LayerNorm" else x


def norm_scale(centred: Float[Tensor, "... d_model"], kind: NormKind, eps: float) -> Float[Tensor, "..."]:
    """What a norm divides an already centred x̃ by (Eq. 2)."""
    if kind == "none":
        return torch.ones_like(centred[..., 0])
    return (centred.square().mean(dim=-1) + eps).sqrt()


@dataclass(frozen=True)
class PostNorm:
    """A norm between the last MLP and the residual stream, as in Gemma 2 and 3 and OLMo 2 and 3.

    With m = activations·W_raw + b_raw the MLP adds g⊙m̃/ρ(m) to the stream: ablating a neuron changes ρ too, and so
    moves the stream along g⊙m̃ as well as along the neuron's own g⊙w̃_i.
    """

    kind: Literal["LayerNorm", "RMSNorm"]
    eps: float
    gain: Float[Tensor, "d_model"]
    """g"""
    W_raw: Float[Tensor, "d_mlp d_model"]
    """Output weights of all of the layer's neurons before the norm; its rows have mean 0 where the norm is
    LayerNorm."""
    b_raw: Float[Tensor, "d_model"] | None
    """The MLP's own bias; None where it is zero."""
    chosen: Int[Tensor, "neurons"] | None = None
    """Which neurons the readout's `W_out` has; None for all."""

    def before(self, activations: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d_model"]:
        """m̃, what the norm divides, from the activations of all of the layer's neurons."""
        m = activations @ self.W_raw
        return centre(m if self.b_raw is None else m + self.b_raw, self.kind)

    def scale(self, m: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """ρ of m̃."""
        return norm_scale(m, self.kind, self.eps)

    def moved(
        self, m: Float[Tensor, "tokens d_model"], grown: Float[Tensor, "tokens ..."]
    ) -> tuple[Float[Tensor, "tokens ..."], Float[Tensor, "tokens ..."]]:
        """1/ρ′ − 1/ρ and 1/ρ′, where ρ² is of m̃ and ρ′² larger by `grown`."""
        rho = self.scale(m).reshape(-1, *[1] * (grown.ndim - 1))
        after = (rho.square() + grown).clamp_min(self.eps).sqrt()
        return -grown / (rho * after * (rho + after)), 1 / after  # not the difference, whose digits cancel

    @property
    def rows(self) -> Float[Tensor, "neurons d_model"]:
        """W_raw of the neurons that the readout has."""
        return self.W_raw if self.chosen is None else self.W_raw[self.chosen]


@dataclass(frozen=True)
class StreamChange:
    """What ablating each neuron alone does to x/s and to s, the final norm's scale.

    With its scale frozen, x/s changes by c·w_out_i + e·(g⊙m̃), and with it recomputed all is multiplied by r besides.
    """

    c: Float[Tensor, "tokens neurons"]
    """δ/s; δ/(ρ′·s) where a norm follows the MLP."""
    r: Float[Tensor, "tokens neurons"]
    """s/s′"""
    e: Float[Tensor, "tokens neurons"] | None = None
    """(1/ρ′ − 1/ρ)/s; None where no norm follows the MLP."""


@dataclass(frozen=True)
class Readout:
    """The last steps of a model, from the residual stream to the logits, after weight processing.

    y = (x̃ / s)·W_U + b_U, with x̃ = x (RMSNorm) or x less its mean (LayerNorm), s = √(mean(x̃²) + eps) (Eq. 2), and
    s = 1 without a norm. The logits are y, or softcap·tanh(y/softcap).
    """

    W_out: Float[Tensor, "neurons d_model"]
    """What a unit of activation writes into the stream; g⊙w_i where a norm follows the MLP, up to that norm's scale.
    For LayerNorm its rows have mean 0."""
    W_U: Float[Tensor, "d_model d_vocab"]
    """A multiplier of the logits is folded into it, as into b_U."""
    b_U: Float[Tensor, "d_vocab"] | None
    """None where it is zero."""
    norm: NormKind
    eps: float
    post_norm: PostNorm | None = None
    """The norm between the MLP and the stream; None where there is none."""
    softcap: float | None = None
    """What bounds the logits; None where nothing does. W_U is not centred where something does."""

    def of_neurons(self, neurons: Int[Tensor, "neurons"] | list[int] | slice) -> "Readout":
        """The readout of some of its neurons."""
        post = self.post_norm
        if post is not None:
            known = torch.arange(len(post.W_raw), device=post.W_raw.device) if post.chosen is None else post.chosen
            post = replace(post, chosen=known[neurons])
        return replace(self, W_out=self.W_out[neurons], post_norm=post)

    def centred(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """x̃ of a residual stream x."""
        return centre(x, self.norm)

    def scale(self, centred: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """s of an already centred x̃ (Eq. 2)."""
        return norm_scale(centred, self.norm, self.eps)

    def uncapped(
        self, centred: Float[Tensor, "... d_model"], scale: Float[Tensor, "..."]
    ) -> Float[Tensor, "... d_vocab"]:
        """y of x̃ with the norm's scale s: the logits before a soft-cap."""
        logits = (centred / scale[..., None]) @ self.W_U
        return logits if self.b_U is None else logits + self.b_U

    def logits(
        self, centred: Float[Tensor, "... d_model"], scale: Float[Tensor, "..."]
    ) -> Float[Tensor, "... d_vocab"]:
        """The logits of x̃ with the norm's scale s."""
        return capped(self.uncapped(centred, scale), self.softcap)

    def rescaled(self, frozen: Float[Tensor, "... d_vocab"], r: Float[Tensor, "..."]) -> Float[Tensor, "... d_vocab"]:
        """Logits before a soft-cap with the norm recomputed, from those with its scale frozen; r = s/s′."""
        if self.b_U is None:
            return frozen * r[..., None]
        return (frozen - self.b_U) * r[..., None] + self.b_U

    def direct_logits(self, neurons: slice | Int[Tensor, "neurons"] = slice(None)) -> Float[Tensor, "neurons d_vocab"]:
        """A = W_out·W_U for the chosen neurons."""
        return self.W_out[neurons] @ self.W_U

    def gained(self, m: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """g⊙m̃, as `centred` has it: what the MLP writes into the stream, up to the scale of the norm that follows it.

        Raises:
            ValueError: no norm follows the MLP.
        """
        if self.post_norm is None:
            raise ValueError("no norm follows this model's last MLP")
        return self.centred(m * self.post_norm.gain)

    def written(self, activations: Float[Tensor, "... d_mlp"]) -> Float[Tensor, "... d_model"]:
        """What the last MLP adds to x̃, up to a constant, from the activations of all of its neurons."""
        post = self.post_norm
        if post is None:
            return activations @ self.W_out
        m = post.before(activations)
        return self.gained(m) / post.scale(m)[..., None]

    def change(
        self,
        centred: Float[Tensor, "tokens d_model"],
        scale: Float[Tensor, "tokens"],
        deltas: Float[Tensor, "tokens neurons"],
        m: Float[Tensor, "tokens d_model"] | None = None,
    ) -> StreamChange:
        """What ablating each neuron alone does, from inner products: no ablated stream is formed.

        Args:
            centred: x̃.
            scale: s.
            deltas: δ, what is added to the activations.
            m: m̃, as `PostNorm.before` has it, where a norm follows the MLP.
        """
        post = self.post_norm
        if post is None:
            return StreamChange(
                deltas / scale[:, None], scale[:, None] / self.ablated_scale(centred, scale, deltas)
            )  # fmt: skip
        assert m is not None, "what the MLP writes before its norm"
        grown = deltas * (2 * (m @ post.rows.T) + deltas * post.rows.square().sum(dim=1)) / m.shape[-1]
        along, inverse = post.moved(m, grown)
        part, rows, written = deltas * inverse, self.centred(self.W_out), self.gained(m)
        squares = part.square() * rows.square().sum(dim=1) + along.square() * written.square().sum(dim=1)[:, None]
        products = part * (centred @ rows.T) + along * (centred * written).sum(dim=1)[:, None]
        new_scale = self._moved(scale, squares + 2 * (products + along * part * (written @ rows.T)))
        return StreamChange(part / scale[:, None], scale[:, None] / new_scale, along / scale[:, None])

    def ablated_scale(
        self,
        centred: Float[Tensor, "tokens d_model"],
        scale: Float[Tensor, "tokens"],
        deltas: Float[Tensor, "tokens neurons"],
    ) -> Float[Tensor, "tokens neurons"]:
        """s′ of every token with one neuron ablated, without forming x′, where no norm follows the MLP.

        ‖x̃ + δw‖² = ‖x̃‖² + 2δ·x̃ᵀw + δ²‖w‖².

        Args:
            deltas: what is added to the activations.
        """
        rows = self.centred(self.W_out)
        return self._moved(scale, deltas * (2 * (centred @ rows.T) + deltas * rows.square().sum(dim=1)))

    def _moved(self, scale: Tensor, change: Tensor) -> Tensor:
        """s′ where ‖x̃‖² changes by `change`, [tokens, neurons]."""
        if self.norm == "none":
            return torch.ones_like(change)
        # The norm cannot fall below zero; rounding can take it there when an ablation nearly cancels the stream.
        return (scale.square()[:, None] + change / len(self.W_U)).clamp_min(self.eps).sqrt()


def capped(y: Float[Tensor, "..."], softcap: float | None) -> Float[Tensor, "..."]:
    """softcap·tanh(y/softcap), the logits of a model with a soft-cap; y where there is none."""
    return y if softcap is None else (y / softcap).tanh() * softcap
