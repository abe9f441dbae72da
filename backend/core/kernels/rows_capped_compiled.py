"""Compiled loops of whole rows under a soft-cap (`rows_capped.py`, which says what is summed)."""

from typing import Any

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE
from backend.core.kernels.rows_compiled import FAST, NEAR, F, far, sixth, twelfth


@njit(nogil=True, fastmath=FAST, cache=True)
def _changes(x, t, slope, per_cap, start, change):
    """D − start of some tokens; slope: C·(1 − t²)."""
    for k in range(x.shape[0]):
        w = x[k] * per_cap
        square = w * w
        above = w * (F(945) + square * (F(105) + square))
        below = F(945) + square * (F(420) + square * F(15))
        change[k] = slope[k] * above / (below + t[k] * above) - start


def _loop(expm1: Any) -> Any:
    """The three sums over one tile, with e^v − 1 as given."""

    @njit(nogil=True, fastmath=FAST, cache=True)
    def loop(p, log_p, m, change):
        s0, s1, s2 = F(0), F(0), F(0)
        for k in range(p.shape[0]):
            risen = p[k] * expm1(F(1), change[k])
            s0 += risen
            s1 += risen * (log_p[k] - m + change[k])
            s2 += p[k] * change[k]
        return s0, s1, s2

    return loop


_loop_6, _loop_12, _loop_far = _loop(sixth), _loop(twelfth), _loop(far)


@njit(nogil=True, cache=True)
def _sums(p, log_p, m, change, reach):
    if reach <= F(0.1):  # 0.1⁷/5040 is below float32's rounding
        return _loop_6(p, log_p, m, change)
    return _loop_12(p, log_p, m, change) if reach <= NEAR else _loop_far(p, log_p, m, change)


@njit(nogil=True, fastmath=FAST, cache=True)
def _tilt(a, v, has_v, c, e, x):
    for k in range(x.shape[0]):
        x[k] = c * a[k]
    if has_v:
        for k in range(x.shape[0]):
            x[k] += e * v[k]


@njit(nogil=True, fastmath=FAST, cache=True)
def _recompute(x, logits, b, has_b, q, y):
    """The total x in place, and the logits before the cap into y."""
    for k in range(x.shape[0]):
        x[k] += q * (x[k] + logits[k])
        y[k] = logits[k]
    if has_b:
        for k in range(x.shape[0]):
            x[k] -= q * b[k]
    for k in range(x.shape[0]):
        y[k] += x[k]


@njit(nogil=True, fastmath=FAST, cache=True)
def _product(values, weights):
    total = F(0)
    for k in range(values.shape[0]):
        total += values[k] * weights[k]
    return total


@njit(nogil=True, cache=True)
def _count(y, place, bar):
    """How many of a tile's tokens are above a bar, the token at `place` of it left out."""
    above = np.int32(0)
    for k in range(y.shape[0]):
        above += np.int32(y[k] > bar)
    if 0 <= place < y.shape[0] and y[place] > bar:
        above -= 1
    return above


@njit(nogil=True, cache=True)
def _at(logits, a, b, has_b, v, has_v, t, slope, per_cap, c, q, e, token):
    """Of one token: D frozen, D total, and the logit before the cap."""
    x, y, change = np.empty(1, F), np.empty(1, F), np.empty(1, F)
    one = slice(token, token + 1)
    some_b, some_v = b[one] if has_b else b[:1], v[one] if has_v else v[:1]
    _tilt(a[one], some_v, has_v, c, e, x)
    _changes(x, t[one], slope[one], per_cap, F(0), change)
    frozen = change[0]
    _recompute(x, logits[one], some_b, has_b, q, y)
    _changes(x, t[one], slope[one], per_cap, F(0), change)
    return frozen, change[0], y[0]


@njit(nogil=True, cache=True)
def sum_capped(
    p, log_p, logits, t_rows, slopes, A, b, has_b, v, has_v, fixed, widest, has_fixed, p_freq, has_p_freq, per_cap,
    mean_l, rows, tokens, c, q, e, reach, targets, tops, first, last, sums, above,
):  # fmt: skip
    """Fill `sums` [pairs, 9] and `above` [pairs, 2] for the pairs `first` to `last`, which are sorted by row of A.

    p, log_p (of the capped logits), logits (before the cap), t_rows, slopes: [tokens, d_vocab]; A: [n_rows, d_vocab];
    b, p_freq: [d_vocab], v, fixed: [1 or tokens, d_vocab], or anything of as many axes where there is none; widest:
    max |fixed|, [1 or tokens]; per_cap: 1/C. By pair: rows, tokens (int32), c, q, e and a bound of |D − D₀| (float32).
    The sums are the three of the frozen tilt, those of the total one, Σ P_freq·(D − D₀), Σ v̂·(D − D₀), and
    Σ p·(e^{…} − 1) with that taken out.
    """
    d_vocab = p.shape[1]
    x, y, change = np.empty(TILE, F), np.empty(TILE, F), np.empty(TILE, F)
    for k in range(first, last):
        t, i = tokens[k], rows[k]
        sums[k, :], above[k, :] = 0, 0
        moved, direction = v[t % len(v)], fixed[t % len(fixed)]
        pair = (logits[t], A[i], b, has_b, moved, has_v, t_rows[t], slopes[t], per_cap, c[k], q[k], e[k])
        frozen, total, correct = _at(*pair, targets[t])
        best = _at(*pair, tops[t])[2]
        for again in range(2 if has_fixed else 1):
            along = F(sums[k, 7])
            start_fixed = along * direction[targets[t]] if has_fixed else F(0)
            for start in range(0, d_vocab, TILE):
                part = slice(start, min(start + TILE, d_vocab))
                size = part.stop - part.start
                some_x, some_y, some = x[:size], y[:size], change[:size]
                shape = (t_rows[t, part], slopes[t, part], per_cap)
                some_b, some_v = b[part] if has_b else b, moved[part] if has_v else moved
                _tilt(A[i, part], some_v, has_v, c[k], e[k], some_x)
                if again == 0:
                    _changes(some_x, *shape, frozen, some)
                    of_frozen = _sums(p[t, part], log_p[t, part], mean_l[t], some, reach[k])
                    sums[k, 0] += of_frozen[0]
                    sums[k, 1] += of_frozen[1]
                    sums[k, 2] += of_frozen[2]
                _recompute(some_x, logits[t, part], some_b, has_b, q[k], some_y)
                _changes(some_x, *shape, total, some)
                if again == 1:
                    _tilt(direction[part], direction[part], False, -along, F(0), some_x)
                    for n in range(size):
                        some[n] += some_x[n] + start_fixed
                    further = reach[k] + F(2) * abs(along) * widest[t % len(widest)]
                    sums[k, 8] += _sums(p[t, part], log_p[t, part], mean_l[t], some, further)[0]
                    continue
                of_total = _sums(p[t, part], log_p[t, part], mean_l[t], some, reach[k])
                sums[k, 3] += of_total[0]
                sums[k, 4] += of_total[1]
                sums[k, 5] += of_total[2]
                above[k, 0] += _count(some_y, targets[t] - start, correct)
                above[k, 1] += _count(some_y, tops[t] - start, best)
                if has_p_freq:
                    sums[k, 6] += _product(some, p_freq[part])
                if has_fixed:
                    sums[k, 7] += _product(some, direction[part])
