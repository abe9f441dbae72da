"""What the weights say of every neuron's direct path: the tokens it moves most, and how it moves all of them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.models.readout import Readout
from precompute.config import LOGIT_BINS, LOGIT_TOKENS

_NEURONS_AT_ONCE = 128


@dataclass(frozen=True)
class DirectTokens:
    """Rows of A = W_out·W_U in short; every array is [n_neurons, …]."""

    top_ids: NDArray[np.int64]
    top_values: NDArray[np.float32]
    bottom_ids: NDArray[np.int64]
    bottom_values: NDArray[np.float32]
    edges: NDArray[np.float32]
    """Of the histogram of a row, between its lowest and its highest entry."""
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, readout: Readout) -> "DirectTokens":
        """In slabs of neurons: A as a whole need not fit in memory."""
        starts = range(0, len(readout.W_out), _NEURONS_AT_ONCE)
        parts = [_short(readout.direct_logits(slice(start, start + _NEURONS_AT_ONCE))) for start in starts]
        return cls(*(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)))


def _short(rows: Tensor) -> tuple[Tensor, ...]:
    k = min(LOGIT_TOKENS, rows.shape[1])
    top, bottom = rows.topk(k, dim=1), rows.topk(k, dim=1, largest=False)
    return top.indices, top.values, bottom.indices, bottom.values, *_histogram(rows)


def _histogram(rows: Tensor) -> tuple[Tensor, Tensor]:
    low, high = rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)
    high = torch.where(high > low, high, low + 1e-6)
    steps = torch.linspace(0, 1, LOGIT_BINS + 1, device=rows.device)
    bins = ((rows - low) / (high - low) * LOGIT_BINS).long().clamp(0, LOGIT_BINS - 1)
    counts = torch.zeros(len(rows), LOGIT_BINS, dtype=torch.long, device=rows.device)
    return low + steps * (high - low), counts.scatter_add_(1, bins, torch.ones_like(bins))
