"""What a norm does, learnt by asking it: families store gains in different ways (Gemma and Nemotron as 1 + weight), and
weight processing leaves some where they are."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from backend.core.models.readout import NormKind, centre, norm_scale

_ALIKE = 1e-3
"""Relative; a LayerNorm forgets what all directions have in common, an RMSNorm does not at all."""


@dataclass(frozen=True)
class Norm:
    """norm(x) = gain⊙x̃/s + bias, with x̃ and s as in Eq. 2."""

    kind: NormKind
    eps: float
    gain: Float[Tensor, "d_model"] | None = None
    """None where it is 1 everywhere, as where it was folded."""
    bias: Float[Tensor, "d_model"] | None = None
    """None where it is 0 everywhere."""

    @classmethod
    @torch.no_grad()
    def of(cls, module: Any, d_model: int, eps: float, device: torch.device) -> Self:
        """Of a norm in TransformerLens' bridge, or of None, which is no norm.

        Args:
            eps: what is added to the mean square where the module does not say.
        """
        original = getattr(module, "original_component", module)
        if original is None or isinstance(original, torch.nn.Identity):
            return cls("none", 0.0)
        known = (getattr(original, name, None) for name in ("eps", "variance_epsilon"))
        eps = next((float(value) for value in known if value is not None), eps)
        x = torch.ones(1, 1, d_model, device=device)
        x[..., 1::2] = -1
        x *= (1 + eps) ** 0.5  # else an eps of 10¹², as in GPT-2 without LayerNorms, leaves nothing to see
        asked = torch.cat([torch.zeros_like(x), x, x + 2 * x.abs()])
        dtype = next((parameter.dtype for parameter in module.parameters()), asked.dtype)
        still, plain, moved = module(asked.to(dtype)).float().flatten(0, 1)
        kind: NormKind = "LayerNorm" if torch.allclose(plain, moved, rtol=_ALIKE, atol=_ALIKE) else "RMSNorm"
        centred = centre(x[0, 0], kind)
        gain = (plain - still) / (centred / norm_scale(centred, kind, eps))
        return cls(
            kind,
            eps,
            None if torch.allclose(gain, torch.ones_like(gain), atol=8 * torch.finfo(dtype).eps, rtol=0) else gain,
            still if bool(still.any()) else None,
        )

    def folded(
        self, W: Float[Tensor, "d_model out"], b: Float[Tensor, "out"] | None
    ) -> tuple[Float[Tensor, "d_model out"], Float[Tensor, "out"] | None]:
        """Weights and bias of what reads the normed stream, with the norm's own taken in: they then read x̃/s."""
        if self.bias is not None:
            b = self.bias @ W if b is None else b + self.bias @ W
        return W if self.gain is None else self.gain[:, None] * W, b
