"""All neurons of the last layer, each ablated alone, on one traced text: who matters here?"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from numpy.typing import NDArray

from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.effects import Effects, TokenBatch
from backend.core.models.traced_text import TracedText
from backend.glossary import SweepTarget


def sweep_text(
    engine: EffectsEngine,
    text: TracedText,
    position: int | None,
    target: SweepTarget = "mean",
    means: Float64[NDArray[np.float64], "d_mlp"] | None = None,
) -> Effects:
    """What ablating every neuron does at one position, or at every position behind the text's means.

    Args:
        means: the reference mean of every neuron; None takes the means over this text.

    Raises:
        BadText: the text has no such position.
    """
    positions = _positions(text, position)
    if target == "zero":
        values = torch.zeros_like(text.activations[0])
    else:
        values = text.activations.mean(dim=0) if means is None else torch.from_numpy(means).to(text.activations)
    batch = TokenBatch(text.centred[positions], text.activations[positions], text.following[positions])
    return engine.effects(batch, values)


def _positions(text: TracedText, position: int | None) -> Sequence[int]:
    if position is None:
        return text.counted or range(len(text.tokens))
    return [text.within(position)]
