"""Weight processing in place (Appendix C): norms folded, what is written and read out centred, with no second copy.

TransformerLens' bridge knows how each family's weights are folded and centred, but copies all of them several times on
the way. Here it is handed tensors that nobody else has, and its copies are left out: each tensor is freed as soon as
its processed one is there. The unembedding is folded and centred here, in float32 whatever the weights' type, and the
bridge reads the very matrix that the readout has.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ROWS_AT_ONCE = 512
"""Tokens of the vocabulary whose rows are folded together."""
_UNEMBEDDING, _BIAS, _GAIN, _NORM_BIAS = "unembed.weight", "unembed.bias", "ln_final.weight", "ln_final.bias"
_HALVES = (torch.bfloat16, torch.float16)


def process(bridge: Any, **options: bool) -> None:
    """Process a booted bridge's weights, and give it the names and hook points of TransformerLens.

    Args:
        options: what TransformerLens is told to leave out.

    Raises:
        ValueError, NotImplementedError, KeyError, AttributeError, RuntimeError: TransformerLens does not know how.
    """
    here, no_copies = _folds_here(bridge), _NoCopies()
    with _one_copy(bridge, here, no_copies), no_copies:
        bridge.enable_compatibility_mode(disable_warnings=True, center_unembed=not here, **options)


class _NoCopies(TorchFunctionMode):
    """Leaves out what TransformerLens copies so as not to change what it is given: nobody else has it here.

    What is copied is dropped where it was, so that it is freed once its processed tensor is there. Half-precision
    tensors are not widened beforehand, all at once: products of them are rounded once as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, Tensor | None] = {}
        self._names: dict[int, str] = {}

    def give(self, tensors: dict[str, Tensor]) -> None:
        """Watch over the tensors that TransformerLens is handed."""
        self._given, self._names = tensors, {id(tensor): name for name, tensor in tensors.items()}  # type: ignore[assignment]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.clone:
            name = self._names.pop(id(args[0]), None)
            if name is not None and self._given[name] is args[0]:
                self._given[name] = None
            return args[0]
        if func is Tensor.float and args[0].dtype in _HALVES:
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _one_copy(bridge: Any, here: bool, no_copies: _NoCopies) -> Iterator[None]:
    """While the body runs, whoever asks for the bridge's weights is given them, and the model lets go of them.

    Args:
        here: whether the unembedding is processed here, and so left out.
    """
    plain = bridge.state_dict

    def taken() -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = plain()
        if here:
            _process_unembedding(bridge, {name: tensors.pop(name, None) for name in _OF_UNEMBEDDING})
        given = {tensor.data_ptr() for name, tensor in tensors.items() if _is_put_back(name)}
        for parameter in bridge.original_model.parameters():
            if parameter.data_ptr() in given:
                parameter.data = parameter.data.new_zeros(1).expand(parameter.shape)  # of its shape, without its memory
        no_copies.give(tensors)
        return tensors

    object.__setattr__(bridge, "state_dict", taken)
    try:
        yield
    finally:
        object.__delattr__(bridge, "state_dict")


def _is_put_back(name: str) -> bool:
    """Whether TransformerLens gives a processed weight back to the model: not those of a hybrid's linear attention."""
    parts = name.split(".")
    return parts[0] != "blocks" or parts[2] in ("attn", "mlp") or parts[2].startswith("ln")


_OF_UNEMBEDDING = (_UNEMBEDDING, _BIAS, _GAIN, _NORM_BIAS)


def _folds_here(bridge: Any) -> bool:
    """Whether the unembedding is a matrix behind a norm that TransformerLens would fold into it, and nothing else."""
    from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter

    adapter, unembedding = bridge.adapter, getattr(getattr(bridge, "unembed", None), "original_component", None)
    norm = getattr(getattr(bridge, "ln_final", None), "original_component", None)
    gain = getattr(norm, "weight", None)
    return (
        type(adapter).preprocess_weights is ArchitectureAdapter.preprocess_weights
        and getattr(adapter, "supports_fold_ln", True)
        and bridge.cfg.normalization_type in ("LN", "LNPre", "RMS", "RMSPre")
        and isinstance(unembedding, nn.Linear)
        and isinstance(gain, Tensor)
        and gain.shape == (unembedding.in_features,)
        and {_UNEMBEDDING, _GAIN} <= bridge.state_dict().keys()
    )


@torch.no_grad()
def _process_unembedding(bridge: Any, parts: dict[str, Tensor | None]) -> None:
    """Fold the final norm into the unembedding, and centre it as the model allows; its norm is left without a gain."""
    cfg, linear, norm = bridge.cfg, bridge.unembed.original_component, bridge.ln_final.original_component
    weight, gain = parts[_UNEMBEDDING], parts[_GAIN]
    assert weight is not None
    assert gain is not None
    is_layer_norm = cfg.normalization_type in ("LN", "LNPre") and not getattr(cfg, "final_rms", False)
    offset = 1.0 if getattr(cfg, "rmsnorm_uses_offset", False) else 0.0
    shift = parts[_NORM_BIAS] if is_layer_norm else None
    W_U, b_U = _folded(weight, parts[_BIAS], _wide(gain) + offset, shift, centred=is_layer_norm)
    if not (getattr(cfg, "output_logits_soft_cap", None) or 0) > 0:  # after a tanh, what is equal for all tokens counts
        W_U -= W_U.mean(dim=1, keepdim=True)
        b_U -= b_U.mean()
    norm.weight.data = torch.full_like(gain, 1.0 - offset)
    if shift is not None:
        norm.bias.data = torch.zeros_like(shift)
    linear.weight = nn.Parameter(W_U.T, requires_grad=False)
    del linear.bias
    linear.register_buffer("bias", b_U)
    linear.register_forward_pre_hook(lambda module, given: tuple(_wide(value) for value in given))


def _folded(
    weight: Tensor, bias: Tensor | None, gain: Tensor, shift: Tensor | None, *, centred: bool
) -> tuple[Tensor, Tensor]:
    """W_U [d_model, d_vocab] and b_U [d_vocab] behind a norm of no gain, of a weight [d_vocab, d_model], in float32.

    Args:
        shift: the norm's bias.
        centred: whether what the unembedding reads has mean 0.
    """
    d_vocab, d_model = weight.shape
    W_U = torch.empty(d_model, d_vocab, device=weight.device)
    b_U = torch.zeros(d_vocab, device=weight.device)
    b_U += 0 if bias is None else _wide(bias)
    for start in range(0, d_vocab, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        block = _wide(weight[rows])
        if shift is not None:
            b_U[rows] += block @ _wide(shift)
        block = block * gain
        W_U[:, rows] = (block - block.mean(dim=1, keepdim=True) if centred else block).T
    return W_U, b_U


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32)
