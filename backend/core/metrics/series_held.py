"""The moment series (`series.py`) of the loss with one direction of the logits held (`held.py`), with its certificate.

X gains e·ṽ, so the expansion of log Σ p·e^X needs the moments E[ũʲ·ãᵏ·ṽᵐ] with m ≥ 1 and j + k + m ≤ N besides those
that are there. Those with k = 1 are products through d_model; only p·ṽ meets A² over the whole vocabulary.

The bound is that of `series.py` with |e|·(Σ ω·|ṽ|^{N+1})^{1/(N+1)} and |e|·max |ṽ| added by Minkowski's inequality. As
only F = Σ p·e^X is wanted and ω ≥ (N + 3)·p, a share 1/(N + 3) of Y^{N+1} bounds Σ p·|X|^{N+1}.
"""

from itertools import product
from math import comb, factorial

import torch
from torch import Tensor

from backend.core.metrics.held import Held
from backend.core.metrics.kernels import Problem
from backend.core.metrics.predictions import Predictions

Powers = tuple[int, int]
"""(j, m) for p·ũʲ·ṽᵐ, m ≥ 1."""


class HeldMoments:
    """The rows over the vocabulary that powers of A are multiplied with, and what they give."""

    def __init__(
        self, problem: Problem, predictions: Predictions, held: Held, omega: Tensor, order: int, half_from: int,
        narrow: torch.dtype,
    ) -> None:  # fmt: skip
        self.held, self._order, self._half_from, self._narrow = held, order, half_from, narrow
        self._path = problem.path
        u = predictions.centred_l() if problem.b_U is None else predictions.centred_u(problem.b_U)
        v = held.v - held.mean
        self.sums: dict[Powers, Tensor] = {}
        self._first: dict[Powers, Tensor] = {}
        self._rows: dict[Powers, Tensor] = {}
        for m in range(1, order + 1):
            row = predictions.p * v**m
            for j in range(order - m + 1):
                row = row * u if j else row
                self._keep((j, m), row)
        self.sums[0, 1] = torch.zeros_like(self.sums[0, 1])  # by definition of ṽ
        power = v.pow_(order + 1).abs_()
        self.spread = torch.linalg.vecdot(omega, power)[:, None].pow(1 / (order + 1))

    def _keep(self, key: Powers, row: Tensor) -> None:
        left = self._order - sum(key)
        self.sums[key] = row.sum(dim=1, keepdim=True)
        if left >= 1:
            self._first[key] = self._path.mean(row)
        if left >= 2:
            self._rows[key] = row

    def central(self, part: slice, mean: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """E[ũʲ·ãᵏ·ṽᵐ] by (j, k, m) for some neurons, each [tokens, neurons]; mean: Σ p·a there."""
        found: dict[tuple[int, int, int], Tensor] = {}
        for (j, m), total in self.sums.items():
            raw = [total]
            for k in range(1, self._order - j - m + 1):
                raw.append(self._first[j, m][:, part] if k == 1 else self._product((j, m), k, part))
            for k in range(len(raw)):
                whole = raw[k]
                for i in range(k):
                    whole = whole + comb(k, i) * (-mean) ** (k - i) * raw[i]
                found[j, k, m] = whole
        return found

    def _product(self, key: Powers, k: int, part: slice) -> Tensor:
        kind = torch.float32 if sum(key) + k < self._half_from else self._narrow
        if self._rows[key].dtype != kind and not any(
            sum(key) + other < self._half_from for other in range(2, self._order - sum(key) + 1)
        ):
            self._rows[key] = self._rows[key].to(kind)  # the wide one is not needed again
        return (self._rows[key].to(kind) @ self._path.power(k, kind, part).T).float()

    def rise(self, central: dict[tuple[int, int, int], Tensor], q: Tensor, d: Tensor, e: Tensor) -> Tensor:
        """What e·ṽ adds to Σ p·e^X up to order N."""
        total = torch.zeros_like(d)
        for j, k, m in product(range(self._order), range(self._order), range(1, self._order + 1)):
            if 2 <= j + k + m <= self._order:  # E[X] = 0
                size = factorial(j) * factorial(k) * factorial(m)
                total = total + q**j * d**k * e**m * central[j, k, m] / size
        return total
