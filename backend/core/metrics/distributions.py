"""What a next-token distribution says: loss, entropy and the correct token's rank, from its logits.

All in nats. Rank is counted from 1: one more than the number of tokens with a strictly higher logit, so that ties are
decided for the correct token and padding columns with equal logits change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normaliser:
    """Z and H of rows of logits, each [rows]."""

    log_partition: Tensor
    """log Σ exp(y − highest)"""
    entropy: Tensor


def normalise(shifted: Tensor, scratch: Tensor) -> Normaliser:
    """log Z and entropy of rows whose highest logit has been subtracted.

    Args:
        shifted: y − max y, [rows, d_vocab], finite.
        scratch: a tensor of the same shape, overwritten.
    """
    weights = torch.exp(shifted, out=scratch)
    partition = weights.sum(dim=1)
    log_partition = partition.log()
    # H = log Z − Σ p·y
    return Normaliser(log_partition, log_partition - torch.linalg.vecdot(weights, shifted) / partition)


def count_above(logits: Tensor, threshold: Tensor, scratch: Tensor) -> Tensor:
    """How many entries of each row exceed the row's threshold [rows, 1]; integer [rows]."""
    # Comparing into floats and adding those up is several times faster than summing booleans, and exact below 2²⁴.
    return torch.gt(logits, threshold, out=scratch).sum(dim=1).long()


@dataclass(frozen=True)
class Distribution:
    """Rows of next-token predictions; every tensor is [rows]."""

    loss: Tensor
    entropy: Tensor
    rank: Tensor
    """Integer, from 1."""
    top: Tensor
    """The most probable token."""


def distribution(logits: Tensor, targets: Tensor) -> Distribution:
    """Loss, entropy, rank and argmax of every row of logits [rows, d_vocab] for its correct next token [rows]."""
    scratch = torch.empty_like(logits)
    highest = logits.amax(dim=1, keepdim=True)
    correct = logits.gather(1, targets[:, None])
    rank = count_above(logits, correct, scratch) + 1
    normaliser = normalise(logits - highest, scratch)
    loss = normaliser.log_partition + (highest - correct).squeeze(1)
    return Distribution(loss, normaliser.entropy, rank, logits.argmax(dim=1))
