"""Random readouts and batches: the last steps of a model, without the model."""

from typing import Literal

import torch

from backend.core.metrics.effects import TokenBatch
from backend.core.models.readout import NormKind, PostNorm, Readout, centre


def random_readout(
    seed: int,
    *,
    norm: NormKind = "RMSNorm",
    bias: bool = False,
    neurons: int = 7,
    d_model: int = 12,
    d_vocab: int = 31,
    post_norm: Literal["LayerNorm", "RMSNorm"] | None = None,
    softcap: float | None = None,
) -> Readout:
    """Weights as processing leaves them: W_U centred over the vocabulary unless there is a soft-cap, W_out centred
    where the norm centres.

    Args:
        post_norm: the kind of norm between the MLP, which then has a bias, and the residual stream.
    """
    g = torch.Generator().manual_seed(seed)
    W_out = torch.randn(neurons, d_model, generator=g)
    W_U = torch.randn(d_model, d_vocab, generator=g)
    if softcap is None:
        W_U -= W_U.mean(dim=1, keepdim=True)
    b_U = torch.randn(d_vocab, generator=g) if bias else None
    after = None
    if post_norm is not None:
        gain, b_raw = (torch.randn(d_model, generator=g) for _ in range(2))
        raw = centre(W_out, post_norm)
        after = PostNorm(post_norm, 1e-5, gain, raw, centre(b_raw, post_norm))
        W_out = gain * raw
    return Readout(centre(W_out, norm), W_U, b_U, norm, 1e-5, after, softcap)


def random_batch(seed: int, readout: Readout, tokens: int = 9) -> TokenBatch:
    """Residuals and activations of the sizes that models have."""
    g = torch.Generator().manual_seed(seed + 1)
    neurons, d_model = readout.W_out.shape
    return TokenBatch(
        residual=3 * torch.randn(tokens, d_model, generator=g),
        activations=torch.randn(tokens, neurons, generator=g),
        targets=torch.randint(0, readout.W_U.shape[1], (tokens,), generator=g),
    )
