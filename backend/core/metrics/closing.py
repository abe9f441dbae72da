"""From sums over the vocabulary to losses and entropies: the one place where they meet.

With x = c·a, y = l + x, z = q·(y − b_U), q = r − 1, the kernels that pass over whole rows sum, by pair,

    Σ p·(e^x − 1),    Σ p·(e^x − 1)·y,    and by how much both grow when x becomes x + z and y becomes y + z

(differences, so that small changes keep their digits). Without a bias the last sum takes y for y + z = (1 + q)·y.
"""

from torch import Tensor

from backend.core.metrics.kernels import PairStatistics, Problem
from backend.core.metrics.predictions import Predictions


def close_sums(
    problem: Problem, predictions: Predictions, mean_a: Tensor, pairs: tuple[Tensor, Tensor], sums: Tensor,
    out: PairStatistics,
) -> None:  # fmt: skip
    """Write losses and entropies of the pairs (tokens, rows).

    Args:
        mean_a: Σ p·a, [tokens, n_neurons].
        sums: [pairs, 4], in the order above.
    """
    tokens, rows = pairs
    c, q = problem.c[pairs].double(), (problem.r - 1)[pairs].double()
    mean_l, mean_b = predictions.mean_l[tokens, 0].double(), predictions.mean_b[tokens, 0].double()
    moved = c * mean_a[pairs]
    x_correct = c * problem.path.A[rows, problem.targets[tokens]]
    z_correct = q * (predictions.log_correct[tokens, 0] + x_correct - predictions.b_correct[tokens, 0])
    frozen, frozen_y, more, more_y = sums.double().unbind(dim=1)
    total, total_y = frozen + more, frozen_y + more_y
    if problem.b_U is None:
        total_y = total_y * (1 + q)
    rescaled = q * (mean_l + moved - mean_b)  # Σ p·z
    out.delta_loss_frozen[pairs] = (frozen.log1p() - x_correct).float()
    out.delta_entropy_frozen[pairs] = (frozen.log1p() - (frozen_y + moved - mean_l * frozen) / (1 + frozen)).float()
    out.delta_loss[pairs] = (total.log1p() - x_correct - z_correct).float()
    tilted = (total_y + moved + rescaled - mean_l * total) / (1 + total)
    out.delta_entropy[pairs] = (total.log1p() - tilted).float()
