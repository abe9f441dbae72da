"""The baseline: the published way to measure effects, from its description.

For 20 neurons at a time, the residual stream after ablation is formed for every token and unembedded anew, once through
the norm and once with the norm's scale frozen; loss and entropy are taken from the full logits. With token frequencies
the loss is taken once more, from the logits of the former with their component along the frequency direction put back.
"""

import torch
from torch import Tensor

from backend.core.metrics.effects import TokenBatch
from backend.core.models.readout import Readout

CHUNK = 20


def published_effects(
    readout: Readout, batch: TokenBatch, means: Tensor, direction: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Changes of loss (total, frozen) and entropy (total, frozen), each [tokens, n_neurons]; with a direction of the
    logits of length 1, [d_vocab], that of the loss beside it too."""
    loss, entropy = _measured(_logits(readout, batch.residual[None], None), batch.targets)
    scale = readout.scale(readout.centred(batch.residual))
    columns: list[tuple[Tensor, ...]] = []
    for start in range(0, len(readout.W_out), CHUNK):
        part = slice(start, min(start + CHUNK, len(readout.W_out)))
        deltas = (means[part] - batch.activations[:, part]).T  # [chunk, tokens]
        ablated = batch.residual + deltas[..., None] * readout.W_out[part, None]  # [chunk, tokens, d_model]
        logits = _logits(readout, ablated, None)
        total = _measured(logits, batch.targets)
        frozen = _measured(_logits(readout, ablated, scale), batch.targets)
        changes = [total[0] - loss, frozen[0] - loss, total[1] - entropy, frozen[1] - entropy]
        if direction is not None:
            gained = (logits - _logits(readout, batch.residual[None], None)) @ direction
            beside = logits - gained[..., None] * direction
            changes.append(-_log_correct(beside.log_softmax(-1), batch.targets) - loss)
        columns.append(tuple(changes))
    return tuple(torch.cat(parts).T for parts in zip(*columns, strict=True))


def _logits(readout: Readout, x: Tensor, scale: Tensor | None) -> Tensor:
    centred = readout.centred(x)
    return readout.logits(centred, readout.scale(centred) if scale is None else scale)


def _measured(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and entropy."""
    log_p = logits.log_softmax(-1)
    return -_log_correct(log_p, targets), -(log_p.exp() * log_p).sum(-1)


def _log_correct(log_p: Tensor, targets: Tensor) -> Tensor:
    return log_p.gather(-1, targets.expand(log_p.shape[:-1])[..., None]).squeeze(-1)
