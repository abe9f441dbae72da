"""The baseline: the published way to measure effects, from its description.

For 20 neurons at a time, the residual stream after ablation is formed for every token and unembedded anew, once through
the norm and once with the norm's scale frozen; loss and entropy are taken from the full logits.
"""

import torch
from torch import Tensor

from backend.core.metrics.effects import TokenBatch
from backend.core.models.readout import Readout

CHUNK = 20


def published_effects(readout: Readout, batch: TokenBatch, means: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Changes of loss (total, frozen) and entropy (total, frozen), each [tokens, n_neurons]."""
    loss, entropy = _told(readout, batch.residual[None], None, batch.targets)
    own_scale = readout.scale(readout.centred(batch.residual))
    columns: list[tuple[Tensor, ...]] = []
    for start in range(0, len(readout.W_out), CHUNK):
        part = slice(start, min(start + CHUNK, len(readout.W_out)))
        deltas = (means[part] - batch.activations[:, part]).T  # [chunk, tokens]
        ablated = batch.residual + deltas[..., None] * readout.W_out[part, None]  # [chunk, tokens, d_model]
        total = _told(readout, ablated, None, batch.targets)
        frozen = _told(readout, ablated, own_scale, batch.targets)
        columns.append((total[0] - loss, frozen[0] - loss, total[1] - entropy, frozen[1] - entropy))
    total_loss, frozen_loss, total_entropy, frozen_entropy = (
        torch.cat(parts).T for parts in zip(*columns, strict=True)
    )
    return total_loss, frozen_loss, total_entropy, frozen_entropy


def _told(readout: Readout, x: Tensor, scale: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    centred = readout.centred(x)
    log_p = readout.logits(centred, readout.scale(centred) if scale is None else scale).log_softmax(-1)
    loss = -log_p.gather(-1, targets.expand(log_p.shape[:-1])[..., None]).squeeze(-1)
    return loss, -(log_p.exp() * log_p).sum(-1)
