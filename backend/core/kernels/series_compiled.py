"""Compiled loops of the moment series (`series.py`): the rows over the vocabulary that a direction's moments need."""

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE
from backend.core.kernels.rows_compiled import FAST, F


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
def weigh_along(p, log_p, b, has_b, v, mean_l, mean_b, mean_v, least, rows, sums, first, last):
    """The rows p·ṽ, p·ũ·ṽ and p·ṽ² into rows [1 or 3, tokens, d_vocab], the first alone where there is one; and into
    sums [tokens, 8]: those rows' sums, Σ p·ũ²·ṽ, Σ p·ũ·ṽ², Σ p·ṽ³, and Σ ω·|ṽ|³ and Σ ω·ṽ⁴ with ω = p·(least + |l̃|).

    v: [1 or tokens, d_vocab]; mean_l, mean_b, mean_v: Σ p·log p, Σ p·b and Σ p·v, [tokens].
    """
    unread = np.empty(TILE, F)
    for t in range(first, last):
        sums[t, :] = 0
        v_row = t if len(v) > 1 else 0
        for start in range(0, p.shape[1], TILE):
            part = slice(start, min(start + TILE, p.shape[1]))
            row_v, row_uv, row_vv = rows[0, t, part], unread, unread
            if len(rows) == 3:
                row_uv, row_vv = rows[1, t, part], rows[2, t, part]
            some_b = b[part] if has_b else b
            _weigh(
                p[t, part], log_p[t, part], some_b, has_b, v[v_row, part], mean_l[t], mean_b[t], mean_v[t], least,
                row_v, row_uv, row_vv, sums[t],
            )  # fmt: skip
