"""The moment series (`series.py`) of the loss with one direction of the logits held (`held.py`), with its certificate.

X gains e·ṽ, so the expansion of log Σ p·e^X needs the moments E[ũʲ·ãᵏ·ṽᵐ] with m ≥ 1 and j + k + m ≤ N besides those
that are there. Those with k = 1 are products through d_model; only p·ṽ meets A² over the whole vocabulary.

The bound is that of `series.py` with |e|·(Σ ω·|ṽ|^{N+1})^{1/(N+1)} and |e|·max |ṽ| added by Minkowski's inequality. As
only F = Σ p·e^X is wanted and ω ≥ (N + 3)·p, a share 1/(N + 3) of Y^{N+1} bounds Σ p·|X|^{N+1}.
"""

from itertools import product
from math import comb, factorial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.core.kernels import held_compiled as native_held
from backend.core.kernels import rows as compiled
from backend.core.kernels.held import Held
from backend.core.kernels.problem import Problem
from backend.core.metrics.predictions import Predictions

_LOOPS: Any = native_held
Powers = tuple[int, int]
"""(j, m) for p·ũʲ·ṽᵐ, m ≥ 1."""
_KEYS: tuple[Powers, ...] = ((0, 1), (1, 1), (0, 2), (2, 1), (1, 2), (0, 3))
"""Those up to order 3, as the compiled loop numbers them."""


class HeldMoments:
    """The rows over the vocabulary that powers of A are multiplied with, and what they give."""

    def __init__(
        self, problem: Problem, predictions: Predictions, held: Held, order: int, half_from: int, narrow: torch.dtype
    ) -> None:  # fmt: skip
        """Of order 2 or 3."""
        self.held, self._order, self._path = held, order, problem.path
        tokens, d_vocab = predictions.p.shape
        keys = _KEYS[: 1 if order == 2 else 3]
        rows = np.empty((len(keys), tokens, d_vocab), np.float32)
        sums = np.empty((tokens, len(_KEYS) + 2))
        p, log_p, b, v = compiled.arrays(predictions.p, predictions.log_p, compiled.bias(problem), held.v)
        means = compiled.arrays(predictions.mean_l[:, 0], predictions.mean_b[:, 0], held.mean[:, 0])
        data = (p, log_p, b, problem.b_U is not None, v, *means, np.float32(order + 3), rows, sums)
        compiled.over_tokens(tokens, lambda *part: _LOOPS.weigh(*data, *part))
        told = torch.from_numpy(sums).float()
        self.sums = {key: told[:, place, None] for place, key in enumerate(_KEYS) if sum(key) <= order}
        self.sums[0, 1] = torch.zeros_like(self.sums[0, 1])  # by definition of ṽ
        weighted = [torch.from_numpy(row) for row in rows]
        self._first = {key: self._path.mean(row) for key, row in zip(keys, weighted, strict=True)}
        self._row = weighted[0] if half_from > 3 else weighted[0].to(narrow)
        self.spread = told[:, len(_KEYS) + order - 2, None].pow(1 / (order + 1))
        """(Σ ω·|ṽ|^{N+1})^{1/(N+1)}, ω = p·(N + 3 + |l̃|), [tokens, 1]"""

    def central(self, part: slice, mean: Tensor) -> dict[tuple[int, int, int], Tensor]:
        """E[ũʲ·ãᵏ·ṽᵐ] by (j, k, m) for some neurons, each [tokens, neurons]; mean: Σ p·a there."""
        found: dict[tuple[int, int, int], Tensor] = {}
        for (j, m), total in self.sums.items():
            raw = [total]
            for k in range(1, self._order - j - m + 1):
                raw.append(self._first[j, m][:, part] if k == 1 else self._with_square(part))
            for k in range(len(raw)):
                whole = raw[k]
                for i in range(k):
                    whole = whole + comb(k, i) * (-mean) ** (k - i) * raw[i]
                found[j, k, m] = whole
        return found

    def _with_square(self, part: slice) -> Tensor:
        """Σ p·ṽ·a², the one product over the whole vocabulary, of order 3."""
        return (self._row @ self._path.power(2, self._row.dtype, part).T).float()

    def rise(self, central: dict[tuple[int, int, int], Tensor], q: Tensor, d: Tensor, e: Tensor) -> Tensor:
        """What e·ṽ adds to Σ p·e^X up to order N."""
        total = torch.zeros_like(d)
        for j, k, m in product(range(self._order), range(self._order), range(1, self._order + 1)):
            if 2 <= j + k + m <= self._order:  # E[X] = 0
                size = factorial(j) * factorial(k) * factorial(m)
                total = total + q**j * d**k * e**m * central[j, k, m] / size
        return total
