"""Forward passes with attention heads knocked out.

A head that attends to the first token alone writes the same everywhere: that token's value, which is its own output z
at the first position, where it can attend to nothing else. So BOS ablation sets z to z of position 0. Replacing the
pattern would say the same, but for some families (OPT, GPT-Neo) TransformerLens only tells the pattern, and what is put
in its place changes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor

from backend.core.models import hook_points
from backend.core.models.analysis_model import Hooks
from backend.core.neurons import HeadId


def bos_hooks(heads: Iterable[HeadId]) -> Hooks:
    """Heads attend to the first token alone, at every position."""

    def replace(z: Tensor, head: HeadId) -> Tensor:
        return z[:, :1, head.index]

    return head_hooks(heads, replace)


def output_hooks(heads: Iterable[HeadId], outputs: Mapping[HeadId, Tensor]) -> Hooks:
    """Heads write the same at every position: z is replaced by a given one, [d_head]."""

    def replace(z: Tensor, head: HeadId) -> Tensor:
        return outputs[head].to(z)

    return head_hooks(heads, replace)


def head_hooks(heads: Iterable[HeadId], value: Callable[[Tensor, HeadId], Tensor]) -> Hooks:
    """Hooks that replace each head's z by `value(z of all heads, head)`, at every position that is run."""
    by_layer: dict[int, list[HeadId]] = defaultdict(list)
    for head in heads:
        by_layer[head.layer].append(head)

    def replacing(own: list[HeadId]) -> Any:
        def replace(z: Tensor, hook: Any) -> Tensor:
            changed = z.clone()
            for head in own:
                changed[:, :, head.index] = value(z, head)
            return changed

        return replace

    return [(hook_points.head_outputs(layer), replacing(own)) for layer, own in by_layer.items()]
