"""The slow way, in float64, through the unmodified Hugging Face model: what every fast number is checked against.

Nothing here comes from `backend.core`. A neuron is ablated by replacing one column of the input of the last layer's
output projection, a neuron of an expert by taking away its output weights and adding what it shall write; the frozen
norm replaces the final norm by one that divides by the un-ablated scale. Weight processing (folding, centring) must not
change any of these numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tests.reference.tiny_models import Family

Edit = tuple[nn.Module, slice, Tensor]
"""A module, columns of its input, and the values they are set to."""
_HEADS_OUT = frozenset({"c_proj", "dense", "out_proj", "o_proj"})


@dataclass
class Outcome:
    """Per-token results of one forward pass, each [positions] (the last position has no target and is left out)."""

    loss: Tensor
    entropy: Tensor
    rank: Tensor
    top: Tensor


class Reference:
    """The original model in float64."""

    def __init__(self, folder: str, family: Family) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
        ).eval()
        self.family = family
        self.mlp_out = _at(self.model, family.mlp_out)
        self.final_norm = _at(self.model, family.final_norm) if family.final_norm else None

    def activations(self, tokens: Tensor) -> Tensor:
        """The last layer's, [positions, d_mlp]."""
        return self.inputs_of(self.mlp_out, tokens)

    def unhooked(self, tokens: Tensor) -> Outcome:
        """With nothing of the model replaced, not even its norm by the same norm written out."""
        return _outcome(self._logits(tokens), tokens)

    def plain(self, tokens: Tensor) -> Outcome:
        with self._norm(lambda scale: scale):
            return _outcome(self._logits(tokens), tokens)

    def ablated(self, tokens: Tensor, neuron: int, target: float, *, frozen: bool) -> Outcome:
        """With the last layer's neuron set to `target` at every position."""
        return self.edited(tokens, [(self.mlp_out, slice(neuron, neuron + 1), torch.tensor([target]))], frozen=frozen)

    def edited(self, tokens: Tensor, edits: list[Edit], *, frozen: bool) -> Outcome:
        """With columns of some modules' inputs set to given values at every position."""
        return _outcome(self.edited_logits(tokens, edits, frozen=frozen), tokens)

    def edited_logits(self, tokens: Tensor, edits: list[Edit], *, frozen: bool) -> Tensor:
        """The logits behind `edited`, [positions, d_vocab]."""
        own_scale: list[Tensor] = []

        def kept(scale: Tensor) -> Tensor:
            own_scale.append(scale)
            return scale

        with self._norm(kept):
            self._logits(tokens)

        with ExitStack() as stack:
            for module, columns, values in edits:
                stack.enter_context(_set(module, columns, values))
            own = iter(own_scale)  # NanoChat norms the embedding by the same module first
            stack.enter_context(self._norm((lambda _: next(own)) if frozen else (lambda scale: scale)))
            return self._logits(tokens)

    def ablated_logits(self, tokens: Tensor, neuron: int, target: float, layer: int = -1) -> Tensor:
        """Logits with a neuron set to `target` at every position, [positions, d_vocab]."""
        module = self.mlp_out if layer == -1 else self.neurons_of(layer)
        with _set(module, slice(neuron, neuron + 1), torch.tensor([target])):
            return self._logits(tokens)

    def frequency(self, tokens: Tensor, p_freq: Any) -> "FrequencyReference":
        """What token frequencies, [d_vocab], say of the plain logits and of others."""
        return FrequencyReference(self._logits(tokens)[:-1].double(), tokens[1:], torch.as_tensor(p_freq))

    def neurons_of(self, layer: int) -> nn.Module:
        """The module whose input are a layer's activations."""
        return _at(self.model, self.family.mlp_out.replace("-1", str(layer)))

    def heads_of(self, layer: int) -> nn.Module:
        """The module whose input are the outputs of a layer's heads, one after the other."""
        modules: Iterator[tuple[str, nn.Module]] = self.block(layer).named_modules()
        return next(module for name, module in modules if name.split(".")[-1] in _HEADS_OUT and "att" in name)

    def block(self, layer: int) -> nn.Module:
        """One of the model's blocks."""
        return _at(self.model, self.family.mlp_out.split("-1")[0] + str(layer))

    def inputs_of(self, module: nn.Module, tokens: Tensor, edits: Sequence[Edit] = ()) -> Tensor:
        """What a module reads, [positions, width], while columns of other modules' inputs are set to given values."""
        seen: list[Tensor] = []
        with ExitStack() as stack:
            for edited, columns, values in edits:
                stack.enter_context(_set(edited, columns, values))
            stack.enter_context(_hooked(module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))))
            self._logits(tokens)
        read = seen[0].reshape(-1, seen[0].shape[-1])
        return _of_experts(module, read) if hasattr(module, "experts") else read

    def _logits(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model(tokens[None]).logits
            return logits[0]

    @contextmanager
    def _norm(self, choose: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """The final norm written out (Eq. 2) in float64, dividing by what `choose` makes of its own scale."""
        module: Any = self.final_norm  # its attributes are named as its family names them
        kind = self.family.norm
        if kind == "none":
            yield
            return
        eps = _part(module, "eps", _part(module, "variance_epsilon", 1e-5))
        weight, shift = _part(module, "weight", 0.0 if kind.endswith("1") else 1.0), _part(module, "bias", 0.0)
        gain = weight + 1 if kind.endswith("1") else weight

        def written_out(_: nn.Module, inputs: tuple[Tensor, ...], __: Any) -> Tensor:
            x = inputs[0] - inputs[0].mean(-1, keepdim=True) if kind.startswith("layer") else inputs[0]
            scale = (x.square().mean(-1, keepdim=True) + eps).sqrt()
            normed: Tensor = x / choose(scale) * gain + shift
            return normed

        with _hooked(module.register_forward_hook(written_out)):
            yield


@dataclass
class FrequencyReference:
    """Section 4 written out."""

    logits: Tensor
    """Without ablation, [positions, d_vocab]."""
    targets: Tensor
    p_freq: Tensor

    def divergence(self, logits: Tensor | None) -> Tensor:
        """D_KL(P_freq‖P) of other logits (their last position is left out), or of the plain ones."""
        log_p = (self.logits if logits is None else logits[:-1]).log_softmax(-1)
        return (self.p_freq * (self.p_freq.log() - log_p)).sum(-1)

    def held_loss(self, logits: Tensor) -> Tensor:
        """The change of loss with the component along v_freq as it was (Eq. 7-8)."""
        log_p = self.p_freq.log()
        v = log_p - log_p.mean()
        before, after = self.logits, logits[:-1]
        held = after - (after @ v - before @ v)[:, None] * v / (v @ v)
        losses = [-y.log_softmax(-1).gather(1, self.targets[:, None])[:, 0] for y in (held, before)]
        return losses[0] - losses[1]


def _outcome(logits: Tensor, tokens: Tensor) -> Outcome:
    logits, targets = logits[:-1].double(), tokens[1:]
    log_p = logits.log_softmax(-1)
    correct = logits.gather(1, targets[:, None])
    return Outcome(
        loss=-log_p.gather(1, targets[:, None])[:, 0],
        entropy=-(log_p.exp() * log_p).sum(-1),
        rank=(logits > correct).sum(-1) + 1,
        top=logits.argmax(-1),
    )


def _at(model: nn.Module, path: str) -> nn.Module:
    found: Any = model
    for part in path.split("."):
        found = found[int(part)] if part.lstrip("-").isdigit() else getattr(found, part)
    module: nn.Module = found
    return module


def _part(module: Any, name: str, otherwise: float) -> Any:
    value = getattr(module, name, None)
    return otherwise if value is None else value


@contextmanager
def _hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _set(module: nn.Module, columns: slice, values: Tensor) -> Iterator[None]:
    """Columns of what a module reads, or the neurons of a mixture of experts, set to given values."""
    if not hasattr(module, "experts"):
        with _hooked(module.register_forward_pre_hook(_replacing(columns, values))):
            yield
        return
    with ExitStack() as stack:
        rows = [stack.enter_context(_silenced(module, neuron)) for neuron in range(columns.start, columns.stop)]

        def add(_: nn.Module, __: Any, output: Any) -> Any:
            written = values.to(torch.float64) @ torch.stack(rows)
            return (output[0] + written, *output[1:]) if isinstance(output, tuple) else output + written

        stack.enter_context(_hooked(module.register_forward_hook(add)))
        yield


@contextmanager
def _silenced(mixture: Any, neuron: int) -> Iterator[Tensor]:
    """A neuron of an expert whose output weights are 0; gives what they were, [d_model]."""
    down = mixture.experts.down_proj.data
    is_transposed = down.shape[1] < down.shape[2]  # an expert has fewer neurons than the stream has dimensions
    by_expert = down if is_transposed else down.transpose(1, 2)
    count, width, _ = by_expert.shape
    shared = neuron >= count * width
    row = (
        mixture.shared_expert.down_proj.weight.data[:, neuron - count * width]
        if shared
        else by_expert[divmod(neuron, width)]
    )
    kept = row.clone()
    row.zero_()
    try:
        yield kept
    finally:
        row.copy_(kept)


def _of_experts(mixture: Any, read: Tensor) -> Tensor:
    """The activations of a mixture's neurons, [positions, neurons]: how much of its output weights is missing from what
    the mixture writes where the neuron has none."""

    def written() -> Tensor:
        with torch.no_grad():
            output = mixture(read[None])
        whole: Tensor = output[0] if isinstance(output, tuple) else output
        return whole.reshape(len(read), -1)

    whole, columns = written(), []
    down = mixture.experts.down_proj
    shared = getattr(mixture, "shared_expert", None)
    neurons = down.numel() // read.shape[1] + (0 if shared is None else shared.down_proj.weight.shape[1])
    for neuron in range(neurons):
        with _silenced(mixture, neuron) as row:
            columns.append((whole - written()) @ row / row.square().sum())
    return torch.stack(columns, dim=1)


def _replacing(columns: slice, values: Tensor) -> Any:
    """A hook that sets columns of what a module reads."""

    def replace(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        changed = inputs[0].clone()
        changed[..., columns] = values.to(changed)
        return (changed,)

    return replace
