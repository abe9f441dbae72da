"""Compiled inner loops for the CPU: one pass over the vocabulary for a (token, neuron) pair, and ranks from windows.

With p the prediction at a token, l̃ = log p − Σ p·log p, x = c·ã and y = l̃ + x the frozen logits less a constant, and z
the further change that the recomputed norm makes, of y or with a bias of y − b̃ (sums.py), one pass sums

    Σ p·(e^x − 1)        Σ p·(e^x − 1)·y        and how much each grows when e^x becomes e^{x+z}, y becomes y + z

from which losses and entropies follow. Because p is there already, x and z are small and e^x − 1 is a
short polynomial without range reduction. Sums are float32 within a tile of the vocabulary, float64 across tiles.
"""

from typing import Any

import numpy as np
from numba import njit

from backend.core.kernels.problem import TILE

F = np.float32

THIRD, SIXTH, TWELFTH, FAR = 0, 2, 4, 6
"""Degrees of e^x's polynomial: 3, 6, 12, and 12 of a sixteenth of the argument. e^z has degree 3, as z is mostly far
smaller than x; or where 1 is added, the same degree."""

NEAR = 2.0
"""Largest |x| and |z| that the polynomials up to TWELFTH take as they are."""
_BINS = 64
_ROWS = 16
"""Rows of A that are visited together."""

FAST: Any = {"reassoc", "contract", "nsz", "arcp"}


@njit(inline="always")
def third(k: F, v: F) -> F:
    """e^{kv} − 1; the powers of k leave the loop, so that v is multiplied once a degree."""
    k2 = k * k / F(2)
    return v * (k + v * (k2 + v * (k2 * k / F(3))))


@njit(inline="always")
def sixth(k: F, v: F) -> F:
    k2 = k * k / F(2)
    k3 = k2 * k / F(3)
    k4 = k3 * k / F(4)
    k5 = k4 * k / F(5)
    return v * (k + v * (k2 + v * (k3 + v * (k4 + v * (k5 + v * (k5 * k / F(6)))))))


@njit(inline="always")
def twelfth(k: F, v: F) -> F:
    x = k * v
    rest = F(1 / 5040) + x * (
        F(1 / 40320) + x * (F(1 / 362880) + x * (F(1 / 3628800) + x * (F(1 / 39916800) + x * F(1 / 479001600))))
    )
    return x * (
        F(1) + x * (F(1 / 2) + x * (F(1 / 6) + x * (F(1 / 24) + x * (F(1 / 120) + x * (F(1 / 720) + x * rest)))))
    )


@njit(inline="always")
def far(k: F, v: F) -> F:
    """Four times e^{2x} − 1 = (e^x − 1)·(e^x − 1 + 2)."""
    sixteenth = twelfth(k / F(16), v)
    eighth = sixteenth * (sixteenth + F(2))
    quarter = eighth * (eighth + F(2))
    half = quarter * (quarter + F(2))
    return half * (half + F(2))


def _loop(expm1_x: Any, expm1_z: Any) -> Any:
    """The pass over one tile, with e^{kv} − 1 as given; p·e^{x+z} goes into tilted, from which other sums follow."""

    @njit(nogil=True, fastmath=FAST, cache=True)
    def plain(p, log_p, a, m, o, c, q, correct, top, tilted):
        """b_U = 0: z = q·y, whose factor 1 + q on the last sum is left to the caller; both norms order tokens alike."""
        s0, s1, t0, t1 = F(0), F(0), F(0), F(0)
        above_correct, above_top = np.int32(0), np.int32(0)
        for v in range(p.shape[0]):
            centred = a[v] - o
            y = (log_p[v] - m) + c * centred
            frozen = p[v] * expm1_x(c, centred)
            more = (p[v] + frozen) * expm1_z(q, y)
            s0 += frozen
            s1 += frozen * y
            t0 += more
            t1 += more * y
            tilted[v] = p[v] + frozen + more
            above_correct += np.int32(y > correct)
            above_top += np.int32(y > top)
        return s0, s1, t0, t1, above_correct, above_top

    @njit(nogil=True, fastmath=FAST, cache=True)
    def biased(p, log_p, a, b, m, n, o, c, q, correct, top, tilted):
        """z = q·(y − b̃), and the recomputed norm can change the order of the logits."""
        s0, s1, t0, t1 = F(0), F(0), F(0), F(0)
        above_correct, above_top = np.int32(0), np.int32(0)
        for v in range(p.shape[0]):
            centred = a[v] - o
            y = (log_p[v] - m) + c * centred
            u = y - (b[v] - n)
            after = y + q * u
            frozen = p[v] * expm1_x(c, centred)
            more = (p[v] + frozen) * expm1_z(q, u)
            s0 += frozen
            s1 += frozen * y
            t0 += more
            t1 += more * after + frozen * (after - y)
            tilted[v] = p[v] + frozen + more
            above_correct += np.int32(after > correct)
            above_top += np.int32(after > top)
        return s0, s1, t0, t1, above_correct, above_top

    return plain, biased


_plain_3, _biased_3 = _loop(third, third)
_plain_6, _biased_6 = _loop(sixth, third)
_plain_66, _biased_66 = _loop(sixth, sixth)
_plain_12, _biased_12 = _loop(twelfth, third)
_plain_1212, _biased_1212 = _loop(twelfth, twelfth)
_plain_far, _biased_far = _loop(far, third)
_plain_farfar, _biased_farfar = _loop(far, far)


@njit(nogil=True, cache=True)
def inner_pass(p, log_p, a, b, has_b, m, n, o, c, q, correct, top, degree, tilted):
    """One stretch of the vocabulary: four sums and two counts, and p·e^{x+z} into tilted."""
    if has_b:
        return _biased(p, log_p, a, b, m, n, o, c, q, correct, top, degree, tilted)
    return _plain(p, log_p, a, m, o, c, q, correct, top, degree, tilted)


@njit(nogil=True, cache=True)
def _plain(p, log_p, a, m, o, c, q, correct, top, degree, tilted):
    if degree == THIRD:
        return _plain_3(p, log_p, a, m, o, c, q, correct, top, tilted)
    if degree == SIXTH:
        return _plain_6(p, log_p, a, m, o, c, q, correct, top, tilted)
    if degree == SIXTH + 1:
        return _plain_66(p, log_p, a, m, o, c, q, correct, top, tilted)
    if degree == TWELFTH:
        return _plain_12(p, log_p, a, m, o, c, q, correct, top, tilted)
    if degree == TWELFTH + 1:
        return _plain_1212(p, log_p, a, m, o, c, q, correct, top, tilted)
    if degree == FAR:
        return _plain_far(p, log_p, a, m, o, c, q, correct, top, tilted)
    return _plain_farfar(p, log_p, a, m, o, c, q, correct, top, tilted)


@njit(nogil=True, cache=True)
def _biased(p, log_p, a, b, m, n, o, c, q, correct, top, degree, tilted):
    if degree == THIRD:
        return _biased_3(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    if degree == SIXTH:
        return _biased_6(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    if degree == SIXTH + 1:
        return _biased_66(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    if degree == TWELFTH:
        return _biased_12(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    if degree == TWELFTH + 1:
        return _biased_1212(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    if degree == FAR:
        return _biased_far(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)
    return _biased_farfar(p, log_p, a, b, m, n, o, c, q, correct, top, tilted)


@njit(nogil=True, cache=True)
def _after(logits, a, b, has_b, moved, has_v, m, n, o, w, c, q, e, v):
    """The logit of token v afterwards; without a bias up to the factor r > 0, which changes no order."""
    y = (logits[v] - m) + c * (a[v] - o)
    if has_v:
        y += e * (moved[v] - w)
    return y + q * (y - (b[v] - n)) if has_b else y


@njit(nogil=True, fastmath=FAST, cache=True)
def blend(a, moved, o, w, c, e, x):
    """x = c·ã + e·ṽ of some tokens of the vocabulary."""
    for k in range(x.shape[0]):
        x[k] = c * (a[k] - o) + e * (moved[k] - w)


@njit(nogil=True, fastmath=FAST, cache=True)
def _mass(p, log_p, b, has_b, m, n):
    total, fourth = F(0), F(0)
    for v in range(p.shape[0]):
        l = log_p[v] - m  # noqa: E741 - the letter of sums.py
        u = l - (b[v] - n) if has_b else l
        omega = p[v] * (F(1) + abs(l))
        total += omega
        fourth += omega * (u * u) * (u * u)
    return total, fourth


@njit(nogil=True, cache=True)
def tile_masses(p, log_p, b, has_b, mean_l, mean_b, mass, fourth, first, last):
    """Σ p·(1 + |l̃|) over every tile, into mass [tokens, tiles], and Σ p·(1 + |l̃|)·ũ⁴ into fourth [tokens]."""
    for t in range(first, last):
        fourth[t] = 0
        for tile in range(mass.shape[1]):
            part = slice(tile * TILE, min((tile + 1) * TILE, p.shape[1]))
            some_b = b[part] if has_b else b
            masses = _mass(p[t, part], log_p[t, part], some_b, has_b, mean_l[t], mean_b[t])
            mass[t, tile] = masses[0]
            fourth[t] += masses[1]


@njit(nogil=True, cache=True)
def _degree(degree, x, z, mass, allowed):
    """The degree that a tile needs: a pair's own, or a lower one where |x| and |z| stay small there, or the mass is."""
    if degree == THIRD:
        return THIRD
    growth = np.exp(x + z) * mass
    wide = degree % 2
    of_x, of_z = _needed(x, growth, allowed), _needed(z, growth, allowed) if wide else THIRD
    lower = min(degree - wide, max(of_x, of_z))
    return lower + 1 if of_z > THIRD and lower > THIRD else lower


@njit(nogil=True, cache=True)
def _needed(x, growth, allowed):
    if x**4 / 12 * growth <= allowed:
        return THIRD
    if x**7 / 2520 * growth <= allowed:
        return SIXTH
    return TWELFTH if x <= NEAR else FAR


@njit(nogil=True, cache=True)
def sum_pairs(
    p, log_p, A, sizes, b, has_b, v, has_v, fixed, has_fixed, mean_l, mean_b, mean_v, mean_fixed, deepest, farthest,
    farthest_fixed, mass, allowed, mean_a, rows, tokens, c, q, e, e_fixed, degree, targets, tops, first, last, sums,
    above,
):  # fmt: skip
    """Fill `sums` [pairs, 5] and `above` [pairs, 2] for the pairs `first` to `last`, which are sorted by row of A.

    p, log_p: [tokens, d_vocab] float32; A: [n_rows, d_vocab]; b: [d_vocab], or anything where not has_b; v: a direction
    for all tokens or one a token, [1 or tokens, d_vocab], or anything of two axes where not has_v; mean_l, mean_b,
    mean_v: Σ p·log p, Σ p·b and Σ p·v, [tokens]. By pair: mean_a = Σ p·a, rows, tokens (int32), c, q = r − 1, e
    (float32), degree that does for the whole row. sizes: max |A| by tile, [n_rows, tiles]; deepest: max |ũ|, farthest:
    max |ṽ|, [tokens]; mass: of tiles, [tokens, tiles], and allowed, what may be left out of each. targets, tops:
    [tokens] int64. `above` counts tokens that beat the correct one, and that beat the one on top before. The fifth sum
    is by how much Σ p·(e^{x+z} − 1) grows when e_fixed·(a fixed direction less its mean) is added to x + z; fixed,
    mean_fixed and farthest_fixed are as v's, or anything where not has_fixed.
    """
    d_vocab = p.shape[1]
    correct = np.empty(last - first, F)
    best = np.empty(last - first, F)
    blended, tilted = np.empty(TILE, F), np.empty(TILE, F)
    for k in range(first, last):
        t, i = tokens[k], rows[k]
        moved = v[t % len(v)]
        after = (log_p[t], A[i], b, has_b, moved, has_v, mean_l[t], mean_b[t], mean_a[k], mean_v[t], c[k], q[k], e[k])
        correct[k - first] = _after(*after, targets[t])
        best[k - first] = _after(*after, tops[t])
        sums[k, :] = 0
        above[k, :] = 0
    for start in range(0, d_vocab, TILE):
        stop = min(start + TILE, d_vocab)
        tile, part = start // TILE, slice(start, stop)
        some_b = b[part] if has_b else b
        for k in range(first, last):
            t, i = tokens[k], rows[k]
            x = abs(c[k]) * (sizes[i, tile] + abs(mean_a[k]))
            a, o, by = A[i, part], mean_a[k], c[k]
            if has_v:
                x += abs(e[k]) * farthest[t]
                blend(a, v[t % len(v), part], o, mean_v[t], by, e[k], blended[: stop - start])
                a, o, by = blended[: stop - start], F(0), F(1)
            z = abs(q[k]) * (deepest[t] + x)
            pair = (
                p[t, part], log_p[t, part], a, some_b, has_b, mean_l[t], mean_b[t], o, by, q[k], correct[k - first],
                best[k - first], _degree(degree[k], x, z, mass[t, tile], allowed), tilted[: stop - start],
            )  # fmt: skip
            target, top = targets[t] - start, tops[t] - start
            # The tokens that others are compared with are summed alone: rounding must not put them above themselves.
            begin = 0
            for cut in (min(target, top), max(target, top)):
                if begin <= cut < stop - start:
                    _add_pass(pair, begin, cut, True, True, sums[k], above[k])
                    _add_pass(pair, cut, cut + 1, cut != target, cut != top, sums[k], above[k])
                    begin = cut + 1
            _add_pass(pair, begin, stop - start, True, True, sums[k], above[k])
            if has_fixed:
                further = abs(e_fixed[k]) * farthest_fixed[t]
                some, row = tilted[: stop - start], fixed[t % len(fixed), part]
                growth = np.exp(x + z + further) * mass[t, tile]
                sums[k, 4] += _further(some, row, mean_fixed[t], e_fixed[k], further, growth, allowed)


def _further_loop(expm1: Any) -> Any:
    @njit(nogil=True, fastmath=FAST, cache=True)
    def loop(tilted, v, w, e):
        total = F(0)
        for k in range(tilted.shape[0]):
            total += tilted[k] * expm1(e, v[k] - w)
        return total

    return loop


_further_3, _further_6, _further_12 = _further_loop(third), _further_loop(sixth), _further_loop(twelfth)


@njit(nogil=True, cache=True)
def _further(tilted, v, w, e, reach, growth, allowed):
    """Σ p·e^{x+z}·(e^{e·ṽ} − 1) of one tile, by the lowest degree that leaves out no more than `allowed`."""
    if reach**4 / 24 * growth <= allowed:
        return _further_3(tilted, v, w, e)
    if reach**7 / 5040 * growth <= allowed:
        return _further_6(tilted, v, w, e)
    return _further_12(tilted, v, w, e)


@njit(nogil=True, cache=True)
def _add_pass(pair, start, stop, count_correct, count_top, sums, above):
    """Add what the tokens `start` to `stop` of a tile contribute to one pair."""
    if start >= stop:
        return
    p, log_p, a, b, has_b, m, n, o, c, q, correct, top, degree, tilted = pair
    some_b = b[start:stop] if has_b else b
    added = inner_pass(
        p[start:stop], log_p[start:stop], a[start:stop], some_b, has_b, m, n, o, c, q, correct, top, degree,
        tilted[start:stop],
    )  # fmt: skip
    sums[0] += added[0]
    sums[1] += added[1]
    sums[2] += added[2]
    sums[3] += added[3]
    if count_correct:
        above[0] += added[4]
    if count_top:
        above[1] += added[5]


# The tilt that moves along a direction too. Only its loss is wanted: one exponential a token, and no counting.


def _along_loop(expm1: Any) -> Any:
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


_along_3, _along_biased_3 = _along_loop(third)
_along_6, _along_biased_6 = _along_loop(sixth)
_along_12, _along_biased_12 = _along_loop(twelfth)
_along_far, _along_biased_far = _along_loop(far)


@njit(nogil=True, cache=True)
def _along_tile(p, log_p, a, b, has_b, v, m, o, w, d, q, e, reach, allowed):
    """One tile by the lowest degree that leaves out no more than `allowed`, as a share of the tile's mass."""
    growth = np.exp(reach)
    if reach**4 / 24 * growth <= allowed:
        if has_b:
            return _along_biased_3(p, log_p, a, b, v, m, o, w, d, q, e)
        return _along_3(p, log_p, a, v, m, o, w, d, q, e)
    if reach**7 / 5040 * growth <= allowed:
        if has_b:
            return _along_biased_6(p, log_p, a, b, v, m, o, w, d, q, e)
        return _along_6(p, log_p, a, v, m, o, w, d, q, e)
    if reach <= NEAR:
        if has_b:
            return _along_biased_12(p, log_p, a, b, v, m, o, w, d, q, e)
        return _along_12(p, log_p, a, v, m, o, w, d, q, e)
    if has_b:
        return _along_biased_far(p, log_p, a, b, v, m, o, w, d, q, e)
    return _along_far(p, log_p, a, v, m, o, w, d, q, e)


@njit(nogil=True, cache=True)
def sum_along(
    p, log_p, A, sizes, b, has_b, v, fixed, has_v, mean_u, mean_v, mean_fixed, deepest, farthest, farthest_fixed, mass,
    allowed, mean_a, rows, tokens, d, q, e, e_fixed, first, last, sums,
):  # fmt: skip
    """Σ p·(e^X − 1) over whole rows, X = q·ũ + d·ã + e·ṽ + e_fixed·(the fixed direction less its mean), into `sums`
    [pairs] for the pairs `first` to `last`, which are sorted by row of A.

    p, log_p: [tokens, d_vocab] float32; A: [n_rows, d_vocab]; sizes: max |A| by tile, [n_rows, tiles]; b: [d_vocab], or
    anything where not has_b; v, fixed: [1 or tokens, d_vocab], v anything of two axes where not has_v. By token:
    mean_u = Σ p·u and so on, deepest = max |ũ|, farthest = max |ṽ|, farthest_fixed, and mass, Σ p by tile, [tokens,
    tiles]; allowed: what may be left out of each tile. By pair: mean_a = Σ p·a, rows, tokens (int32), d, q, e, e_fixed
    (float32).
    """
    d_vocab = p.shape[1]
    blended = np.empty(TILE, F)
    for k in range(first, last):
        sums[k] = 0
    for start in range(0, d_vocab, TILE):
        part = slice(start, min(start + TILE, d_vocab))
        tile = start // TILE
        some_b = b[part] if has_b else b
        for k in range(first, last):
            t, i = tokens[k], rows[k]
            reach = abs(d[k]) * (sizes[i, tile] + abs(mean_a[k])) + abs(q[k]) * deepest[t]
            reach += abs(e_fixed[k]) * farthest_fixed[t]
            a, o, by = A[i, part], mean_a[k], d[k]
            if has_v:
                reach += abs(e[k]) * farthest[t]
                blend(a, v[t % len(v), part], o, mean_v[t], by, e[k], blended[: len(a)])
                a, o, by = blended[: len(a)], F(0), F(1)
            sums[k] += _along_tile(
                p[t, part], log_p[t, part], a, some_b, has_b, fixed[t % len(fixed), part], mean_u[t], o, mean_fixed[t],
                by, q[k], e_fixed[k], reach, allowed / max(mass[t, tile], F(1e-30)),
            )  # fmt: skip


@njit(nogil=True, cache=True)
def _near(logits, centre, width):
    """Tokens whose logit is within `width` of the token `centre`'s, nearest bins first; and where each bin starts."""
    per_unit = F(_BINS - 1) / max(width, F(1e-30))
    near, count = np.empty(logits.shape[0], np.int32), 0
    for v in range(logits.shape[0]):
        near[count] = v
        count += abs(logits[v] - logits[centre]) <= width  # without a branch: the next overwrites what is not counted
    starts = np.zeros(_BINS + 2, np.int64)
    for v in near[:count]:
        starts[int(abs(logits[v] - logits[centre]) * per_unit) + 2] += 1
    for n in range(2, _BINS + 2):
        starts[n] += starts[n - 1]
    tokens = np.empty(count, np.int32)
    for v in near[:count]:
        place = int(abs(logits[v] - logits[centre]) * per_unit) + 1
        tokens[starts[place]] = v
        starts[place] += 1
    return tokens, starts[:-1], per_unit


@njit(nogil=True, cache=True)
def _above(pair, centre, near, reach):
    """How many more tokens than before beat `centre`, and whether any does that did not."""
    tokens, starts, per_unit = near
    more, any_new = 0, False
    count = starts[int(min(reach * per_unit, F(_BINS - 1))) + 1]
    if count == 1:  # itself alone: most pairs, and nothing of A is read
        return more, any_new
    logits, a, b, has_b, moved, has_v, c, q, e = pair
    zero = F(0)
    y_centre = _after(logits, a, b, has_b, moved, has_v, zero, zero, zero, zero, c, q, e, centre)
    for v in tokens[:count]:
        if v == centre:
            continue
        before = logits[v] > logits[centre]
        after = _after(logits, a, b, has_b, moved, has_v, zero, zero, zero, zero, c, q, e, v) > y_centre
        more += int(after) - int(before)
        any_new |= after and not before
    return more, any_new


@njit(nogil=True, cache=True)
def window_ranks(
    logits, A, b, has_b, v, has_v, c, q, e, wanted, reach, targets, tops, first, last, more_above, beaten
):  # fmt: skip
    """Rank and argmax changes of the wanted pairs of the tokens `first` to `last`, exactly, from few tokens each.

    Only a token whose logit is within the neuron's reach of the correct one's (or the top one's) can change sides.
    b: [d_vocab], or anything where not has_b; v: [1 or tokens, d_vocab], or anything of two axes where not has_v.
    wanted, c, q = r − 1, e: [tokens, n_rows]; reach: [tokens, n_rows, 2], how far any logit can move against the
    correct token's, and against the top one's. more_above: [tokens, n_rows], how many more tokens beat the correct one
    than before. beaten: whether any beats the top one.
    """
    correct = [_near(logits[t], targets[t], _widest(reach[t, :, 0], wanted[t])) for t in range(first, last)]
    best = [_near(logits[t], tops[t], _widest(reach[t, :, 1], wanted[t])) for t in range(first, last)]
    for start in range(0, A.shape[0], _ROWS):
        for t in range(first, last):
            for i in range(start, min(start + _ROWS, A.shape[0])):
                if wanted[t, i]:
                    pair = (logits[t], A[i], b, has_b, v[t % len(v)], has_v, c[t, i], q[t, i], e[t % len(e), i])
                    more_above[t, i] = _above(pair, targets[t], correct[t - first], reach[t, i, 0])[0]
                    beaten[t, i] = _above(pair, tops[t], best[t - first], reach[t, i, 1])[1]


@njit(nogil=True, cache=True)
def column_ranks(
    logits, columns, b, has_b, v, has_v, c, q, e, wanted, reach, targets, tops, most, first, last, more_above, beaten,
    done,
):  # fmt: skip
    """Rank and argmax changes of all neurons at once, from rows of columns = Aᵀ, [d_vocab, n_rows].

    Only tokens whose windows hold no more than `most` tokens are done; done [tokens] is set there. The other arguments
    are those of `window_ranks`.
    """
    more = np.empty(c.shape[1], np.int32)
    for t in range(first, last):
        correct = _near(logits[t], targets[t], _widest(reach[t, :, 0], wanted[t]))[0]
        best = _near(logits[t], tops[t], _widest(reach[t, :, 1], wanted[t]))[0]
        if len(correct) + len(best) > most:
            continue
        done[t] = True
        sizes = (v[t % len(v)], has_v, c[t], q[t], e[t % len(e)])
        _count_columns(logits[t], columns, b, has_b, sizes, targets[t], correct, more_above[t])
        more[:] = 0
        _count_columns(logits[t], columns, b, has_b, sizes, tops[t], best, more)
        for i in range(len(more)):
            beaten[t, i] = more[i] > 0


@njit(nogil=True, cache=True)
def _count_columns(logits, columns, b, has_b, sizes, centre, near, more):
    moved, has_v, c, q, e = sizes
    a_centre = columns[centre]
    for v in near:
        if v != centre:
            b_centre, b_v = (b[centre], b[v]) if has_b else (F(0), F(0))
            before = np.int32(logits[v] > logits[centre])
            if has_v:
                along = moved[v] - moved[centre]
                apart = (logits[v] - logits[centre], along, b_v - b_centre if has_b else F(0))
                _count_moved(columns[v], a_centre, apart, has_b, c, q, e, before, more)
            elif has_b:
                _count_biased(columns[v], a_centre, logits[v], logits[centre], b_v, b_centre, c, q, before, more)
            else:
                _count_plain(columns[v], a_centre, logits[v], logits[centre], c, before, more)


@njit(nogil=True, cache=True)
def _count_plain(a, a_centre, logit, centre_logit, c, before, more):
    for i in range(a.shape[0]):
        more[i] += np.int32(logit + c[i] * a[i] > centre_logit + c[i] * a_centre[i]) - before


@njit(nogil=True, cache=True)
def _count_biased(a, a_centre, logit, centre_logit, b, b_centre, c, q, before, more):
    for i in range(a.shape[0]):
        y, y_centre = logit + c[i] * a[i], centre_logit + c[i] * a_centre[i]
        more[i] += np.int32(y + q[i] * (y - b) > y_centre + q[i] * (y_centre - b_centre)) - before


@njit(nogil=True, cache=True)
def _count_moved(a, a_centre, apart, has_b, c, q, e, before, more):
    """apart: how far the logit, the direction and the bias are above those of the token in the centre."""
    logit, along, b = apart
    for i in range(a.shape[0]):
        y = logit + c[i] * (a[i] - a_centre[i]) + e[i] * along
        more[i] += np.int32((y + q[i] * (y - b) if has_b else y) > 0) - before


@njit(nogil=True, cache=True)
def _widest(reach, wanted):
    widest = F(0)
    for i in range(reach.shape[0]):
        if wanted[i] and reach[i] > widest:
            widest = reach[i]
    return widest
