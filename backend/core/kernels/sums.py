"""From sums over the vocabulary to losses and entropies: the one place where they meet.

With l̃ = log p − Σ p·log p, ã = a − Σ p·a, b̃ = b − Σ p·b, x = c·ã, y = l̃ + x, z = q·(y − b̃), q = r − 1, the kernels
that pass over whole rows sum, by pair (x has e·ṽ more where a norm after the MLP moves the logits along v),

    Σ p·(e^x − 1),    Σ p·(e^x − 1)·y,    and by how much both grow when x becomes x + z and y becomes y + z

Differences to 1 let small changes keep their digits. Large ones lose none, since the sums of p·e^x and p·e^{x+z} are at
least 1: Σ p·x = Σ p·z = 0. Without a bias the last sum takes y for y + z = (1 + q)·y.
"""

from jaxtyping import Float, Int
from torch import Tensor

from backend.core.kernels.problem import Ablations, CentredAlong
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions


def write_losses_and_entropies(
    problem: Ablations,
    predictions: Predictions,
    mean_a: Float[Tensor, "tokens neurons"],
    pairs: tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]],
    sums: Float[Tensor, "pairs 4"],
    out: PairStatistics,
) -> None:
    """Write losses and entropies of the pairs (tokens, rows).

    Args:
        mean_a: Σ p·a.
        sums: of each pair, in the order above.
    """
    tokens, rows = pairs
    c, q = problem.c[pairs].double(), (problem.r - 1)[pairs].double()
    x_correct = c * (problem.path.A[rows, problem.targets[tokens]] - mean_a[pairs])
    if problem.along is not None:
        moved = CentredAlong.under(problem.along, problem.targets, predictions)
        x_correct += problem.along.e[pairs].double() * moved.correct[tokens, 0]
    l_correct, b_correct = predictions.centred_correct()
    z_correct = q * (l_correct[tokens] + x_correct - b_correct[tokens])
    frozen, frozen_y, more, more_y = sums.double().unbind(dim=1)
    total, total_y = frozen + more, frozen_y + more_y
    if problem.b_U is None:
        total_y = total_y * (1 + q)
    out.delta_loss_frozen[pairs] = (frozen.log1p() - x_correct).float()
    out.delta_entropy_frozen[pairs] = (frozen.log1p() - frozen_y / (1 + frozen)).float()
    out.delta_loss[pairs] = (total.log1p() - x_correct - z_correct).float()
    out.delta_entropy[pairs] = (total.log1p() - total_y / (1 + total)).float()
