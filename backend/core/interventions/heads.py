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

from backend.core.models.analysis_model import AnalysisModel, Hooks
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

    return [(f"blocks.{layer}.attn.hook_z", replacing(own)) for layer, own in by_layer.items()]


def prefixes(model: AnalysisModel, tokens: Tensor, layers: Iterable[int]) -> dict[int, Tensor]:
    """The residual stream before some layers, from one pass: [batch, position, d_model] by layer."""
    wanted = sorted(set(layers))
    names = {layer: f"blocks.{layer}.hook_resid_pre" for layer in wanted}
    _, kept = model.run(tokens, *names.values(), stop_at_layer=wanted[-1] + 1)
    return {layer: kept[name] for layer, name in names.items()}


def continued(model: AnalysisModel, prefix: Tensor, layer: int, hooks: Hooks) -> tuple[Tensor, Tensor]:
    """From the residual stream before a layer on: that after the last block, and the last layer's activations."""
    kept: list[Tensor] = []

    def keep(activations: Tensor, hook: Any) -> None:
        kept.append(activations.detach().float())

    residual = model.continued(prefix, layer, [*hooks, (f"blocks.{model.last_layer}.mlp.hook_post", keep)])
    return residual, kept[-1]
