"""Random readouts and batches: the last steps of a model, without the model."""

import torch

from backend.core.metrics.effects import TokenBatch
from backend.core.models.readout import NormKind, Readout


def random_readout(
    seed: int, *, norm: NormKind = "RMSNorm", bias: bool = False, neurons: int = 7, d_model: int = 12, d_vocab: int = 31
) -> Readout:
    """Weights as processing leaves them: W_U centred over the vocabulary, W_out centred where the norm centres."""
    g = torch.Generator().manual_seed(seed)
    W_out = torch.randn(neurons, d_model, generator=g)
    if norm == "LayerNorm":
        W_out -= W_out.mean(dim=1, keepdim=True)
    W_U = torch.randn(d_model, d_vocab, generator=g)
    W_U -= W_U.mean(dim=1, keepdim=True)
    return Readout(W_out, W_U, torch.randn(d_vocab, generator=g) if bias else None, norm, 1e-5)


def random_batch(seed: int, readout: Readout, tokens: int = 9) -> TokenBatch:
    """Residuals and activations of the sizes that models have."""
    g = torch.Generator().manual_seed(seed + 1)
    neurons, d_model = readout.W_out.shape
    return TokenBatch(
        residual=3 * torch.randn(tokens, d_model, generator=g),
        activations=torch.randn(tokens, neurons, generator=g),
        targets=torch.randint(0, readout.W_U.shape[1], (tokens,), generator=g),
    )
