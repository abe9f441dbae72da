"""What a next-token distribution says: loss, entropy and the correct token's rank, from its logits.

All in nats. Rank is counted from 1: one more than the number of tokens with a strictly higher logit, so that ties are
decided for the correct token and padding columns with equal logits change nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Normaliser:
    """log Z and H of rows of logits, in nats."""

    log_partition: Float[Tensor, "rows"]
    """log Σ exp(y − highest)"""
    entropy: Float[Tensor, "rows"]


def normalise(shifted: Float[Tensor, "rows d_vocab"], scratch: Float[Tensor, "rows d_vocab"]) -> Normaliser:
    """log Z and entropy of rows whose highest logit has been subtracted.

    Args:
        shifted: y − max y, finite.
        scratch: room that is overwritten.
    """
    weights = torch.exp(shifted, out=scratch)
    partition = weights.sum(dim=1)
    log_partition = partition.log()
    # H = log Z − Σ p·y
    return Normaliser(log_partition, log_partition - torch.linalg.vecdot(weights, shifted) / partition)


def count_above(
    logits: Float[Tensor, "rows d_vocab"], threshold: Float[Tensor, "rows 1"], scratch: Float[Tensor, "rows d_vocab"]
) -> Int[Tensor, "rows"]:
    """How many entries of each row exceed the row's threshold; scratch is overwritten."""
    # Comparing into floats and adding those up is several times faster than summing booleans, and exact below 2²⁴.
    return torch.gt(logits, threshold, out=scratch).sum(dim=1).long()


@dataclass(frozen=True)
class Distribution:
    """Rows of next-token predictions; loss and entropy in nats."""

    loss: Float[Tensor, "rows"]
    entropy: Float[Tensor, "rows"]
    rank: Int[Tensor, "rows"]
    """Of the correct token, from 1."""
    top: Int[Tensor, "rows"]
    """The most probable token."""


def distribution(logits: Float[Tensor, "rows d_vocab"], targets: Int[Tensor, "rows"]) -> Distribution:
    """Loss, entropy, rank and argmax of every row of logits; targets: the correct next tokens."""
    scratch = torch.empty_like(logits)
    highest = logits.amax(dim=1, keepdim=True)
    correct = logits.gather(1, targets[:, None])
    rank = count_above(logits, correct, scratch) + 1
    normaliser = normalise(logits - highest, scratch)
    loss = normaliser.log_partition + (highest - correct).squeeze(1)
    return Distribution(loss, normaliser.entropy, rank, logits.argmax(dim=1))
