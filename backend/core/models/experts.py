"""Mixtures of experts: a layer's neurons as one row of activations, read and replaced where the model computes them.

Of every token a router chooses some experts and weighs them; a shared expert, where there is one, every token passes. A
neuron's activation is what its row of W_out is multiplied by, the router's weight in it: weight · act(gate) · up, and 0
at tokens for which the router does not choose its expert. Experts follow each other, a shared one comes last
(`core/neurons.Experts`).

transformers keeps all of a layer's experts in two tensors and never forms that row. The model itself is left as it is:
while a hook looks on, the row is formed from what the layer reads, and what hooks have replaced in it is added to what
the layer wrote. `core/models/self_check.py` sees on every load that row · W_out is what the layer writes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from backend.core.errors import UnsupportedModel
from backend.core.metrics.attribution import InputDirection
from backend.core.neurons import Experts


@dataclass(frozen=True)
class Parts:
    """What the parts of a family's mixture are called, in the module that stands where other models have an MLP."""

    router: str = "gate"
    """Gives logits, the weights of the chosen experts and which these are."""
    shared: str | None = None
    """The expert that every token passes, a gated MLP."""
    shared_gate: str | None = None
    """What the shared expert's weight is the sigmoid of; None where it is 1."""


PARTS: dict[str, Parts] = {
    "MixtralSparseMoeBlock": Parts(),
    "OlmoeSparseMoeBlock": Parts(),
    "Qwen3MoeSparseMoeBlock": Parts(),
    "Qwen2MoeSparseMoeBlock": Parts(shared="shared_expert", shared_gate="shared_expert_gate"),
    "GptOssMLP": Parts(router="router"),
    "GraniteMoeMoE": Parts(router="router"),
}
"""By the class of transformers."""


class MixtureLayer:
    """The mixture of one layer of a model: what its neurons write, and its activations while hooks look on."""

    def __init__(self, block: Any, parts: Parts) -> None:
        """
        Args:
            block: the module of transformers.
        """
        self._router, self._experts = getattr(block, parts.router), original(block.experts)
        self._shared = None if parts.shared is None else original(getattr(block, parts.shared))
        self._shared_gate = None if parts.shared_gate is None else getattr(block, parts.shared_gate)
        down = self._experts.down_proj
        self._transposed = bool(self._experts.is_transposed)
        count, width = int(down.shape[0]), int(down.shape[1 if self._transposed else 2])
        self.experts = Experts(
            count, width, 0 if self._shared is None else int(_weight(self._shared.down_proj).shape[1])
        )

    @property
    def W_out(self) -> Float[Tensor, "neurons d_model"]:
        """What each neuron writes for a unit of activation."""
        down = self._experts.down_proj.detach()
        rows = (down if self._transposed else down.transpose(1, 2)).flatten(0, 1)
        return rows if self._shared is None else torch.cat([rows, _weight(self._shared.down_proj).detach().T])

    def written_by(self, neurons: Int[Tensor, "neurons"]) -> Float[Tensor, "neurons d_model"]:
        """The rows of W_out of some neurons; all of it need not be formed."""
        down, end = self._experts.down_proj.detach(), self.experts.count * self.experts.width
        routed = neurons[neurons < end]
        expert, place = routed // self.experts.width, routed % self.experts.width
        rows: Tensor = down[expert, place] if self._transposed else down[expert, :, place]
        if self._shared is None:
            return rows
        return torch.cat([rows, _weight(self._shared.down_proj).detach()[:, neurons[neurons >= end] - end].T])

    def input_directions(self, neurons: list[int]) -> list[InputDirection]:
        """What neurons' up-projections and gates read."""
        return [self._reads("up", neurons), self._reads("gate", neurons)]

    def _reads(self, reads: Literal["up", "gate"], neurons: list[int]) -> InputDirection:
        rows, biases = zip(*(self._read_by(reads, neuron) for neuron in neurons), strict=True)
        b = torch.stack(biases).float() if self._experts.has_bias else None
        return InputDirection(reads, torch.stack(rows, dim=1).float(), b)

    def _read_by(self, reads: Literal["up", "gate"], neuron: int) -> tuple[Tensor, Tensor]:
        """The direction that a neuron's up-projection or gate reads, [d_model], and its bias; 0 where it has none."""
        experts, start = self._experts, self.experts.count * self.experts.width
        if neuron >= start:
            row = _weight(getattr(self._shared, f"{reads}_proj")).detach()[neuron - start]
            return row, row.new_zeros(())
        expert, place = divmod(neuron, self.experts.width)
        half, both = reads == "up", experts.gate_up_proj.detach()[expert]
        # All gates before all up-projections, or each gate before its up-projection.
        column = place + half * self.experts.width if experts.is_concatenated else 2 * place + half
        row = both[:, column] if self._transposed else both[column]
        return row, experts.gate_up_proj_bias.detach()[expert, column] if experts.has_bias else row.new_zeros(())

    def activations(
        self, read: Float[Tensor, "tokens d_model"]
    ) -> tuple[Float[Tensor, "tokens neurons"], Float[Tensor, "tokens d_model"]]:
        """All activations, and what the chosen experts' output biases write beside the neurons.

        Args:
            read: what the layer reads, after its norm.
        """
        experts, layout = self._experts, self.experts
        _, weights, chosen = self._router(read)
        routed = read.new_zeros(len(read), layout.count, layout.width)
        written = torch.zeros_like(read)
        for expert in chosen.unique().tolist():
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            weight = weights[rows, places, None].to(read.dtype)
            W = experts.gate_up_proj[expert]
            both = read[rows] @ (W if self._transposed else W.T)
            both = both + experts.gate_up_proj_bias[expert] if experts.has_bias else both
            routed[rows, expert] = experts._apply_gate(both) * weight
            if experts.has_bias:
                written.index_add_(0, rows, weight * experts.down_proj_bias[expert])
        activations = routed.flatten(1)
        return (
            activations if self._shared is None else torch.cat([activations, self._of_shared(read)], dim=1)
        ), written

    def _of_shared(self, read: Tensor) -> Tensor:
        shared: Any = self._shared
        activations: Tensor = shared.act_fn(shared.gate_proj(read)) * shared.up_proj(read)
        return activations if self._shared_gate is None else self._shared_gate(read).sigmoid() * activations


class HookedMixture:
    """A mixture's activations as a hook point of the bridge, under the name that other models' activations have."""

    def __init__(self, mlp: Any, mixture: MixtureLayer) -> None:
        """
        Args:
            mlp: the bridge's, before it looks for its hook points.
        """
        from transformer_lens.hook_points import HookPoint

        new: Callable[[], Any] = HookPoint  # which says no types
        self._mixture, self._activations, self._biases = mixture, new(), new()
        mlp.hook_expert_activations, mlp.hook_expert_biases = self._activations, self._biases
        # Where the bridge knows no neurons it gives this name to what the layer writes.
        mlp.hook_aliases = mlp.hook_aliases | {"hook_post": "hook_expert_activations"}
        original(mlp).register_forward_hook(self._look, with_kwargs=True)

    def _look(self, block: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if not (self._activations.has_hooks() or self._biases.has_hooks()):
            return None
        read = given[0] if given else next(iter(named.values()))
        before, biases = (part.unflatten(0, read.shape[:-1]) for part in self._mixture.activations(read.flatten(0, -2)))
        self._biases(biases)
        after = self._activations(before)
        if after is before:
            return None
        changes = after - before
        neurons = changes.flatten(0, -2).any(dim=0).nonzero().squeeze(1)
        added = changes[..., neurons] @ self._mixture.written_by(neurons)
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added


def hook_mixtures(bridge: Any, name: str) -> bool:
    """Make the activations of a model's mixtures hook points; whether it has any.

    Args:
        bridge: before it looks for its hook points.

    Raises:
        UnsupportedModel: a mixture of a kind that is not known, or layers of which only some have experts.
    """
    routed = [block.mlp for block in bridge.blocks if hasattr(original(block.mlp), "experts")]
    unknown = {type(original(mlp)).__name__ for mlp in routed} - set(PARTS)
    if unknown:
        raise UnsupportedModel(
            f"{name}: its MLPs route between experts in a way that is not supported ({unknown.pop()}). Supported are "
            "those of Mixtral, OLMoE, Qwen 2 and 3 MoE, gpt-oss and Granite MoE."
        )
    mixtures = mixtures_of(bridge)
    if mixtures and (len(mixtures) < len(bridge.blocks) or len({one.experts for one in mixtures.values()}) > 1):
        raise UnsupportedModel(
            f"{name}: only some of its layers have experts, or not all as many, so that there is no one form of names "
            "for its neurons. Models of this kind are not supported yet."
        )
    for layer, mixture in mixtures.items():
        HookedMixture(bridge.blocks[layer].mlp, mixture)
    return bool(mixtures)


def mixtures_of(bridge: Any) -> dict[int, MixtureLayer]:
    """The mixtures of a model by layer; none of a model without experts."""
    modules = {layer: original(block.mlp) for layer, block in enumerate(bridge.blocks)}
    kinds = {layer: PARTS.get(type(module).__name__) for layer, module in modules.items()}
    return {layer: MixtureLayer(modules[layer], parts) for layer, parts in kinds.items() if parts is not None}


def original(module: Any) -> Any:
    """The module of transformers behind the bridge's."""
    while isinstance(getattr(module, "original_component", None), nn.Module):
        module = module.original_component
    return module


def _weight(linear: Any) -> Tensor:
    weight: Tensor = original(linear).weight
    return weight
