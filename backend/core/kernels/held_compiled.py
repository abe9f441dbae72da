"""The compiled loop of `held.py`: Σ p·(e^X − 1) over whole rows, X = q·ũ + d·ã + e·ṽ, by the polynomials of
`rows_compiled.py`.

Only the loss is wanted: one exponential a token of the vocabulary, and no counting.
"""

from typing import Any

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE
from backend.core.kernels.rows_compiled import FAST, NEAR, F, far, sixth, third, twelfth


def _loop(expm1: Any) -> Any:
    """The pass over one tile, with e^x − 1 as given."""

    @njit(nogil=True, fastmath=FAST, cache=True)
    def plain(p, log_p, a, v, m, o, w, d, q, e):
        total = F(0)
        for k in range(p.shape[0]):
            x = d * (a[k] - o) + q * (log_p[k] - m) + e * (v[k] - w)
            total += p[k] * expm1(F(1), x)
        return total

    @njit(nogil=True, fastmath=FAST, cache=True)
    def biased(p, log_p, a, b, v, m, o, w, d, q, e):
        total = F(0)
        for k in range(p.shape[0]):
            x = d * (a[k] - o) + q * (log_p[k] - b[k] - m) + e * (v[k] - w)
            total += p[k] * expm1(F(1), x)
        return total

    return plain, biased


_plain_3, _biased_3 = _loop(third)
_plain_6, _biased_6 = _loop(sixth)
_plain_12, _biased_12 = _loop(twelfth)
_plain_far, _biased_far = _loop(far)


@njit(nogil=True, cache=True)
def _tile(p, log_p, a, b, has_b, v, m, o, w, d, q, e, reach, allowed):
    """One tile by the lowest degree that leaves out no more than `allowed`, as a share of the tile's mass."""
    growth = np.exp(reach)
    if reach**4 / 24 * growth <= allowed:
        if has_b:
            return _biased_3(p, log_p, a, b, v, m, o, w, d, q, e)
        return _plain_3(p, log_p, a, v, m, o, w, d, q, e)
    if reach**7 / 5040 * growth <= allowed:
        if has_b:
            return _biased_6(p, log_p, a, b, v, m, o, w, d, q, e)
        return _plain_6(p, log_p, a, v, m, o, w, d, q, e)
    if reach <= NEAR:
        if has_b:
            return _biased_12(p, log_p, a, b, v, m, o, w, d, q, e)
        return _plain_12(p, log_p, a, v, m, o, w, d, q, e)
    if has_b:
        return _biased_far(p, log_p, a, b, v, m, o, w, d, q, e)
    return _plain_far(p, log_p, a, v, m, o, w, d, q, e)


@njit(nogil=True, cache=True)
def sum_held(
    p, log_p, A, sizes, b, has_b, v, mean_u, mean_v, deepest, farthest, mass, allowed, mean_a, rows, tokens, d, q, e,
    first, last, sums,
):  # fmt: skip
    """Fill `sums` [pairs] for the pairs `first` to `last`, which are sorted by row of A.

    p, log_p: [tokens, d_vocab] float32; A: [n_rows, d_vocab]; sizes: max |A| by tile, [n_rows, tiles]; b: [d_vocab], or
    anything where not has_b; v: v̂, [d_vocab]. By token: mean_u = Σ p·u, mean_v = Σ p·v̂, deepest = max |ũ|, farthest =
    max |ṽ|, and mass, Σ p by tile, [tokens, tiles]; allowed: what may be left out of each tile. By pair: mean_a =
    Σ p·a, rows, tokens (int32), d, q, e (float32).
    """
    d_vocab = p.shape[1]
    for k in range(first, last):
        sums[k] = 0
    for start in range(0, d_vocab, TILE):
        part = slice(start, min(start + TILE, d_vocab))
        tile = start // TILE
        some_b = b[part] if has_b else b
        for k in range(first, last):
            t, i = tokens[k], rows[k]
            reach = abs(d[k]) * (sizes[i, tile] + abs(mean_a[k])) + abs(q[k]) * deepest[t] + abs(e[k]) * farthest[t]
            sums[k] += _tile(
                p[t, part], log_p[t, part], A[i, part], some_b, has_b, v[part], mean_u[t], mean_a[k], mean_v[t], d[k],
                q[k], e[k], reach, allowed / max(mass[t, tile], F(1e-30)),
            )  # fmt: skip


@njit(nogil=True, fastmath=FAST, cache=True)
def _weigh(p, log_p, b, has_b, v, m, n, w, least, row_v, row_uv, row_vv, sums):
    s01, s11, s02, s21, s12, s03, third_power, fourth_power = F(0), F(0), F(0), F(0), F(0), F(0), F(0), F(0)
    for k in range(p.shape[0]):
        l = log_p[k] - m  # noqa: E741 - the letter of sums.py
        u = l - (b[k] - n) if has_b else l
        along = v[k] - w
        pv = p[k] * along
        pvv = pv * along
        row_v[k] = pv
        row_uv[k] = pv * u
        row_vv[k] = pvv
        s01 += pv
        s11 += pv * u
        s02 += pvv
        s21 += pv * u * u
        s12 += pvv * u
        s03 += pvv * along
        size = pvv * (least + abs(l)) * abs(along)
        third_power += size
        fourth_power += size * abs(along)
    sums[0] += s01
    sums[1] += s11
    sums[2] += s02
    sums[3] += s21
    sums[4] += s12
    sums[5] += s03
    sums[6] += third_power
    sums[7] += fourth_power


@njit(nogil=True, cache=True)
def weigh(p, log_p, b, has_b, v, mean_l, mean_b, mean_v, least, rows, sums, first, last):
    """The rows p·ṽ, p·ũ·ṽ and p·ṽ² into rows [1 or 3, tokens, d_vocab], the first alone where there is one; and into
    sums [tokens, 8]: those rows' sums, Σ p·ũ²·ṽ, Σ p·ũ·ṽ², Σ p·ṽ³, and Σ ω·|ṽ|³ and Σ ω·ṽ⁴ with ω = p·(least + |l̃|).

    mean_l, mean_b, mean_v: Σ p·log p, Σ p·b and Σ p·v̂, [tokens].
    """
    unread = np.empty(TILE, F)
    for t in range(first, last):
        sums[t, :] = 0
        for start in range(0, p.shape[1], TILE):
            part = slice(start, min(start + TILE, p.shape[1]))
            row_v, row_uv, row_vv = rows[0, t, part], unread, unread
            if len(rows) == 3:
                row_uv, row_vv = rows[1, t, part], rows[2, t, part]
            some_b = b[part] if has_b else b
            _weigh(
                p[t, part], log_p[t, part], some_b, has_b, v[part], mean_l[t], mean_b[t], mean_v[t], least, row_v,
                row_uv, row_vv, sums[t],
            )  # fmt: skip
