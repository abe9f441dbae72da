"""What the weights alone say about a neuron: its norm, how few logits it moves, how deep it is in the null space.

W_out and W_U are those after weight processing (Appendix C). Everything is computed in float64: null directions are
told from small singular values, which float32 blurs.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

_TOKENS_AT_ONCE = 8_192
_NEURONS_AT_ONCE = 1_024


@dataclass(frozen=True)
class UnembeddingSpectrum:
    """W_Uᵀ = U Σ Vᵀ (§3.3): how strongly the unembedding reads each direction of the residual stream."""

    singular_values: Float64[Tensor, "d_model"]
    """Largest first."""
    directions: Float64[Tensor, "d_model d_model"]
    """Column k is the right singular direction of singular value k, in residual space."""

    def null_directions(self, null_dim: int) -> Float64[Tensor, "d_model null_dim"]:
        """V0, the `null_dim` directions that the unembedding reads least (§3.4)."""
        return self.directions[:, self.directions.shape[1] - null_dim :]


def default_null_dim(d_model: int) -> int:
    """k ≈ 1 % of d_model, as the paper takes for LLaMA-2 7B (40 of 4096); at least 1."""
    return max(1, round(0.01 * d_model))


def unembedding_spectrum(W_U: Float[Tensor, "d_model d_vocab"]) -> UnembeddingSpectrum:
    """Singular values and right singular directions of W_Uᵀ (§3.3), on the CPU."""
    # The triangular factor of W_Uᵀ has the same Σ and V and is only [d_model, d_model]; unlike W_U·W_Uᵀ it does not
    # square the singular values, so the smallest keep their digits.
    triangular = torch.linalg.qr(W_U.T.to("cpu", torch.float64), mode="r").R
    _, singular_values, Vh = torch.linalg.svd(triangular)
    return UnembeddingSpectrum(singular_values, Vh.T.contiguous())


def weight_norm(W_out: Float[Tensor, "neurons d_model"]) -> Float64[Tensor, "neurons"]:
    """‖w_out‖ of every neuron (§3.1, Figure 2a)."""
    return _norms(W_out.to(torch.float64))


def logit_var(
    W_out: Float[Tensor, "neurons d_model"], W_U: Float[Tensor, "d_model d_vocab"]
) -> Float64[Tensor, "neurons"]:
    """Variance over the vocabulary of cos(w_out, W_U[:, v]) (Eq. 3); NaN for a neuron with no weights."""
    return variance_along(W_out, cosine_covariance(W_U))


def cosine_covariance(W_U: Float[Tensor, "d_model d_vocab"]) -> Float64[Tensor, "d_model d_model"]:
    """C, the covariance over the vocabulary of W_U's columns at length 1: uᵀCu is Eq. 3 of a direction u of length 1.

    The sums run over slabs of the vocabulary, so that no copy of W_U in float64 exists. A token whose unembedding is
    zero has no direction; its cosine counts as 0.
    """
    d_model, d_vocab = W_U.shape
    total = torch.zeros(d_model, dtype=torch.float64, device=W_U.device)
    squares = torch.zeros(d_model, d_model, dtype=torch.float64, device=W_U.device)
    for slab in torch.split(W_U, _TOKENS_AT_ONCE, dim=1):
        columns = slab.to(torch.float64)
        units = columns / _norms(columns.T).clamp_min(1e-300)
        total += units.sum(dim=1)
        squares += units @ units.T
    return (squares - total.outer(total) / d_vocab) / (d_vocab - 1)


def variance_along(
    rows: Float[Tensor, "rows d_model"], covariance: Float64[Tensor, "d_model d_model"]
) -> Float64[Tensor, "rows"]:
    """uᵀCu of every row u at length 1 (Eq. 3); NaN for a row of zeros. covariance: C, as `cosine_covariance` has it."""
    units = torch.nn.functional.normalize(rows.to(covariance), dim=1, eps=0.0)
    return ((units @ covariance) * units).sum(dim=1).clamp_min(0)


def null_fraction(
    W_out: Float[Tensor, "neurons d_model"], V0: Float64[Tensor, "d_model null_dim"]
) -> Float64[Tensor, "neurons"]:
    """ρ = ‖V0ᵀ w_out‖ / ‖w_out‖ (§3.4); NaN for a neuron with no weights."""
    rows = W_out.to("cpu", torch.float64)
    return _norms(rows @ V0) / _norms(rows)


def direction_cosines(
    W_out: Float[Tensor, "neurons d_model"], spectrum: UnembeddingSpectrum
) -> Float64[Tensor, "neurons d_model"]:
    """|cos| of every neuron's w_out with every right singular direction (Figure 2d)."""
    rows = W_out.to("cpu", torch.float64)
    return ((rows @ spectrum.directions) / _norms(rows)[:, None]).abs()


def similar_neurons(
    W_out: Float[Tensor, "neurons d_model"], count: int
) -> tuple[Int[Tensor, "neurons nearest"], Float[Tensor, "neurons nearest"]]:
    """The neurons whose w_out has the highest cosine with each neuron's, nearest first, and the cosines.

    There are min(count, neurons − 1) of them. A neuron with no weights is like no other: its cosines are NaN,
    and it comes after all others.
    """
    # float32 tells cosines apart to 1e-6, and [neurons, neurons] in slabs is the largest product of the stage.
    units = torch.nn.functional.normalize(W_out.to(torch.float64), dim=1, eps=0.0).float()
    k, parts = min(count, len(units) - 1), []
    for start in range(0, len(units), _NEURONS_AT_ONCE):
        cosines = (units[start : start + _NEURONS_AT_ONCE] @ units.T).nan_to_num(-2.0)
        index = torch.arange(len(cosines), device=cosines.device)
        cosines[index, start + index] = -torch.inf
        nearest = cosines.topk(k, dim=1)
        values = nearest.values.where(nearest.values >= -1.5, torch.nan).clamp(-1, 1)
        parts.append((nearest.indices, values))
    ids, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return ids, values


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
