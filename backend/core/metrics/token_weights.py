"""What neurons write towards one token: a column of A = W_out·W_U, without the rest of A."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def token_weights(
    W_out: Float[Tensor, "neurons d_model"], W_U: Float[Tensor, "d_model d_vocab"], token: int
) -> Float64[Tensor, "neurons"]:
    """Entries of W_out·W_U for one token: the logit that a unit of activation adds directly.

    Args:
        W_U: centred over the vocabulary, so that the mean token's weight is 0.
    """
    weights: Tensor = W_out.to(torch.float64) @ W_U[:, token].to(torch.float64)
    return weights


def extremes(weights: Float[Tensor, "neurons"], limit: int) -> tuple[list[int], list[int]]:
    """Indices of the largest positive weights and of the most negative, `limit` each, from the extreme inwards."""
    order = torch.argsort(weights, descending=True, stable=True)
    positive = [int(i) for i in order[:limit] if weights[i] > 0]
    negative = [int(i) for i in order.flip(0)[:limit] if weights[i] < 0]
    return positive, negative
