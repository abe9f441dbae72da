"""Compiled loops of the survey (`survey.py`): the head of the vocabulary, for many neurons at a time.

The head's tokens are scattered over the vocabulary, and to gather them from each row of A would cost more than the sums
themselves; from rows of Aᵀ they come for many neurons at once.
"""

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE
from backend.core.kernels.rows_compiled import FAST, F, blend, inner_pass

_DEPTHS = 2048
_DEPTHS_A_NAT = F(96)
_NEURONS = 96
"""Neurons that are taken out of Aᵀ together: six cache lines of each of its rows."""


@njit(nogil=True, fastmath=FAST, cache=True)
def _depths(log_p, highest, depths):
    for v in range(log_p.shape[0]):
        depths[v] = np.int32(min((highest - log_p[v]) * _DEPTHS_A_NAT, F(_DEPTHS - 1)))


@njit(nogil=True, cache=True)
def select(log_p, highest, order, first, last):
    """The most probable tokens of some rows, by depth in bins, into order [tokens, most] (int32).

    highest: max log p, [tokens].
    """
    most = order.shape[1]
    depths = np.empty(log_p.shape[1], np.int32)
    places = np.empty(_DEPTHS + 1, np.int64)
    for t in range(first, last):
        _depths(log_p[t], highest[t], depths)
        places[:] = 0
        for v in range(len(depths)):
            places[depths[v] + 1] += 1
        deepest = 0
        while places[deepest] < most:
            deepest += 1
            places[deepest] += places[deepest - 1]
        for v in range(len(depths)):
            depth = depths[v]
            if depth < deepest:
                if places[depth] < most:
                    order[t, places[depth]] = v
                places[depth] += 1


@njit(nogil=True, fastmath=FAST, cache=True)
def _weigh(p, log_p, b, has_b, m, n, p_l, omega):
    lu, total, uu = F(0), F(0), F(0)
    for v in range(p.shape[0]):
        l = log_p[v] - m  # noqa: E741 - the letter of sums.py
        u = l - (b[v] - n) if has_b else l
        p_l[v] = p[v] * l
        omega[v] = p[v] * (F(4) + abs(l))
        lu += p_l[v] * u
        total += omega[v]
        uu += omega[v] * u * u
    return lu, total, uu


@njit(nogil=True, fastmath=FAST, cache=True)
def _weigh_moved(p_l, omega, moved, w):
    """Σ p·l̃·ṽ and Σ ω·ṽ² of some tokens."""
    lv, vv = F(0), F(0)
    for k in range(omega.shape[0]):
        along = moved[k] - w
        lv += p_l[k] * along
        vv += omega[k] * along * along
    return lv, vv


@njit(nogil=True, cache=True)
def _round_up(values, halves):
    """To bfloat16, never down."""
    bits = values.view(np.uint32)
    for v in range(bits.shape[0]):
        halves[v] = np.uint16((bits[v] + np.uint32(0xFFFF)) >> np.uint32(16))


@njit(nogil=True, cache=True)
def weigh(
    p, log_p, b, has_b, moved, has_v, mean_l, mean_b, mean_v, order, cuts, p_l, omega, half, tails, mean_lv, first, last
):  # fmt: skip
    """p·l̃ [tokens, d_vocab]; ω = p·(4 + |l̃|), 0 in the head, the same shape, or as bits of bfloat16, rounded up, in
    half; by cut what the tokens after it sum to: Σ p·ũ, Σ p·l̃·ũ, Σ ω, Σ ω·ũ² and Σ ω·ṽ² into tails [cuts, 5, tokens];
    and Σ p·l̃·ṽ over all tokens into mean_lv [tokens].

    moved: v, [1 or tokens, d_vocab], or anything of two axes where not has_v.
    """
    row = np.empty(p.shape[1], F)
    for t in range(first, last):
        m, n, w = mean_l[t], mean_b[t], mean_v[t]
        along = moved[t % len(moved)]
        if len(omega):
            row = omega[t]
        lu, total, uu, lv, vv = np.float64(0), np.float64(0), np.float64(0), np.float64(0), np.float64(0)
        for start in range(0, p.shape[1], TILE):
            part = slice(start, min(start + TILE, p.shape[1]))
            some_b = b[part] if has_b else b
            sums = _weigh(p[t, part], log_p[t, part], some_b, has_b, m, n, p_l[t, part], row[part])
            lu, total, uu = lu + sums[0], total + sums[1], uu + sums[2]
            if has_v:
                more = _weigh_moved(p_l[t, part], row[part], along[part], w)
                lv, vv = lv + more[0], vv + more[1]
        mean_lv[t] = lv
        head_u, begin = np.float64(0), 0
        for cut in range(len(cuts)):
            for k in range(begin, cuts[cut]):
                v = order[t, k]
                u = log_p[t, v] - m - (b[v] - n if has_b else F(0))
                head_u += p[t, v] * u
                lu -= p_l[t, v] * u
                weight = p[t, v] * (F(4) + abs(log_p[t, v] - m))
                total -= weight
                uu -= weight * u * u
                if has_v:
                    vv -= weight * (along[v] - w) ** 2
                if cut == 0:
                    row[v] = 0
            tails[cut, 0, t], tails[cut, 1, t] = -head_u, lu
            tails[cut, 2, t], tails[cut, 3, t], tails[cut, 4, t] = max(total, 0.0), max(uu, 0.0), max(vv, 0.0)
            begin = cuts[cut]
        if len(half):
            _round_up(row, half[t])


@njit(nogil=True, fastmath=FAST, cache=True)
def _first_order(p, log_p, a, m, o):
    s0, s1, s2 = F(0), F(0), F(0)
    for k in range(p.shape[0]):
        change = p[k] * (a[k] - o)
        s0 += change
        l_k = log_p[k] - m
        s1 += change * l_k
        s2 += change * (a[k] - o) * (F(1) + abs(l_k))
    return s0, s1, s2


@njit(nogil=True, fastmath=FAST, cache=True)
def _square(p, log_p, a, m):
    total = F(0)
    for k in range(p.shape[0]):
        total += p[k] * (F(4) + abs(log_p[k] - m)) * a[k] * a[k]
    return total


@njit(nogil=True, cache=True)
def _add(p, log_p, a, b, has_b, m, n, o, c, q, degree, tilted, sums):
    """Add what some tokens sum to: the four sums of `rows_compiled.py`, Σ p·ã, Σ p·l̃·ã and Σ p·(1 + |l̃|)·ã²; tilted is
    room for as many tokens."""
    exact = inner_pass(p, log_p, a, b, has_b, m, n, o, c, q, F(0), F(0), degree, tilted)
    first = _first_order(p, log_p, a, m, o)
    sums[0] += exact[0]
    sums[1] += exact[1]
    sums[2] += exact[2]
    sums[3] += exact[3]
    sums[4] += first[0]
    sums[5] += first[1]
    sums[6] += first[2]


@njit(nogil=True, cache=True)
def _close(sums, by, tail, square, pair, has_b, deltas):
    """Losses and entropies from the sums over some tokens and what the others give to first order.

    by: what the sums' ã is multiplied with to be x; tail: as `weigh` has it, [5]; square: a bound of Σ ω·a² over the
    others; pair: as `_pair` has it. Writes deltas [4]: loss (total, frozen), entropy (total, frozen). Returns a bound
    of their errors, and one of (Σ p·(1 + |l̃|)·x²)^½.
    """
    c, q, e, o, mean_lx, reach, x, correct_u, u_reach = pair
    tail_x, tail_lx = -by * sums[4], mean_lx - by * sums[5]
    frozen, frozen_y = sums[0] + tail_x, sums[1] + tail_lx
    total = frozen + sums[2] + q * (tail[0] + tail_x)
    total_y = frozen_y + sums[3] + q * tail[1]
    if not has_b:
        total_y *= 1 + q
    log_frozen, log_total = np.log1p(frozen), np.log1p(total)
    deltas[0] = log_total - x - q * (correct_u + x)
    deltas[1] = log_frozen - x
    deltas[2] = log_total - total_y / (1 + total)
    deltas[3] = log_frozen - frozen_y / (1 + frozen)
    larger = max(1.0, 1.0 + q)
    spread = abs(c) * (np.sqrt(square) + abs(o) * np.sqrt(tail[2])) + abs(e) * np.sqrt(tail[4])
    size = abs(q) * np.sqrt(tail[3]) + larger * spread
    bound = larger * size * size * (1 + np.exp(abs(q) * u_reach + larger * reach)) / 4
    bound *= max(1.0, abs(total_y / (1 + total)), abs(frozen_y / (1 + frozen)))
    return bound, np.sqrt(by * by * sums[6] + spread * spread)


@njit(nogil=True, cache=True)
def _pair(pairs, tokens, t, i):
    """What `_close` takes of a pair: c, q, e, Σ p·a, Σ p·l̃·x, max |x|, x and ũ of the correct token, and max |ũ|."""
    c, q, e, mean_a, mean_lx, reach, x_correct, _ = pairs
    correct_u, u_reach = tokens
    return (
        np.float64(c[t, i]), np.float64(q[t, i]), np.float64(e[t % len(e), i]), np.float64(mean_a[t, i]),
        np.float64(mean_lx[t, i]), np.float64(reach[t, i]), np.float64(x_correct[t, i]), correct_u[t],
        np.float64(u_reach[t]),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def head_effects(
    columns, listed, has_b, has_v, mean_l, mean_b, mean_v, tails, square, pairs, tokens, first, last, deltas, bound,
    norm,
):  # fmt: skip
    """Effects of every pair of the tokens `first` to `last` from the most probable tokens, and a bound of their error.

    columns: Aᵀ, [d_vocab, n_neurons]; listed: order, p, log_p, b, v of the head, [tokens, head]; mean_l, mean_b,
    mean_v: Σ p·log p, Σ p·b and Σ p·v, [tokens]; tails: [5, tokens], as `weigh` has them; square: a bound of Σ ω·a²
    over the tail. pairs: c, q, e, Σ p·a, Σ p·l̃·x, max |x|, x of the correct token, degree, all [tokens, n_neurons] as
    square (e: of one row of zeros where not has_v); tokens: ũ of the correct token and max |ũ|, [tokens]. Writes deltas
    [tokens, n_neurons, 4], and bound and norm of `_close`.
    """
    order, p, log_p, b, v = listed
    c, q, e, mean_a, _, _, _, degree = pairs
    n_neurons, count = columns.shape[1], order.shape[1]
    sums, tilted = np.zeros(7), np.empty(count, F)
    block = np.empty((_NEURONS, count + 16), F)  # 16 more: rows a power of two apart share cache sets
    for start in range(0, n_neurons, _NEURONS):
        stop = min(start + _NEURONS, n_neurons)
        for t in range(first, last):
            for k in range(count):
                column = columns[order[t, k], start:stop]
                for i in range(stop - start):
                    block[i, k] = column[i]
            tail, some_b = tails[:, t], b[t] if has_b else b[0]
            for i in range(start, stop):
                sums[:] = 0
                a, o, by = block[i - start, :count], mean_a[t, i], c[t, i]
                if has_v:
                    blend(a, v[t], o, mean_v[t], by, e[t, i], a)
                    o, by = F(0), F(1)
                tilt = (mean_l[t], mean_b[t], o, by, q[t, i], degree[t, i])
                _add(p[t], log_p[t], a, some_b, has_b, *tilt, tilted, sums)
                pair = _pair(pairs, tokens, t, i)
                bound[t, i], norm[t, i] = _close(sums, by, tail, square[t, i], pair, has_b, deltas[t, i])


@njit(nogil=True, cache=True)
def deeper_effects(
    A, listed, has_b, has_v, mean_l, mean_b, mean_v, cuts, tails, square, pairs, tokens, rows, columns, tolerance,
    first, last, deltas, bound,
):  # fmt: skip
    """Effects of chosen pairs and a bound of their error, from as many of the most probable tokens as it takes.

    rows, columns: the pairs' places in all arrays, sorted by column.

    A: [n_neurons, d_vocab]; listed: [tokens, cuts[-1]]; cuts: after how many tokens to look whether the bound is below
    the tolerance; tails: [cuts, 5, tokens]. A pair whose tail cannot become small enough is left as it is.
    """
    order, p, log_p, b, v = listed
    c, q, e, mean_a, _, _, _, degree = pairs
    values, blended, tilted, sums = np.empty(cuts[-1], F), np.empty(cuts[-1], F), np.empty(cuts[-1], F), np.zeros(7)
    for k in range(first, last):
        t, i = rows[k], columns[k]
        if bound[t, i] * tails[-1, 2, t] > tolerance * tails[0, 2, t]:
            continue
        pair = _pair(pairs, tokens, t, i)
        sums[:] = 0
        left, begin = np.float64(square[t, i]), 0
        for cut in range(len(cuts)):
            part = slice(begin, cuts[cut])
            a = values[part]
            for n in range(begin, cuts[cut]):
                values[n] = A[i, order[t, n]]
            some_b = b[t, part] if has_b else b[0]
            x, o, by = a, mean_a[t, i], c[t, i]
            if has_v:
                x = blended[part]
                blend(a, v[t, part], o, mean_v[t], by, e[t, i], x)
                o, by = F(0), F(1)
            tilt = (mean_l[t], mean_b[t], o, by, q[t, i], degree[t, i])
            _add(p[t, part], log_p[t, part], x, some_b, has_b, *tilt, tilted[part], sums)
            if cut > 0:
                left -= _square(p[t, part], log_p[t, part], a, mean_l[t])
                bound[t, i] = _close(sums, by, tails[cut, :, t], max(left, 0.0), pair, has_b, deltas[t, i])[0]
                if bound[t, i] <= tolerance:
                    break
            begin = cuts[cut]
