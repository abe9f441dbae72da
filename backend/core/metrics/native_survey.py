"""Compiled loops of the survey (`survey.py`): the head of the vocabulary, for many neurons at a time.

The head's tokens are scattered over the vocabulary, and to gather them from each row of A would cost more than the sums
themselves; from rows of Aᵀ they come for many neurons at once.
"""

import numpy as np
from numba import njit

from backend.core.metrics.kernels import TILE
from backend.core.metrics.native import FAST, F, inner_pass

_DEPTHS = 2048
_DEPTHS_A_NAT = F(96)
_NEURONS = 96
"""Neurons that are taken out of Aᵀ together: six cache lines of each of its rows."""


@njit(nogil=True, cache=True)
def select(log_p, most, order, counts, first, last):
    """The most probable tokens of some rows: the first counts[t] ≤ most of order [tokens, most] (int32)."""
    for t in range(first, last):
        bins = np.zeros(_DEPTHS, np.int64)
        highest = log_p[t].max()
        for v in range(log_p.shape[1]):
            bins[int(min((highest - log_p[t, v]) * _DEPTHS_A_NAT, F(_DEPTHS - 1)))] += 1
        depth, filled = 0, 0
        while depth < _DEPTHS - 1 and filled + bins[depth] <= most:
            filled += bins[depth]
            depth += 1
        limit = highest - F(depth) / _DEPTHS_A_NAT
        place = 0
        for v in range(log_p.shape[1]):
            if log_p[t, v] > limit and place < most:
                order[t, place] = v
                place += 1
        counts[t] = place
        order[t, place:] = order[t, 0]  # so that every listed token is one of the head


@njit(nogil=True, fastmath=FAST, cache=True)
def _weigh(p, log_p, b, has_b, m, n, p_l, omega):
    lu, total, uu = F(0), F(0), F(0)
    for v in range(p.shape[0]):
        l = log_p[v] - m  # noqa: E741 - the letter of closing.py
        u = l - (b[v] - n) if has_b else l
        p_l[v] = p[v] * l
        omega[v] = p[v] * (F(4) + abs(l))
        lu += p_l[v] * u
        total += omega[v]
        uu += omega[v] * u * u
    return lu, total, uu


@njit(nogil=True, cache=True)
def weigh(p, log_p, b, has_b, mean_l, mean_b, order, counts, p_l, omega, sums, first, last):
    """p·l̃ and the tail's ω = p·(4 + |l̃|), 0 in the head, both [tokens, d_vocab]; and the tail's Σ p·ũ, Σ p·l̃·ũ, Σ ω
    and Σ ω·ũ² into sums [4, tokens]."""
    for t in range(first, last):
        m, n = mean_l[t], mean_b[t]
        lu, total, uu = np.float64(0), np.float64(0), np.float64(0)
        for start in range(0, p.shape[1], TILE):
            part = slice(start, min(start + TILE, p.shape[1]))
            some_b = b[part] if has_b else b
            found = _weigh(p[t, part], log_p[t, part], some_b, has_b, m, n, p_l[t, part], omega[t, part])
            lu, total, uu = lu + found[0], total + found[1], uu + found[2]
        head_u = np.float64(0)
        for k in range(counts[t]):
            v = order[t, k]
            u = log_p[t, v] - m - (b[v] - n if has_b else F(0))
            head_u += p[t, v] * u
            lu -= p_l[t, v] * u
            total -= omega[t, v]
            uu -= omega[t, v] * u * u
            omega[t, v] = 0
        sums[0, t], sums[1, t], sums[2, t], sums[3, t] = -head_u, lu, max(total, 0.0), max(uu, 0.0)


@njit(nogil=True, fastmath=FAST, cache=True)
def _first_order(p, log_p, a, m, o):
    s0, s1, s2 = F(0), F(0), F(0)
    for k in range(p.shape[0]):
        moved = p[k] * (a[k] - o)
        s0 += moved
        l_k = log_p[k] - m
        s1 += moved * l_k
        s2 += moved * (a[k] - o) * (F(1) + abs(l_k))
    return s0, s1, s2


@njit(nogil=True, cache=True)
def head_effects(
    columns, order, counts, p, log_p, b, has_b, mean_l, mean_b, tail_u, tail_lu, tail_omega, tail_uu, square, mean_a,
    mean_la, c, q, degree, correct_a, correct_l, correct_u, reach, u_reach, first, last, deltas, bound, norm,
):  # fmt: skip
    """Changes of loss (total, frozen) and entropy (total, frozen) of every pair of the tokens `first` to `last`.

    columns: Aᵀ, [d_vocab, n_neurons]; p, log_p, b: of the tokens in order, [tokens, most], which counts [tokens]
    limits. mean_l, mean_b: Σ p·log p and Σ p·b, [tokens]. tail_u, tail_lu, tail_omega, tail_uu: Σ p·ũ, Σ p·l̃·ũ, Σ ω
    and Σ ω·ũ² over the other tokens, [tokens]; square: a bound of Σ ω·a² over them. square, mean_a, mean_la, c, q,
    degree, reach: [tokens, n_neurons]; correct_a: a of the correct token, and correct_l, correct_u [tokens]: its l̃ and
    ũ. reach is the largest |c·ã|, u_reach the largest |ũ|. Writes deltas [4, tokens, n_neurons], bound [tokens,
    n_neurons], and as norm a bound of (Σ p·(1 + |l̃|)·ã²)^½.
    """
    n_neurons = columns.shape[1]
    block = np.empty((_NEURONS, order.shape[1] + 16), F)  # 16 more: rows a power of two apart share cache sets
    for start in range(0, n_neurons, _NEURONS):
        stop = min(start + _NEURONS, n_neurons)
        for t in range(first, last):
            count = counts[t]
            for k in range(count):
                column = columns[order[t, k], start:stop]
                for i in range(stop - start):
                    block[i, k] = column[i]
            some_b = b[t, :count] if has_b else b[0]
            for i in range(start, stop):
                o, c_i, q_i = mean_a[t, i], c[t, i], q[t, i]
                a = block[i - start, :count]
                head = inner_pass(
                    p[t, :count], log_p[t, :count], a, some_b, has_b, mean_l[t], mean_b[t], o, c_i, q_i, F(0), F(0),
                    degree[t, i],
                )  # fmt: skip
                moved, moved_l, second = _first_order(p[t, :count], log_p[t, :count], a, mean_l[t], o)
                c_i, q_i = np.float64(c_i), np.float64(q_i)
                tail_a, tail_la = -np.float64(moved), np.float64(mean_la[t, i]) - moved_l
                frozen, frozen_y = head[0] + c_i * tail_a, head[1] + c_i * tail_la
                total = frozen + head[2] + q_i * (tail_u[t] + c_i * tail_a)
                total_y = frozen_y + head[3] + q_i * tail_lu[t]
                if not has_b:
                    total_y *= 1 + q_i
                x = c_i * (np.float64(correct_a[t, i]) - o)
                log_frozen, log_total = np.log1p(frozen), np.log1p(total)
                deltas[0, t, i] = log_total - x - q_i * (correct_u[t] + x)
                deltas[1, t, i] = log_frozen - x
                deltas[2, t, i] = log_total - total_y / (1 + total)
                deltas[3, t, i] = log_frozen - frozen_y / (1 + frozen)
                larger = max(1.0, 1.0 + q_i)
                spread = np.sqrt(square[t, i]) + abs(o) * np.sqrt(tail_omega[t])
                norm[t, i] = np.sqrt(second + spread * spread)
                size = abs(q_i) * np.sqrt(tail_uu[t]) + abs(c_i) * larger * spread
                farthest = abs(q_i) * u_reach[t] + larger * reach[t, i]
                bound[t, i] = size * size / 2 * np.exp(farthest)
                # A tilted mean of at most 1 is what lets the 4 of ω cover the quotient.
                if max(abs(total_y / (1 + total)), abs(frozen_y / (1 + frozen))) > 1:
                    bound[t, i] = np.inf
