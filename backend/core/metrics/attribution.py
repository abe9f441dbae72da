"""Direct feature attribution: what each component writes onto a neuron's input direction (I.3).

A neuron's pre-activation is norm(x)·w_in + b. With the norm's scale s held, it is a sum over what components wrote into
the residual stream, x = Σ o_c: each contributes õ_c·w_in / s, õ less its mean where the norm is LayerNorm.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Reads = Literal["in", "gate", "up"]


@dataclass(frozen=True)
class InputDirection:
    """What some neurons of one layer read, after the input norm's gain was folded in.

    A neuron of a gated MLP has two: its activation is act(gate)·up. Both are linear in the normed stream, their product
    is not, so each is attributed by itself.
    """

    reads: Reads
    W: Tensor
    """[d_model, neurons]; columns have mean 0 where the norm is LayerNorm, so that õ need not be formed."""
    b: Tensor | None
    """[neurons]"""


def of_vectors(written: Tensor, W: Tensor, scale: Tensor) -> Tensor:
    """What vectors [..., d_model] contribute to neurons, [..., neurons]; scale: s, [...]."""
    return (written @ W) / scale[..., None]


def of_heads(z: Tensor, W_O: Tensor, W: Tensor, scale: Tensor) -> Tensor:
    """What a layer's heads contribute, [..., heads, neurons].

    Args:
        z: what W_O [heads, d_head, d_model] reads, [..., heads, d_head]; scale: s, [...].
    """
    by_head = W_O @ W  # far smaller than every head's output
    return (z[..., None, :] @ by_head)[..., 0, :] / scale[..., None, None]
