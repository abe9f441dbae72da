"""The CUDA kernel, in Triton: every pair from one pass over the vocabulary, for a few tokens and neurons at a time.

With f the identity, or a soft-cap cap·tanh(y/cap), a tilt y changes the log-probabilities l by X = f(y) − f(L), up to
a constant. Whatever constant o is taken from X, the loss changes by log Σ p·e^X − X_correct and the entropy by
log Σ p·e^X − Σ p·e^X·(l̃ + X)/Σ p·e^X, with l̃ = l − Σ p·l. So o only decides which digits are kept: near Σ p·X sums of
p·(e^X − 1) keep those of small changes. Pairs whose X may exceed what e^X can hold are left to the plain kernel.

A program loads each piece of A once and uses it for all of its tokens, so that memory is not the limit: arithmetic is.
Compiled for an H100 it takes some 32 instructions a token, neuron and entry of the vocabulary beside a fixed direction,
three of them exponentials of 2: X and l̃ are in bits inside the kernel, which spares a product each.

Error: each of `LANES` partial sums is kept in float32 over every LANES-th entry of the vocabulary; they are added in
pairs. A sum is thus within (d_vocab/LANES + 6)·2⁻²⁴ of the sum of its terms' sizes, 5·10⁻⁵ of it for 50,257 tokens, and
far nearer where terms round either way; 2^X errs by 2⁻²²·(1 + |X|) of itself. Against float64 losses and entropies are
within 3·10⁻⁷ nats where no logit moves by more than one, and within 10⁻⁷ of the largest change beyond. The order in
which terms are added does not depend on the sizes of blocks, so that tuning these changes no bit of a result.
"""

from dataclasses import dataclass
from math import e, log, log2

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float64
from torch import Tensor

from backend.core.kernels.plain import chosen_pairs
from backend.core.kernels.problem import Ablations, Before, FixedDirection, along_component
from backend.core.metrics.effects import PairStatistics
from backend.core.metrics.predictions import Predictions

LANES = 64
"""Entries of the vocabulary that are handled at once, each with a partial sum of its own."""
LOG2_E = tl.constexpr(log2(e))
LARGEST = tl.constexpr(80.0)
"""X that e^X can hold in float32, with room for the sum over a vocabulary."""
_TOGETHER = 16
"""Blocks of tokens that pass over the same neurons at about the same time, so that both stay in the L2 cache."""
_BLOCKS = [
    triton.Config({"T": tokens, "N": neurons, "STAGES": stages}, num_warps=warps)
    for tokens, neurons, warps, stages in ((4, 8, 8, 2), (4, 8, 8, 3), (4, 4, 4, 2), (8, 4, 8, 2), (4, 4, 8, 3))
]
"""Tokens and neurons of a block; the fastest is chosen by trying once, and remembered in Triton's cache."""


@triton.jit
def _tanh(x):
    """A series near 0, where the quotient would lose digits: its error is 10⁻⁸ of the result there."""
    square = x * x
    near = x * (1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))))
    return tl.where(tl.abs(x) < 0.25, near, 1 - 2 / (tl.exp(2 * x) + 1))


@triton.jit
def _capped(step, level, cap):
    """cap·tanh((L + step)/cap) − cap·tanh(L/cap) without a difference of close numbers; level: tanh(L/cap)."""
    moved = _tanh(step / cap)
    return cap * moved * ((1 - level) * (1 + level)) / tl.maximum(1 + level * moved, 1e-7)


@triton.jit
def _moved(start, c, a, e, along, ALONG: tl.constexpr):
    """start + c·a + e·v, by the same operations for every token of the vocabulary: equal logits stay equal."""
    if ALONG:
        start = tl.fma(e, along, start)
    return tl.fma(c, a, start)


@triton.jit
def _total(lanes, T: tl.constexpr, N: tl.constexpr, V: tl.constexpr, HALVINGS: tl.constexpr):
    """The sums of [T, N, V] over V, by pairs: in one order, whatever the layout."""
    for step in tl.static_range(HALVINGS):
        lanes = tl.sum(tl.reshape(lanes, (T, N, V >> (step + 1), 2)), axis=3)
    return tl.reshape(lanes, (T, N))


@triton.jit
def _rows(
    logits, p, A, b, v_, w_, level_, mean_b, mean_w, targets, tops, c_, q_, o_, o_total_, e_, ew_, farthest, p_freq,
    sums, above, cap, n_tokens, n_neurons, d_vocab, v_stride, w_stride,
    BIASED: tl.constexpr, ALONG: tl.constexpr, FIXED: tl.constexpr, CAPPED: tl.constexpr, DISTANT: tl.constexpr,
    GROUP: tl.constexpr, V: tl.constexpr, HALVINGS: tl.constexpr, T: tl.constexpr, N: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Sums over the vocabulary for T tokens and N neurons; what a flag leaves out is a pointer that is not followed.

    sums [n_tokens, n_neurons, 8]: Σ p·(e^X − 1) and Σ p·(e^X − 1)·(l̃ + X) of the frozen tilt, then of the total one,
    where CAPPED with Σ p·X in the second of each; Σ p·(e^X − 1) beside the fixed direction w; and where CAPPED how far
    the logits are moved along w for it, and what is taken from X where e^X could not hold it: then Σ p·e^X. Last,
    where DISTANT, Σ P_freq·X of the total tilt.
    above [n_tokens, n_neurons, 2]: how many logits exceed the correct token's, and whether one exceeds that of the
    token which was most probable.
    """
    of_tokens = tl.cdiv(n_tokens, T)
    in_group = GROUP * tl.cdiv(n_neurons, N)
    first = tl.program_id(0) // in_group * GROUP
    in_column = tl.minimum(of_tokens - first, GROUP)
    place = tl.program_id(0) % in_group
    t = (first + place % in_column) * T + tl.arange(0, T)
    i = (place // in_column) * N + tl.arange(0, N)
    t_in, i_in = t < n_tokens, i < n_neurons
    wide = t.to(tl.int64)  # a place in A or among the pairs may be past 2³¹
    row, v_row, w_row = wide * d_vocab, wide * v_stride, wide * w_stride
    neuron = i.to(tl.int64) * d_vocab
    pair = wide[:, None] * n_neurons + i[None, :]
    pair_in = t_in[:, None] & i_in[None, :]
    target = tl.load(targets + t, mask=t_in, other=0)
    top = tl.load(tops + t, mask=t_in, other=0)
    c = tl.load(c_ + pair, mask=pair_in, other=0.0)
    q = tl.load(q_ + pair, mask=pair_in, other=0.0)
    e, v_correct, v_best = c, c, c
    if ALONG:
        e = tl.load(e_ + pair, mask=pair_in, other=0.0)
        v_correct = tl.load(v_ + v_row + target, mask=t_in, other=0.0)[:, None]
        v_best = tl.load(v_ + v_row + top, mask=t_in, other=0.0)[:, None]
    a_correct = tl.load(A + neuron[None, :] + target[:, None], mask=pair_in, other=0.0)
    a_best = tl.load(A + neuron[None, :] + top[:, None], mask=pair_in, other=0.0)
    correct = tl.load(logits + row + target, mask=t_in, other=0.0)[:, None]
    best = tl.load(logits + row + top, mask=t_in, other=0.0)[:, None]
    correct = _moved(correct, c, a_correct, e, v_correct, ALONG)
    best = _moved(best, c, a_best, e, v_best, ALONG)
    if BIASED:
        correct = tl.fma(q, correct - tl.load(b + target, mask=t_in, other=0.0)[:, None], correct)
        best = tl.fma(q, best - tl.load(b + top, mask=t_in, other=0.0)[:, None], best)

    c, q, e, correct = c[:, :, None], q[:, :, None], e[:, :, None], correct[:, :, None]
    o = tl.load(o_ + pair, mask=pair_in, other=0.0)[:, :, None]
    c2, e2, o2 = c * LOG2_E, e * LOG2_E, o * LOG2_E
    m = tl.load(level_ + t, mask=t_in, other=0.0)[:, None, None]
    o_total, ew, w_mean, bias_mean = o, o, m, m
    if CAPPED:
        o_total = tl.load(o_total_ + pair, mask=pair_in, other=0.0)[:, :, None]
    if BIASED:
        bias_mean = LOG2_E * tl.load(mean_b + t, mask=t_in, other=0.0)[:, None, None]
    if FIXED:
        w_mean = tl.load(mean_w + t, mask=t_in, other=0.0)[:, None, None]
        if not CAPPED:
            ew = LOG2_E * tl.load(ew_ + pair, mask=pair_in, other=0.0)[:, :, None]
    frozen = tl.zeros((T, N, V), tl.float32)
    frozen_y = tl.zeros((T, N, V), tl.float32)
    total = tl.zeros((T, N, V), tl.float32)
    total_y = tl.zeros((T, N, V), tl.float32)
    fixed = tl.zeros((T, N, V), tl.float32)
    gained = tl.zeros((T, N, V), tl.float32)
    expected = tl.zeros((T, N, V), tl.float32)
    highest = tl.full((T, N, V), float("-inf"), tl.float32)
    largest = tl.zeros((T, N, V), tl.float32)
    beaten = tl.zeros((T, N, V), tl.int32)
    for start in tl.range(0, d_vocab, V, num_stages=STAGES):
        v = start + tl.arange(0, V)
        v_in = v < d_vocab
        here = t_in[:, None] & v_in[None, :]
        at = row[:, None] + v[None, :]
        # Past the vocabulary: below every logit, and finite, since it may be multiplied with 0.
        L = tl.load(logits + at, mask=here, other=-1e30)[:, None, :]
        weight = tl.load(p + at, mask=here, other=0.0)[:, None, :]
        a = tl.load(A + neuron[:, None] + v[None, :], mask=i_in[:, None] & v_in[None, :], other=0.0)[None, :, :]
        along = weight
        if ALONG:
            along = tl.load(v_ + v_row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
        after = _moved(L, c, a, e, along, ALONG)
        before_norm = after
        if BIASED:
            bias = tl.load(b + v, mask=v_in, other=0.0)[None, None, :]
            before_norm = after - bias
        if CAPPED:
            level = _tanh(L / cap)
            l = tl.fma(cap * level, LOG2_E, -m)  # noqa: E741
            step = _moved(tl.zeros_like(L), c, a, e, along, ALONG)
            x = LOG2_E * (_capped(step, level, cap) - o)
            x2 = LOG2_E * (_capped(tl.fma(q, before_norm, step), level, cap) - o_total)
            y = l + x
        else:
            l = tl.where(v_in[None, None, :], tl.fma(L, LOG2_E, -m), 0.0)  # noqa: E741
            x = _moved(-o2, c2, a, e2, along, ALONG)
            y = l + x
            u = y
            if BIASED:
                u = y - (bias * LOG2_E - bias_mean)
            x2 = tl.fma(q, u, x)
        grown = tl.fma(weight, tl.exp2(x), -weight)
        grown2 = tl.fma(weight, tl.exp2(x2), -weight)
        frozen += grown
        total += grown2
        frozen_y = tl.fma(grown, y, frozen_y)
        total_y = tl.fma(grown2, l + x2, total_y)
        if CAPPED:
            frozen_y = tl.fma(weight, x, frozen_y)
            total_y = tl.fma(weight, x2, total_y)
        if DISTANT:
            often = tl.load(p_freq + v, mask=v_in, other=0.0)[None, None, :]
            expected = tl.fma(often, x2, expected)
        if FIXED:
            w = tl.load(w_ + w_row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
            if CAPPED:
                gained = tl.fma(x2, w, gained)
                largest = tl.maximum(largest, x2)
            else:
                fixed = tl.fma(weight, tl.exp2(tl.fma(ew, w - w_mean, x2)) - 1, fixed)
        if BIASED:
            after = tl.fma(q, before_norm, after)
        beaten += (after > correct).to(tl.int32)
        highest = tl.maximum(highest, after)
    if FIXED and CAPPED:
        # What holds the capped logits along w is known only after a pass over the vocabulary. This is the second.
        moved = -_total(gained, T, N, V, HALVINGS)
        far = tl.abs(moved) * tl.load(farthest + t, mask=t_in, other=0.0)[:, None]
        lower = tl.maximum(tl.max(largest, axis=2) + far - LARGEST * LOG2_E, 0.0)
        tl.store(sums + pair * 8 + 5, moved, mask=pair_in)
        tl.store(sums + pair * 8 + 6, lower, mask=pair_in)
        ew, one = moved[:, :, None], tl.where(lower > 0, 0.0, 1.0)[:, :, None]
        for start in range(0, d_vocab, V):
            v = start + tl.arange(0, V)
            v_in = v < d_vocab
            here = t_in[:, None] & v_in[None, :]
            at = row[:, None] + v[None, :]
            L = tl.load(logits + at, mask=here, other=-1e30)[:, None, :]
            weight = tl.load(p + at, mask=here, other=0.0)[:, None, :]
            a = tl.load(A + neuron[:, None] + v[None, :], mask=i_in[:, None] & v_in[None, :], other=0.0)[None, :, :]
            along = weight
            if ALONG:
                along = tl.load(v_ + v_row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
            before_norm = _moved(L, c, a, e, along, ALONG)
            if BIASED:
                before_norm -= tl.load(b + v, mask=v_in, other=0.0)[None, None, :]
            step = _moved(tl.zeros_like(L), c, a, e, along, ALONG)
            x2 = LOG2_E * (_capped(tl.fma(q, before_norm, step), _tanh(L / cap), cap) - o_total)
            w = tl.load(w_ + w_row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
            fixed = tl.fma(weight, tl.exp2(tl.fma(ew, w - w_mean, x2 - lower[:, :, None])) - one, fixed)
    tl.store(sums + pair * 8, _total(frozen, T, N, V, HALVINGS), mask=pair_in)
    tl.store(sums + pair * 8 + 1, _total(frozen_y, T, N, V, HALVINGS), mask=pair_in)
    tl.store(sums + pair * 8 + 2, _total(total, T, N, V, HALVINGS), mask=pair_in)
    tl.store(sums + pair * 8 + 3, _total(total_y, T, N, V, HALVINGS), mask=pair_in)
    if FIXED:
        tl.store(sums + pair * 8 + 4, _total(fixed, T, N, V, HALVINGS), mask=pair_in)
    if DISTANT:
        tl.store(sums + pair * 8 + 7, _total(expected, T, N, V, HALVINGS), mask=pair_in)
    tl.store(above + pair * 2, tl.sum(beaten, axis=2), mask=pair_in)
    tl.store(above + pair * 2 + 1, (tl.max(highest, axis=2) > best).to(tl.int32), mask=pair_in)


_FLAGS = ["d_vocab", "BIASED", "ALONG", "FIXED", "CAPPED", "DISTANT"]
_tuned = triton.autotune(_BLOCKS[:1] if triton.knobs.runtime.interpret else _BLOCKS, _FLAGS, cache_results=True)(_rows)
"""The kernel with the blocks that are fastest on this card for this vocabulary; the interpreter takes the first."""


@dataclass(frozen=True)
class Shift:
    """The constants that are taken from X of the frozen and of the total tilt: their means under p, to first order."""

    frozen: Float[Tensor, "tokens neurons"]
    total: Float[Tensor, "tokens neurons"] | None
    """None without a soft-cap: X of the total tilt is then X1 + q·(l̃ + X1 − b̃), X1 that of the frozen one."""
    reach: Float[Tensor, "tokens neurons"]
    """An upper bound of |X| of both; without a soft-cap of that beside a fixed direction too."""

    @classmethod
    def of(cls, problem: Ablations, predictions: Predictions, fixed: FixedDirection | None) -> "Shift":
        """Of all pairs; fixed: what keeps a direction of the logits as it was, None where none is fixed."""
        if problem.softcap is not None:
            return cls._capped(problem, predictions, problem.softcap)
        mean_a = problem.path.mean(predictions.p)
        mean, reach = problem.c * mean_a, problem.c.abs() * (problem.path.size + mean_a.abs())
        if problem.along is not None:
            v, e = problem.along.v, problem.along.e
            mean_v = along_component(predictions.p, v)[:, None]
            mean, reach = mean + e * mean_v, reach + e.abs() * (v.abs().amax(dim=-1, keepdim=True) + mean_v.abs())
        reach = reach + (problem.r - 1).abs() * (predictions.deepest + reach)
        if fixed is not None:
            reach = reach + fixed.along.e.abs() * fixed.farthest
        return cls(mean, None, reach)

    @classmethod
    def _capped(cls, problem: Ablations, predictions: Predictions, cap: float) -> "Shift":
        weights = predictions.p * (1 - (problem.logits / cap).tanh().square())
        u = problem.logits if problem.b_U is None else problem.logits - problem.b_U
        q, size = problem.r - 1, problem.c.abs() * problem.path.size
        frozen = problem.c * problem.path.mean(weights)
        if problem.along is not None:
            v, e = problem.along.v, problem.along.e
            frozen = frozen + e * along_component(weights, v)[:, None]
            size = size + e.abs() * v.abs().amax(dim=-1, keepdim=True)
        total = (1 + q) * frozen + q * torch.linalg.vecdot(weights, u)[:, None]
        size = size + q.abs() * (u.abs().amax(dim=1, keepdim=True) + size)
        frozen, total = frozen.clamp(-cap, cap), total.clamp(-cap, cap)
        return cls(frozen, total, size.clamp_max(2 * cap) + torch.maximum(frozen.abs(), total.abs()))


def every_pair(problem: Ablations, before: Before) -> PairStatistics:
    """All pairs, on the device where the problem's tensors are."""
    fixed = None if problem.fixed_direction is None else FixedDirection.of(problem, before.predictions)
    shift = Shift.of(problem, before.predictions, fixed)
    wild = shift.reach > LARGEST.value
    # Read before the kernel is asked for: the card has only this batch's preparation left to do by then.
    some_are_wild = bool(wild.any())
    sums, above = _passed(problem, before, shift, fixed)
    x_frozen, x_total = _x_correct(problem, before.predictions, shift)
    loss_frozen, entropy_frozen = _changes(sums[..., 0], sums[..., 1], x_frozen)
    loss, entropy = _changes(sums[..., 2], sums[..., 3], x_total)
    found = PairStatistics(
        delta_loss=loss,
        delta_loss_frozen=loss_frozen,
        delta_entropy=entropy,
        delta_entropy_frozen=entropy_frozen,
        rank=above[..., 0].long() + 1,
        changed=above[..., 1] > 0,
        delta_loss_freq=None if fixed is None else _loss_beside(problem, sums, x_total, fixed),
        delta_kl=None if problem.p_freq is None else _distance(sums),
    )
    if some_are_wild:
        for t in wild.any(dim=1).nonzero().flatten().tolist():
            chosen_pairs(problem, before, t, wild[t].nonzero().squeeze(1), found)
    return found


def _passed(problem: Ablations, before: Before, shift: Shift, fixed: FixedDirection | None) -> tuple[Tensor, Tensor]:
    """The kernel's `sums` and `above`."""
    (tokens, n_neurons), d_vocab = problem.c.shape, problem.logits.shape[1]
    sums = torch.empty(tokens, n_neurons, 8, device=problem.c.device)
    above = torch.empty(tokens, n_neurons, 2, dtype=torch.int32, device=problem.c.device)
    nothing, predictions, along = sums, before.predictions, problem.along
    v, e_v = (nothing, nothing) if along is None else (along.v, along.e)
    w, e_w = (nothing, nothing) if fixed is None else (fixed.along.v, fixed.along.e)
    mean_w, farthest = (nothing, nothing) if fixed is None else (fixed.mean, fixed.farthest)
    b, o_total, p_freq = (nothing if given is None else given for given in (problem.b_U, shift.total, problem.p_freq))
    given = (
        problem.logits, predictions.p, problem.path.A, b, v, w, _level(problem, before), predictions.mean_b, mean_w,
        problem.targets, before.top, problem.c, problem.r - 1, shift.frozen, o_total, e_v, e_w, farthest,
        p_freq,
    )  # fmt: skip
    strides = (d_vocab if direction is not nothing and direction.ndim == 2 else 0 for direction in (v, w))

    def grid(blocks: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(tokens, blocks["T"]) * triton.cdiv(n_neurons, blocks["N"]),)

    _tuned[grid](
        *(tensor.contiguous() for tensor in given), sums, above, problem.softcap or 1.0, tokens, n_neurons, d_vocab,
        *strides, BIASED=problem.b_U is not None, ALONG=along is not None, FIXED=fixed is not None,
        CAPPED=problem.softcap is not None, DISTANT=problem.p_freq is not None, GROUP=_TOGETHER,
        V=LANES, HALVINGS=LANES.bit_length() - 1,
    )  # fmt: skip
    return sums, above


def _level(problem: Ablations, before: Before) -> Float[Tensor, "tokens"]:
    """What the final logits have above l̃, in bits: the kernel reads one of the two."""
    predictions, top = before.predictions, before.top[:, None]
    logit, l_top = problem.logits.gather(1, top).double(), predictions.log_p.gather(1, top).double()
    if problem.softcap is not None:
        logit = problem.softcap * (logit / problem.softcap).tanh()
    return ((logit - l_top + predictions.mean_l) * log2(e)).float()[:, 0]


def _x_correct(
    problem: Ablations, predictions: Predictions, shift: Shift
) -> tuple[Float64[Tensor, "tokens neurons"], Float64[Tensor, "tokens neurons"]]:
    """X of the correct token by the frozen and the total tilt."""
    q, cap = (problem.r - 1).double(), problem.softcap
    step = problem.c.double() * problem.path.of_tokens(problem.targets)
    if problem.along is not None:
        step = step + problem.along.e.double() * problem.along.of_tokens(problem.targets)[:, None]
    if cap is None or shift.total is None:
        frozen = step - shift.frozen
        l_correct, b_correct = predictions.centred_correct()
        return frozen, frozen + q * ((l_correct - b_correct)[:, None] + frozen)
    logit = problem.logits.gather(1, problem.targets[:, None]).double()
    b = 0.0 if problem.b_U is None else problem.b_U[problem.targets, None].double()
    total = step + q * (logit - b + step)
    before, after, recomputed = (cap * (y / cap).tanh() for y in (logit, logit + step, logit + total))
    return after - before - shift.frozen, recomputed - before - shift.total


def _changes(
    grown: Float[Tensor, "tokens neurons"],
    grown_y: Float[Tensor, "tokens neurons"],
    x_correct: Float64[Tensor, "tokens neurons"],
) -> tuple[Float[Tensor, "tokens neurons"], Float[Tensor, "tokens neurons"]]:
    """Changes of loss and entropy, nats, from Σ p·(e^X − 1) and, in bits, Σ p·(e^X − 1)·(l̃ + X)."""
    grown = grown.double()
    log_partition = grown.log1p()
    return (log_partition - x_correct).float(), (log_partition - log(2) * grown_y / (1 + grown)).float()


def _loss_beside(
    problem: Ablations,
    sums: Float[Tensor, "tokens neurons 8"],
    x_total: Float64[Tensor, "tokens neurons"],
    fixed: FixedDirection,
) -> Float[Tensor, "tokens neurons"]:
    """The change of loss with the logits' component along the fixed direction as it was, nats."""
    grown = sums[..., 4].double()
    if problem.softcap is None:
        return (grown.log1p() - x_total - fixed.along.e * fixed.correct.double()).float()
    moved, lower = (log(2) * sums[..., 5:7].double()).unbind(dim=-1)
    log_partition = torch.where(lower > 0, grown.log() + lower, grown.log1p())
    changed: Tensor = log_partition - x_total - moved * fixed.correct
    return changed.float()


def _distance(sums: Float[Tensor, "tokens neurons 8"]) -> Float[Tensor, "tokens neurons"]:
    """By how much D_KL(P_freq‖p) = −H(P_freq) − Σ P_freq·log p grows, nats: log Σ p·e^X − Σ P_freq·X."""
    return (sums[..., 2].double().log1p() - log(2) * sums[..., 7]).float()
