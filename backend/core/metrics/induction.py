"""What repetition does, in numbers: means by position, prefix-matching scores, which heads are induction heads (§6).

A value that is not there (past the end of a short repeat, or a loss without a target) is NaN and counts nowhere.
Errors are those of the jackknife over groups of texts: repeats in one text are not independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor

from backend.core.metrics.jackknife import Array, GroupSums, Ids

BASELINE_BOS_ATTENTION = 0.6
BASELINE_SCORE = 0.1
_MOST_TOGETHER = 3

Head = tuple[int, int]
"""Layer and number."""


@dataclass(frozen=True)
class Mean:
    """A mean over repeats, or what is built of such means, and its standard error; NaN where there is none."""

    mean: Float64[Tensor, "..."]
    se: Float64[Tensor, "..."]


def mean_over(values: Float[Tensor, "repeats ..."], groups: Int64[Ids, "repeats"]) -> Mean:
    """The mean over repeats, leaving out NaN.

    Args:
        groups: that of each repeat, as `Repeats.groups` has them.
    """
    return built_of({"value": values}, groups, lambda means: means["value"])


def change(
    first: Float[Tensor, "repeats ..."], second: Float[Tensor, "repeats ..."], groups: Int64[Ids, "repeats"]
) -> Mean:
    """How much more the second occurrences have than the first, paired by repeat."""
    return mean_over(second.double() - first.double(), groups)


def built_of(
    parts: Mapping[str, Float[Tensor, "repeats ..."]],
    groups: Int64[Ids, "repeats"],
    of: Callable[[Mapping[str, Array]], Array],
) -> Mean:
    """What is built of means over repeats of several quantities; a repeat counts where it has all.

    Args:
        parts: the quantities by name, of one shape.
        of: from the means by name.
    """
    values = {name: part.double().cpu().numpy() for name, part in parts.items()}
    estimate = GroupSums.of_present(values, groups).estimate(of)
    return Mean(torch.as_tensor(estimate.value), torch.as_tensor(estimate.error))


def percent_change(
    before: Float[Tensor, "repeats ..."], change: Float[Tensor, "repeats ..."], groups: Int64[Ids, "repeats"]
) -> Mean:
    """The mean change in percent of the mean before."""
    parts = {"before": before, "change": change}
    return built_of(parts, groups, lambda means: 100 * means["change"] / means["before"])


def of_repeats(values: Float[Tensor, "repeats places ..."]) -> Float64[Tensor, "repeats ..."]:
    """The mean of each repeat over its places, leaving out NaN."""
    return values.double().nanmean(dim=1)


def prefix_matching(
    pattern: Float[Tensor, "sequences heads query key"],
    sequence: Int[Tensor, "repeats"],
    first: Int[Tensor, "repeats span"],
    second: Int[Tensor, "repeats span"],
    valid: Bool[Tensor, "repeats span"],
) -> Float[Tensor, "repeats heads"]:
    """How much each head attends from a token of the second occurrence to the one after its earlier occurrence: the
    mean over a repeat's tokens, 0 to 1 (§6).

    Args:
        pattern: the heads' attention on the sequences; the rest as in `Repeats`.
    """
    scores = pattern[sequence[:, None], :, second, (first + 1).clamp_max(pattern.shape[-1] - 1)]
    weight = valid.to(scores)[..., None]
    return (scores * weight).sum(dim=1) / weight.sum(dim=1)


def first_token_attention(
    pattern: Float[Tensor, "sequences heads query key"],
) -> Float[Tensor, "sequences heads"]:
    """Each head's mean attention to the first token, from all later ones, 0 to 1."""
    return pattern[:, :, 1:, 0].mean(dim=2)


def induction_heads(scores: Float[Tensor, "layers heads"], count: int) -> list[Head]:
    """The heads with the highest prefix-matching scores, best first; `count` of them, or all that there are."""
    heads = scores.shape[1]
    best = scores.flatten().topk(min(count, scores.numel())).indices.tolist()
    return [(place // heads, place % heads) for place in best]


def baseline_heads(
    scores: Float[Tensor, "layers heads"],
    bos: Float[Tensor, "layers heads"],
    chosen: Sequence[Head],
    count: int,
    seed: int,
) -> list[Head]:
    """Heads that look at the first token (> 0.6) and match no prefixes (< 0.1), drawn at random from the layers of the
    chosen heads; where these have too few, from the nearest layers that have some.

    Args:
        scores: prefix-matching scores.
        bos: attention to the first token.
        count: how many there are at most.
    """
    fits = (bos > BASELINE_BOS_ATTENTION) & (scores < BASELINE_SCORE)
    able = [(int(layer), int(head)) for layer, head in fits.nonzero().tolist() if (layer, head) not in chosen]
    order = torch.randperm(len(able), generator=torch.Generator().manual_seed(seed)).tolist()
    layers = {layer for layer, _ in chosen} or {0}
    shuffled = [able[place] for place in order]
    return sorted(shuffled, key=lambda head: min(abs(head[0] - layer) for layer in layers))[:count]


def knocked_out(heads: Sequence[Head]) -> list[list[Head]]:
    """Which heads are changed together: each alone, the first two, the first three."""
    together = [list(heads[:n]) for n in range(2, min(_MOST_TOGETHER, len(heads)) + 1)]
    return [*([head] for head in heads), *together]
