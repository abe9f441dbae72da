"""Where values can be read and replaced as they pass through a model: TransformerLens' names, written here alone.

`b` is a batch of token sequences, `p` a position.
"""

from backend.core.neurons import HeadId, Unit

FINAL_SCALE = "ln_final.hook_scale"
"""The final norm's divisor, [b, p, 1]; some families do not offer it."""


def activations(layer: int) -> str:
    """What a layer's W_out reads: its neurons' activations, [b, p, d_mlp]."""
    return f"blocks.{layer}.mlp.hook_post"


def expert_biases(layer: int) -> str:
    """What the output biases of a layer's chosen experts write beside its neurons, [b, p, d_model]."""
    return f"blocks.{layer}.mlp.hook_expert_biases"


def pre_activations(layer: int) -> str:
    """What a layer's activation function reads, of a gated MLP its gate, [b, p, d_mlp]."""
    return f"blocks.{layer}.mlp.hook_pre"


def up_projections(layer: int) -> str:
    """What a gated MLP's activated gate is multiplied by, [b, p, d_mlp]."""
    return f"blocks.{layer}.mlp.hook_pre_linear"


def mlp_input(layer: int) -> str:
    """What a layer's MLP reads, after its norm, [b, p, d_model]."""
    return f"blocks.{layer}.mlp.hook_in"


def mlp_output(layer: int) -> str:
    """What a layer's MLP adds to the residual stream, its bias, a norm after it and a multiplier included,
    [b, p, d_model]."""
    return f"blocks.{layer}.hook_mlp_out"


def mlp_before_norm(layer: int) -> str:
    """What a layer's MLP writes, its bias included, before the norm that follows it, [b, p, d_model]."""
    return f"blocks.{layer}.mlp.hook_out"


def head_outputs(layer: int) -> str:
    """What a layer's W_O reads: its heads' z, [b, p, heads, d_head]."""
    return f"blocks.{layer}.attn.hook_z"


def attention_norm_scale(layer: int) -> str:
    """The divisor of a norm between a layer's attention and the residual stream, [b, p, 1]."""
    return f"blocks.{layer}.ln1_post.hook_scale"


def attention_patterns(layer: int) -> str:
    """How a layer's heads attend, [b, heads, query, key]. OPT and GPT-Neo only tell it: replacing it does nothing."""
    return f"blocks.{layer}.attn.hook_pattern"


def residual_before(layer: int) -> str:
    """The residual stream that a block reads, [b, p, d_model]; before the first, the embedding."""
    return f"blocks.{layer}.hook_resid_pre"


def residual_between(layer: int) -> str:
    """The residual stream between a block's attention and its MLP, [b, p, d_model]."""
    return f"blocks.{layer}.hook_resid_mid"


def residual_after(layer: int) -> str:
    """The residual stream after a block, [b, p, d_model]."""
    return f"blocks.{layer}.hook_resid_post"


def residual_before_last_norm(layer: int) -> str:
    """The residual stream after a layer's MLP, where a norm of the block itself follows, [b, p, d_model]."""
    return f"blocks.{layer}.ln2.hook_in"


def scale_in_block(layer: int) -> str:
    """The divisor of the norm that a block ends in, [b, p, 1]."""
    return f"blocks.{layer}.ln2.hook_scale"


def of_unit(unit: Unit) -> str:
    """Where a neuron's activation or a head's z passes, among those of its layer."""
    return head_outputs(unit.layer) if isinstance(unit, HeadId) else activations(unit.layer)
