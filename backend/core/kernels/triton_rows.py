"""The CUDA kernel, in Triton: every pair from one pass over the vocabulary, for a few tokens and neurons at a time.

A program loads each tile of A once and uses it for all of its tokens, so that memory is not the limit: the exponentials
are, two a (token, neuron, vocabulary) triple. Partial sums stay in float32, one a lane, and are added up at the end.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from backend.core.kernels.problem import Ablations, Before, FixedDirection
from backend.core.kernels.sums import write_losses_and_entropies
from backend.core.metrics.effects import PairStatistics

_TOKENS, _NEURONS, _VOCABULARY = 4, 8, 64


@triton.jit
def _rows(
    logits, log_p, p, A, b, mean_l, mean_b, mean_a, c_, q_, targets, tops, v_, mean_v, e_, sums, above, n_tokens,
    n_neurons, d_vocab, v_stride, BIASED: tl.constexpr, FIXED: tl.constexpr, T: tl.constexpr, N: tl.constexpr,
    V: tl.constexpr,
):  # fmt: skip
    """sums [n_tokens, n_neurons, 5] as `sums.py` has them, and last Σ p·(e^X − 1) beside a fixed direction where
    FIXED; above [n_tokens, n_neurons, 2]."""
    t = tl.program_id(1) * T + tl.arange(0, T)
    i = tl.program_id(0) * N + tl.arange(0, N)
    t_in, i_in = t < n_tokens, i < n_neurons
    pair = t[:, None] * n_neurons + i[None, :]
    pair_in = t_in[:, None] & i_in[None, :]
    c = tl.load(c_ + pair, mask=pair_in, other=0.0)
    q = tl.load(q_ + pair, mask=pair_in, other=0.0)
    o = tl.load(mean_a + pair, mask=pair_in, other=0.0)[:, :, None]
    target = tl.load(targets + t, mask=t_in, other=0)
    top = tl.load(tops + t, mask=t_in, other=0)
    m = tl.load(mean_l + t, mask=t_in, other=0.0)[:, None, None]
    n = tl.load(mean_b + t, mask=t_in, other=0.0)[:, None, None]
    row = t.to(tl.int64) * d_vocab
    neuron = i.to(tl.int64) * d_vocab
    correct = tl.load(logits + row + target, mask=t_in, other=0.0)[:, None] + c * tl.load(
        A + neuron[None, :] + target[:, None], mask=pair_in, other=0.0
    )
    best = tl.load(logits + row + top, mask=t_in, other=0.0)[:, None] + c * tl.load(
        A + neuron[None, :] + top[:, None], mask=pair_in, other=0.0
    )
    if BIASED:
        correct += q * (correct - tl.load(b + target, mask=t_in, other=0.0)[:, None])
        best += q * (best - tl.load(b + top, mask=t_in, other=0.0)[:, None])
    s0 = tl.zeros((T, N, V), tl.float32)
    s1 = tl.zeros((T, N, V), tl.float32)
    t0 = tl.zeros((T, N, V), tl.float32)
    t1 = tl.zeros((T, N, V), tl.float32)
    fixed = tl.zeros((T, N, V), tl.float32)
    e = tl.zeros((T, N), tl.float32)[:, :, None]
    w = tl.zeros((T,), tl.float32)[:, None, None]
    if FIXED:
        e = tl.load(e_ + pair, mask=pair_in, other=0.0)[:, :, None]
        w = tl.load(mean_v + t, mask=t_in, other=0.0)[:, None, None]
    n_correct = tl.zeros((T, N, V), tl.int32)
    n_best = tl.zeros((T, N, V), tl.int32)
    for start in range(0, d_vocab, V):
        v = start + tl.arange(0, V)
        v_in = v < d_vocab
        here = t_in[:, None] & v_in[None, :]
        L = tl.load(logits + row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
        l = tl.load(log_p + row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]  # noqa: E741
        weight = tl.load(p + row[:, None] + v[None, :], mask=here, other=0.0)[:, None, :]
        a = tl.load(A + neuron[:, None] + v[None, :], mask=i_in[:, None] & v_in[None, :], other=0.0)[None, :, :]
        x = c[:, :, None] * (a - o)
        y = l - m + x
        after = L + c[:, :, None] * a
        u = y
        if BIASED:
            bias = tl.load(b + v, mask=v_in, other=0.0)[None, None, :]
            u = y - (bias - n)
            after += q[:, :, None] * (after - bias)
        z = q[:, :, None] * u
        frozen = weight * (tl.exp(x) - 1.0)
        more = (weight + frozen) * (tl.exp(z) - 1.0)
        s0 += frozen
        s1 += frozen * y
        t0 += more
        if BIASED:
            t1 += more * (y + z) + frozen * z
        else:
            t1 += more * y
        if FIXED:
            along = tl.load(v_ + t.to(tl.int64)[:, None] * v_stride + v[None, :], mask=here, other=0.0)[:, None, :] - w
            fixed += weight * (tl.exp(x + z + e * along) - 1.0)
        n_correct += ((after > correct[:, :, None]) & (v[None, None, :] != target[:, None, None])
                      & v_in[None, None, :]).to(tl.int32)  # fmt: skip
        n_best += ((after > best[:, :, None]) & (v[None, None, :] != top[:, None, None])
                   & v_in[None, None, :]).to(tl.int32)  # fmt: skip
    tl.store(sums + pair * 5, tl.sum(s0, axis=2), mask=pair_in)
    tl.store(sums + pair * 5 + 1, tl.sum(s1, axis=2), mask=pair_in)
    tl.store(sums + pair * 5 + 2, tl.sum(t0, axis=2), mask=pair_in)
    tl.store(sums + pair * 5 + 3, tl.sum(t1, axis=2), mask=pair_in)
    tl.store(sums + pair * 5 + 4, tl.sum(fixed, axis=2), mask=pair_in)
    tl.store(above + pair * 2, tl.sum(n_correct, axis=2), mask=pair_in)
    tl.store(above + pair * 2 + 1, tl.sum(n_best, axis=2), mask=pair_in)


def every_pair(problem: Ablations, before: Before) -> PairStatistics:
    """All pairs, on the device where the problem's tensors are."""
    problem.require_along_none("Triton")
    tokens, n_neurons = problem.c.shape
    d_vocab = problem.logits.shape[1]
    predictions = before.predictions
    mean_a, device = problem.path.mean(predictions.p), problem.c.device
    sums = torch.empty(tokens, n_neurons, 5, device=device)
    above = torch.empty(tokens, n_neurons, 2, dtype=torch.int32, device=device)
    b = problem.logits if problem.b_U is None else problem.b_U  # a pointer that is not followed where there is no bias
    fixed = None if problem.fixed_direction is None else FixedDirection.of(problem, predictions)
    along = (b, b, b) if fixed is None else (fixed.along.v, fixed.mean, fixed.along.e)
    grid = (triton.cdiv(n_neurons, _NEURONS), triton.cdiv(tokens, _TOKENS))
    _rows[grid](
        *_contiguous(problem.logits, predictions.log_p, predictions.p, problem.path.A, b),
        *_contiguous(predictions.mean_l, predictions.mean_b, mean_a, problem.c, problem.r - 1),
        *_contiguous(problem.targets, before.top, *along),
        sums, above, tokens, n_neurons, d_vocab, d_vocab if along[0].ndim == 2 else 0,
        BIASED=problem.b_U is not None, FIXED=fixed is not None, T=_TOKENS, N=_NEURONS, V=_VOCABULARY,
    )  # fmt: skip
    out = problem.room()
    pairs = torch.ones_like(problem.c).nonzero(as_tuple=True)
    write_losses_and_entropies(problem, predictions, mean_a, (pairs[0], pairs[1]), sums[..., :4].flatten(0, 1), out)
    if fixed is not None and out.delta_loss_freq is not None:
        x_correct = fixed.x_correct(problem, predictions, mean_a)
        out.delta_loss_freq.copy_(sums[..., 4].double().log1p() - x_correct)
    out.rank.copy_(above[..., 0].long() + 1)
    out.changed.copy_(above[..., 1] > 0)
    return out


def _contiguous(*tensors: Tensor) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]
