"""Compiled loop of the moment series (`series.py`): the rows over the vocabulary that powers of A meet."""

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE
from backend.core.kernels.rows_compiled import FAST, F


@njit(nogil=True, fastmath=FAST, cache=True)
def _times(row, factor, product):
    total = F(0)
    for k in range(row.shape[0]):
        product[k] = row[k] * factor[k]
        total += product[k]
    return total


@njit(nogil=True, fastmath=FAST, cache=True)
def _centre(values, mean, centred):
    for k in range(values.shape[0]):
        centred[k] = values[k] - mean


@njit(nogil=True, fastmath=FAST, cache=True)
def _weigh(p, log_p, least, omega):
    """ω = p·(least + |l̃|), and what it sums to."""
    total = F(0)
    for k in range(p.shape[0]):
        omega[k] = p[k] * (least + abs(log_p[k]))
        total += omega[k]
    return total


@njit(nogil=True, fastmath=FAST, cache=True)
def _third_power(omega, values):
    total = F(0)
    for k in range(omega.shape[0]):
        total += omega[k] * abs(values[k]) * values[k] * values[k]
    return total


@njit(nogil=True, fastmath=FAST, cache=True)
def _fourth_power(omega, values):
    total = F(0)
    for k in range(omega.shape[0]):
        square = values[k] * values[k]
        total += omega[k] * square * square
    return total


@njit(nogil=True, cache=True)
def to_half(values, halves):
    """To bfloat16, as bits, to the nearest and of two to the even one."""
    bits = values.view(np.uint32)
    for k in range(bits.shape[0]):
        odd = (bits[k] >> np.uint32(16)) & np.uint32(1)
        halves[k] = np.uint16((bits[k] + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@njit(nogil=True, cache=True)
def weigh(
    p, log_p, b, has_b, directions, means, plan, order, rows, halves, sums, spreads, first, last
):  # fmt: skip
    """Products of p with powers of l̃, ũ and of directions of the logits less their means, for the tokens `first` to
    `last`.

    p, log_p: [tokens, d_vocab]; b: [d_vocab], or anything where not has_b. directions: two arrays, each [1 or tokens,
    d_vocab], or of no rows where there is none. means: Σ p·log p, Σ p·b, and of both directions, [4, tokens].
    plan [weights, 4]: each weight is the product of an earlier one with a factor (0: l̃, 1: ũ, 2 and 3: a direction),
    and is written into `rows` [rows, tokens, d_vocab] and `halves` [halves, tokens, d_vocab] (bfloat16 as bits) at the
    places that the last two name, or nowhere for −1. The first is p itself, and the last ω = p·(order + 3 + |l̃|).
    sums: of every weight, [tokens, weights]. spreads: Σ ω·|·|^{order + 1} of ũ and both directions, [tokens, 3].
    """
    n_weights, d_vocab = len(plan), p.shape[1]
    held = np.empty((n_weights, TILE), F)
    factors = np.empty((4, TILE), F)
    for t in range(first, last):
        sums[t, :] = 0
        spreads[t, :] = 0
        for start in range(0, d_vocab, TILE):
            stop = min(start + TILE, d_vocab)
            part, here = slice(start, stop), slice(0, stop - start)
            _centre(log_p[t, part], means[0, t], factors[0, here])
            _centre(log_p[t, part], means[0, t] - means[1, t], factors[1, here])
            if has_b:
                for k in range(stop - start):
                    factors[1, k] -= b[start + k]
            for n in range(2):
                if len(directions[n]):
                    row = directions[n][t % len(directions[n]), part]
                    _centre(row, means[2 + n, t], factors[2 + n, here])
            held[0, here] = p[t, part]
            for k in range(n_weights):
                parent, factor, row, half = plan[k, 0], plan[k, 1], plan[k, 2], plan[k, 3]
                if k == n_weights - 1:
                    sums[t, k] += _weigh(held[0, here], factors[0, here], F(order + 3), held[k, here])
                elif k > 0:
                    sums[t, k] += _times(held[parent, here], factors[factor, here], held[k, here])
                if row >= 0:
                    rows[row, t, part] = held[k, here]
                if half >= 0:
                    to_half(held[k, here], halves[half, t, part])
            for n in range(3):
                if n == 0 or len(directions[n - 1]):
                    omega, values = held[n_weights - 1, here], factors[n + 1, here]
                    spreads[t, n] += _third_power(omega, values) if order == 2 else _fourth_power(omega, values)
        sums[t, 0] = 1
