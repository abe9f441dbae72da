"""Routing in a mixture of experts: which tokens pass which expert, and how often (`routed_share`).

A token is routed to an expert if the router chooses that expert for it, and gives it a weight above 0. It is read off
activations, in which the router's weight is a factor: where an expert is not chosen those of all its neurons are 0, and
where it is chosen they are not, since a gate and a projection do not vanish in all neurons at once. A shared expert
every token passes.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from backend.core.neurons import Experts


def routed_to(
    activations: Float[NDArray[np.floating], "... neurons"], experts: Experts
) -> Bool[NDArray[np.bool_], "... experts"]:
    """Which tokens pass each expert, the shared one last where there is one."""
    end = experts.count * experts.width
    by_expert = activations[..., :end].reshape(*activations.shape[:-1], experts.count, experts.width)
    routed = np.asarray(by_expert.any(axis=-1))
    if not experts.shared:
        return routed
    return np.concatenate([routed, np.ones((*routed.shape[:-1], 1), np.bool_)], axis=-1)


def expert_of_neurons(experts: Experts) -> NDArray[np.intp]:
    """The place in `routed_to` of every neuron's expert, [neurons]."""
    widths = [experts.width] * experts.count + [experts.shared] * bool(experts.shared)
    return np.repeat(np.arange(len(widths)), widths)
