"""What repetition does, in numbers: means by position, prefix-matching scores, which heads are induction heads (§6).

A value that is not there (past the end of a short repeat, or a loss without a target) is NaN and counts nowhere.
Errors are those of the jackknife over groups of texts: repeats in one text are not independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.core.metrics.jackknife import Array, GroupSums, Ids

BASELINE_BOS_ATTENTION = 0.6
BASELINE_SCORE = 0.1
_MOST_TOGETHER = 3

Head = tuple[int, int]
"""Layer and number."""


@dataclass(frozen=True)
class Mean:
    """A mean over repeats, or what is built of such means, and its standard error; float64, NaN where there is none."""

    mean: Tensor
    se: Tensor


def mean_over(values: Tensor, groups: Ids) -> Mean:
    """Over repeats, [repeats, ...], leaving out NaN.

    Args:
        groups: of each repeat, as in `Repeats`.
    """
    return built_of({"value": values}, groups, lambda means: means["value"])


def change(first: Tensor, second: Tensor, groups: Ids) -> Mean:
    """How much more the second occurrences have than the first, paired by repeat; both [repeats, ...]."""
    return mean_over(second.double() - first.double(), groups)


def built_of(parts: Mapping[str, Tensor], groups: Ids, of: Callable[[Mapping[str, Array]], Array]) -> Mean:
    """What is built of means over repeats of several quantities, [repeats, ...] each; a repeat counts where it has all.

    Args:
        of: from the means by name.
    """
    values = {name: part.double().cpu().numpy() for name, part in parts.items()}
    estimate = GroupSums.of_present(values, groups).estimate(of)
    return Mean(torch.as_tensor(estimate.value), torch.as_tensor(estimate.error))


def percent_change(before: Tensor, change: Tensor, groups: Ids) -> Mean:
    """The mean change in percent of the mean before; both [repeats, ...]."""
    parts = {"before": before, "change": change}
    return built_of(parts, groups, lambda means: 100 * means["change"] / means["before"])


def of_repeats(values: Tensor) -> Tensor:
    """The mean of each repeat over its places, [repeats, places, ...] → [repeats, ...], leaving out NaN."""
    return values.double().nanmean(dim=1)


def prefix_matching(pattern: Tensor, sequence: Tensor, first: Tensor, second: Tensor, valid: Tensor) -> Tensor:
    """How much each head attends from a token of the second occurrence to the one after its earlier occurrence.

    Args:
        pattern: [sequences, heads, query, key]; the rest as in `Repeats`.

    Returns:
        The mean over a repeat's tokens, [repeats, heads].
    """
    scores = pattern[sequence[:, None], :, second, (first + 1).clamp_max(pattern.shape[-1] - 1)]
    weight = valid.to(scores)[..., None]
    return (scores * weight).sum(dim=1) / weight.sum(dim=1)


def first_token_attention(pattern: Tensor) -> Tensor:
    """Each head's mean attention to the first token, from all later ones, [sequences, heads]."""
    return pattern[:, :, 1:, 0].mean(dim=2)


def induction_heads(scores: Tensor, count: int) -> list[Head]:
    """The heads with the highest prefix-matching scores, [layers, heads], best first."""
    heads = scores.shape[1]
    best = scores.flatten().topk(min(count, scores.numel())).indices.tolist()
    return [(place // heads, place % heads) for place in best]


def baseline_heads(scores: Tensor, bos: Tensor, chosen: Sequence[Head], count: int, seed: int) -> list[Head]:
    """Heads that look at the first token (> 0.6) and match no prefixes (< 0.1), drawn at random from the layers of the
    chosen heads; where these have too few, from the nearest layers that have some.

    Args:
        scores, bos: [layers, heads].
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
