"""`AnalysisModel`: the one gate to a model's weights and activations.

Boots TransformerLens' bridge over the original Hugging Face model, processes the weights (Appendix C), and checks on
every load that the processed model still computes what the original computes and that the closed forms of
`core/metrics/effects.py` hold for it. A model for which they do not hold is refused, with the reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.errors import BadLayer, UnsupportedModel
from backend.core.metrics.attribution import InputDirection, Reads
from backend.core.models import hook_points
from backend.core.models.devices import choose_device, refusing_memory_errors
from backend.core.models.dtypes import AUTO, choose_dtype
from backend.core.models.experts import mixtures_of
from backend.core.models.families import SEPARATORS, Ending, refuse_unsupported
from backend.core.models.loading import boot, load_original
from backend.core.models.norms import Norm
from backend.core.models.readout import PostNorm, Readout, centre
from backend.core.models.self_check import SelfCheck
from backend.core.models.sizes import require_sizes
from backend.core.models.sources import ModelFiles
from backend.core.neurons import Experts, NeuronId

_CHECK_TOKENS = 24
_RANDOM_SEED = 20240624

Hooks = list[tuple[str, Any]]
"""Names of hook points, and functions (values, hook) → values or None."""


@dataclass(frozen=True)
class Trace:
    """What the model computed on a batch of token sequences."""

    tokens: Int[Tensor, "sequences length"]
    residual: Float[Tensor, "sequences length d_model"]
    """x after the last block."""
    activations: Float[Tensor, "sequences length d_mlp"]
    """n of the last layer, or of the one that was asked for."""


class AnalysisModel:
    """A language model prepared for analysis. Make one with `AnalysisModel.load`."""

    self_check: SelfCheck
    """What was found when the processed model was set beside the original one, on loading."""

    def __init__(self, bridge: Any, tokenizer: Any, name: str) -> None:
        self.bridge, self.tokenizer, self.name = bridge, tokenizer, name
        self._mixtures = mixtures_of(bridge)
        cfg = bridge.cfg
        self.family: str = str(cfg.architecture or type(bridge.original_model).__name__)
        self.n_layers, self.d_model = int(cfg.n_layers), int(cfg.d_model)
        self.max_tokens = int(cfg.n_ctx)
        self.device = bridge.W_U.device
        self.dtype: torch.dtype = next(bridge.original_model.parameters()).dtype
        self.n_heads = int(cfg.n_heads)
        self.last_layer = self.n_layers - 1
        self.ending = Ending.of(bridge.original_model.config, self.family)
        self._final_norm = self._norm(self._last_norm_module())
        self.norm, self.eps = self._final_norm.kind, self._final_norm.eps
        self.readout = self._readout()
        # Not cfg.d_mlp: for families whose configuration names it otherwise (OPT, Falcon) the bridge puts 4·d_model.
        self.d_mlp, self.d_vocab = self.readout.W_out.shape[0], self.readout.W_U.shape[1]

    @classmethod
    def load(cls, files: ModelFiles, device: str = "auto", dtype: str = AUTO) -> Self:
        """Load, process and check a model.

        Args:
            dtype: in which its weights are kept and its layers run: a name, or `auto` for float32 where that fits.

        Raises:
            BadConfig: no such type.
            SourceError: the files cannot be read as a causal language model, or the device lacks the type.
            UnsupportedModel: the architecture is one that TransformerLens or the closed forms do not cover.
            SelfCheckFailed: the processed model does not compute what the original does.
            ModelTooLarge: out of memory.
        """
        chosen = choose_device(device)
        with refusing_memory_errors(f"Loading {files.name}"), torch.no_grad():
            require_sizes(files.folder, files.name)
            kept_in = choose_dtype(dtype, files.folder, files.name, chosen)
            original, tokenizer = load_original(files, kept_in)
            refuse_unsupported(original.config, files.name)
            original = original.to(chosen).eval()
            probe = _probe_tokens(original.config.get_text_config().vocab_size).to(chosen)
            expected = original(probe).logits.float().log_softmax(-1)
            model = cls(boot(original, tokenizer, files, chosen), tokenizer, files.name)
            model.self_check = SelfCheck.of(model, probe, expected)
        return model

    @property
    def experts(self) -> Experts | None:
        """How a layer's neurons are divided among experts, the same in all layers; None where it has none."""
        mixture = self._mixtures.get(self.last_layer)
        return None if mixture is None else mixture.experts

    def neuron(self, layer: int, index: int) -> NeuronId:
        """A neuron by its index in its layer, as the model's neurons are named."""
        return NeuronId(layer, index, self.experts)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any special token. Half of a character, which is no text, becomes �."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    @property
    def bos(self) -> int | None:
        """The token that the tokenizer names for the beginning of a sequence, or None where it names none. Whether one
        belongs there is another question, which `core.beginning` answers."""
        return _named(self.tokenizer.bos_token_id, self.d_vocab)

    @property
    def eos(self) -> int | None:
        """The token that the tokenizer names for the end: of a document, or of a turn where the model is a chat's. None
        where it names none."""
        return _named(self.tokenizer.eos_token_id, self.d_vocab)

    @cached_property
    def prepended(self) -> int | None:
        """The token that the tokenizer puts before a text on its own, or None."""
        text = "a"
        plain, whole = self.encode(text), list(self.tokenizer(text, verbose=False).input_ids)
        before = [place for place in range(1, len(whole)) if whole[place : place + len(plain)] == plain]
        return _named(whole[before[0] - 1], self.d_vocab) if before and whole[: len(plain)] != plain else None

    @cached_property
    def separator(self) -> int | None:
        """The token that separates documents where the model was trained; None where the vocabulary names none.

        A chat model's EOS ends a turn, so the names that are usual between documents come before it.
        """
        special = {str(token): int(i) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))
        named = [self.tokenizer.eos_token, *SEPARATORS]
        separators = (special[name] for name in named if name in SEPARATORS and name in special)
        return _named(next(separators, self.tokenizer.eos_token_id), self.d_vocab)

    @property
    def uncounted(self) -> frozenset[int]:
        """BOS, EOS, padding and what separates documents: positions at which, or before which, nothing is measured."""
        named = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, self.separator)
        return frozenset(int(token) for token in named if token is not None)

    @property
    def ends(self) -> frozenset[int]:
        """Tokens after which a generated text is over: EOS, and what separates documents."""
        return frozenset(token for token in (self.eos, self.separator) if token is not None)

    @cached_property
    def ordinary(self) -> Int[Tensor, "ordinary"]:
        """Tokens that stand for text: neither special nor past the tokenizer's vocabulary."""
        special = {*self.tokenizer.all_special_ids, *self.uncounted}
        return torch.tensor([t for t in range(min(len(self.tokenizer), self.d_vocab)) if t not in special])

    def token_strings(self, ids: list[int]) -> list[str]:
        """What each token stands for, decoded alone: a token that is part of a character shows as �."""
        return [str(self.tokenizer.decode([token], clean_up_tokenization_spaces=False)) for token in ids]

    @torch.no_grad()
    def trace(self, tokens: Int[Tensor, "sequences length"], layer: int | None = None) -> Trace:
        """Run the model's body once over tokens; logits are left to `readout`.

        Args:
            layer: whose activations are kept; None for the last.

        Raises:
            ModelTooLarge: out of memory.
        """
        activations = hook_points.activations(self.last_layer if layer is None else layer)
        with refusing_memory_errors(f"Running {self.name} on {tokens.numel()} tokens"):
            _, kept = self.run(tokens, self.residual_point, activations, stop_at_layer=self.n_layers)
        return Trace(tokens, kept[self.residual_point], kept[activations])

    def readout_of(self, layer: int) -> Readout:
        """What a layer's neurons write, and how the model reads it out at its end: for the weight metrics.

        Raises:
            BadLayer: the model does not have it.
        """
        if not 0 <= layer < self.n_layers:
            raise BadLayer(f"{self.name} has no layer {layer}: its layers are 0 to {self.last_layer}.")
        if layer == self.last_layer:
            return self.readout
        W_out, post_norm = self._written(layer)
        return replace(self.readout, W_out=W_out, post_norm=post_norm)

    def input_norm(self, layer: int) -> Norm:
        """The norm that stands before a layer's MLP: a block whose MLP runs in parallel to attention may have one for
        both, and where a norm follows the MLP there may be none before it."""
        block = self.bridge.blocks[layer]
        before = getattr(block, "ln2", None)
        if before is None and self.parallel:
            before = getattr(block, "ln1", None)
        return self._norm(None if self.ending.norm_in_block else before)

    def input_directions(self, neurons: list[int]) -> list[InputDirection]:
        """What last-layer neurons read of the normed residual stream: one direction each, of a gated MLP two.

        A neuron of an expert reads them at every token, whether or not the router chooses its expert.
        """
        mlp, norm = self.bridge.blocks[self.last_layer].mlp, self.input_norm(self.last_layer)
        if self.experts is not None:
            found = self._mixtures[self.last_layer].input_directions(neurons)
            return [InputDirection(one.reads, *norm.folded(one.W, one.b)) for one in found]
        gated = getattr(mlp, "W_gate", None) is not None
        named: list[tuple[Reads, str]] = [("up", "in"), ("gate", "gate")] if gated else [("in", "in")]
        directions = []
        for reads, name in named:
            W, b = getattr(mlp, f"W_{name}").detach().float()[:, neurons], getattr(mlp, f"b_{name}", None)
            W, b = norm.folded(W, None if b is None else b.detach().float()[neurons])
            directions.append(InputDirection(reads, centre(W.T, norm.kind).T, b))
        return directions

    def head_outputs(self, layer: int) -> tuple[Float[Tensor, "heads d_head d_model"], Float[Tensor, "d_model"] | None]:
        """W_O and b_O of a layer's attention, as they reach the residual stream: up to the divisor of a norm that
        follows (`attention_scale_point`). b_O is None where there is no bias."""
        block = self.bridge.blocks[layer]
        attention, after = block.attn, getattr(block, "ln1_post", None)
        gain = None if after is None else self._norm(after).gain
        factor = self.ending.residual_multiplier * (1.0 if gain is None else gain)
        b_O = getattr(attention, "b_O", None)
        return factor * attention.W_O.detach().float(), None if b_O is None else factor * b_O.detach().float()

    def attention_scale_point(self, layer: int) -> str | None:
        """The hook point of the divisor of the norm between a layer's attention and the residual stream; None where
        there is no such norm."""
        after = getattr(self.bridge.blocks[layer], "ln1_post", None)
        return None if after is None else hook_points.attention_norm_scale(layer)

    @property
    def parallel(self) -> bool:
        """Whether a block's MLP reads what its attention reads, not what that has written (GPT-NeoX, Phi, Falcon)."""
        return bool(getattr(self.bridge.cfg, "parallel_attn_mlp", False))

    @property
    def residual_point(self) -> str:
        """The hook point that the residual stream passes before the last norm."""
        if self.ending.norm_in_block:
            return hook_points.residual_before_last_norm(self.last_layer)
        return hook_points.residual_after(self.last_layer)

    @property
    def scale_point(self) -> str | None:
        """The hook point of the last norm's divisor; None where there is no norm."""
        if self.norm == "none":
            return None
        return hook_points.scale_in_block(self.last_layer) if self.ending.norm_in_block else hook_points.FINAL_SCALE

    @torch.no_grad()
    def residual_before(
        self, tokens: Int[Tensor, "sequences length"], layer: int
    ) -> Float[Tensor, "sequences length d_model"]:
        """The residual stream before a layer's block."""
        with refusing_memory_errors(f"Running {self.name} on {tokens.numel()} tokens"):
            residual: Tensor = self.run(tokens, stop_at_layer=layer)[0]
            return residual.detach().float()

    @torch.no_grad()
    def continued(
        self, residual: Float[Tensor, "sequences length d_model"], layer: int, hooks: Hooks
    ) -> Float[Tensor, "sequences length d_model"]:
        """The residual stream after the last block, from the one before `layer`.

        Args:
            hooks: hook points and what is done to the values that pass there.
        """
        with refusing_memory_errors(f"Running {self.name} from layer {layer}"), self._without_blocks_before(layer):
            return self._residual_after(residual, hooks, start_at_layer=layer)

    @torch.no_grad()
    def observed(
        self, tokens: Int[Tensor, "sequences length"], hooks: Hooks
    ) -> Float[Tensor, "sequences length d_model"]:
        """The residual stream after the last block, while hooks look on or intervene."""
        with refusing_memory_errors(f"Running {self.name} on {tokens.numel()} tokens"):
            return self._residual_after(tokens.to(self.device), hooks)

    def _residual_after(self, given: Tensor, hooks: Hooks, **options: Any) -> Tensor:
        after: list[Tensor] = []

        def keep(value: Tensor, hook: Any) -> None:
            after.append(value.detach().float())

        every = [*self._widened(hooks), (self.residual_point, keep), (self.residual_point, _stop)]
        given = given.to(self.dtype) if given.is_floating_point() else given
        self.bridge.run_with_hooks(given, fwd_hooks=every, stop_at_layer=self.n_layers, **options)
        return after[-1]

    def _widened(self, hooks: Hooks) -> Hooks:
        """Hooks that are handed float32 and may return it, whatever the layers compute in."""

        def widened(change: Any) -> Any:
            def apply(value: Tensor, hook: Any) -> Tensor | None:
                changed = change(value.float(), hook)
                return None if changed is None else changed.to(value.dtype)

            return apply

        return hooks if self.dtype == torch.float32 else [(name, widened(change)) for name, change in hooks]

    def new_memory(self, *, sliding: bool = True) -> Any:
        """Room for the keys and values of a text that grows; `extended` fills it.

        Args:
            sliding: whether layers that look back on a window only keep no more than that window.
        """
        from transformers import DynamicCache

        return DynamicCache(config=self.bridge.original_model.config) if sliding else DynamicCache()

    @torch.no_grad()
    def extended(
        self, tokens: Int[Tensor, "sequences length"], memory: Any, hooks: Hooks
    ) -> Float[Tensor, "sequences length d_model"]:
        """The residual stream after the last block over tokens that follow those in `memory`, which grows by them."""
        with refusing_memory_errors(f"Running {self.name} on {tokens.numel()} tokens"):
            return self._residual_after(tokens.to(self.device), hooks, past_key_values=memory, use_cache=True)

    @contextmanager
    def _without_blocks_before(self, layer: int) -> Iterator[None]:
        """The bridge runs blocks whose output it then discards; here they only pass on what they are given, and so does
        a projection of the embedding (OPT 350M), which a residual stream does not fit."""
        outputs = self._block_outputs
        skipped = dict.fromkeys(list(self.bridge.blocks)[:layer], _passing_on(outputs))
        projection = getattr(self.bridge, "project_in", None)
        if projection is not None:
            skipped[projection] = _passing_on(None)
        for module, forward in skipped.items():  # in its own dictionary: the bridge hands attributes on to the module
            module.__dict__["forward"] = forward  # that it wraps
        try:
            yield
        finally:
            for module in skipped:
                del module.__dict__["forward"]

    @cached_property
    def _block_outputs(self) -> int | None:
        """How many values a block returns in a tuple, or None where it returns the residual stream alone."""
        widths: list[int | None] = []

        def look(module: Any, given: Any, output: Any) -> None:
            widths.append(len(output) if isinstance(output, tuple) else None)

        handle = self.bridge.blocks[0].register_forward_hook(look)
        try:
            self.run(_probe_tokens(self.d_vocab)[:, :2], stop_at_layer=min(1, self.n_layers - 1) + 1)
        finally:
            handle.remove()
        return widths[0] if widths else None

    @torch.no_grad()
    def run(
        self, tokens: Int[Tensor, "sequences length"], *names: str, **options: Any
    ) -> tuple[Any, dict[str, Float[Tensor, "sequences ..."]]]:
        """The bridge's output, and what passed its hook points `names` (a point that nothing passes is left out)."""
        kept: dict[str, Tensor] = {}

        def keeper(name: str) -> Any:
            # TransformerLens calls a hook by its canonical name, which may not be the alias that was asked for.
            def keep(value: Tensor, hook: Any) -> None:
                kept[name] = value.detach().float()

            return keep

        hooks: Hooks = [(name, keeper(name)) for name in names]
        if options.get("stop_at_layer") == self.n_layers:
            hooks.append((self.residual_point, _stop))
        return self.bridge.run_with_hooks(tokens.to(self.device), fwd_hooks=hooks, **options), kept

    @torch.no_grad()
    def intervened(
        self, tokens: Int[Tensor, "sequences length"], hooks: Hooks
    ) -> Float[Tensor, "sequences length d_vocab"]:
        """The model's own logits while hooks intervene."""
        logits: Tensor = self.bridge.run_with_hooks(tokens.to(self.device), fwd_hooks=hooks)
        return logits.detach().float()

    def _last_norm_module(self) -> Any:
        if self.ending.norm_in_block:
            return self.bridge.blocks[self.last_layer].ln2
        return getattr(self.bridge, "ln_final", None)

    def _norm(self, module: Any) -> Norm:
        return Norm.of(module, self.d_model, float(self.bridge.cfg.eps), self.device)

    def _readout(self) -> Readout:
        W_U, b_U = self.bridge.W_U.detach().float(), self.bridge.b_U
        b_U = None if b_U is None else b_U.detach().float()
        projection = getattr(self.bridge, "project_out", None)
        if projection is not None:  # OPT 350M unembeds from fewer dimensions than its residual stream has
            W_U = projection.weight.detach().float().T @ W_U
        W_U, b_U = self._final_norm.folded(W_U, b_U)
        multiplier, softcap = self.ending.logit_multiplier, self.ending.softcap
        if multiplier != 1:
            W_U, b_U = multiplier * W_U, None if b_U is None else multiplier * b_U
        # A bias that is equal for all tokens shifts every logit alike: without a soft-cap that changes nothing.
        if b_U is not None and not bool(b_U.any() if softcap is not None else b_U.max() - b_U.min() > 0):
            b_U = None
        W_out, post_norm = self._written(self.last_layer)
        return Readout(W_out, W_U.contiguous(), b_U, self.norm, self.eps, post_norm, softcap)

    def _written(self, layer: int) -> tuple[Tensor, PostNorm | None]:
        """What a layer's neurons write into the stream, [d_mlp, d_model], and the norm that their MLP passes on the
        way."""
        block = self.bridge.blocks[layer]
        W_out: Tensor = self._mixtures.get(layer, block.mlp).W_out.detach().float()
        post_norm, multiplier = None, self.ending.residual_multiplier
        if getattr(block, "ln2_post", None) is not None:
            post_norm = self._post_norm(block)
            W_out = post_norm.gain * centre(W_out, post_norm.kind)
        elif multiplier != 1:
            W_out = multiplier * W_out
        # TransformerLens centres them for most families with a LayerNorm; the closed forms need it for all.
        return centre(W_out, self.norm).contiguous(), post_norm

    def _post_norm(self, block: Any) -> PostNorm:
        norm, mlp = self._norm(block.ln2_post), block.mlp
        if norm.kind == "none":
            raise UnsupportedModel(f"{self.name}: the norm after its last MLP is neither LayerNorm nor RMSNorm.")
        gain = torch.ones(self.d_model, device=self.device) if norm.gain is None else norm.gain
        b_raw = getattr(mlp, "b_out", None)
        return PostNorm(
            norm.kind,
            norm.eps,
            self.ending.residual_multiplier * gain,
            centre(mlp.W_out.detach().float(), norm.kind).contiguous(),
            None if b_raw is None or not bool(b_raw.any()) else centre(b_raw.detach().float(), norm.kind),
        )


def _named(token: Any, d_vocab: int) -> int | None:
    """A token that a tokenizer names, if the model has it."""
    return int(token) if token is not None and 0 <= int(token) < d_vocab else None


def _stop(value: Tensor, hook: Any) -> None:
    """End a forward pass after the last block: TransformerLens stops before blocks only, and would unembed."""
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    raise StopAtLayerException(value)


def _passing_on(outputs: int | None) -> Any:
    def forward(hidden: Tensor, *_: Any, **__: Any) -> Any:
        return hidden if outputs is None else (hidden, *[None] * (outputs - 1))

    return forward


def _probe_tokens(d_vocab: int) -> Tensor:
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    return torch.randint(0, d_vocab, (1, _CHECK_TOKENS), generator=generator)
