"""Direct feature attribution: what each component writes onto a neuron's input direction (I.3).

A neuron's pre-activation is norm(x)·w_in + b. With the norm's scale s held, it is a sum over what components wrote into
the residual stream, x = Σ o_c: each contributes õ_c·w_in / s, õ less its mean where the norm is LayerNorm.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Reads = Literal["in", "gate", "up"]


@dataclass(frozen=True)
class InputDirection:
    """What some neurons of one layer read, after the input norm's gain was folded in.

    A neuron of a gated MLP has two: its activation is act(gate)·up. Both are linear in the normed stream, their product
    is not, so each is attributed by itself.
    """

    reads: Reads
    W: Float[Tensor, "d_model neurons"]
    """Columns have mean 0 where the norm is LayerNorm, so that õ need not be formed."""
    b: Float[Tensor, "neurons"] | None
    """None where the layer has no such bias."""


def of_vectors(
    written: Float[Tensor, "... d_model"], W: Float[Tensor, "d_model neurons"], scale: Float[Tensor, "..."]
) -> Float[Tensor, "... neurons"]:
    """What vectors that were written into the stream contribute to neurons' pre-activations; scale: s."""
    return (written @ W) / scale[..., None]


def of_heads(
    z: Float[Tensor, "... heads d_head"],
    W_O: Float[Tensor, "heads d_head d_model"],
    W: Float[Tensor, "d_model neurons"],
    scale: Float[Tensor, "..."],
) -> Float[Tensor, "... heads neurons"]:
    """What each of a layer's heads contributes to neurons' pre-activations.

    Args:
        z: what W_O reads.
        scale: s.
    """
    by_head = W_O @ W  # far smaller than every head's output
    return (z[..., None, :] @ by_head)[..., 0, :] / scale[..., None, None]
