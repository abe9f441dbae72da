"""The check on every load: the processed model computes what the original does, and the closed forms hold for it.

Weight processing (Appendix C) and the formulas of `core/metrics/effects.py` assume much of an architecture. A model for
which an assumption fails is refused with the reason; for one that passes, what was found is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backend.core.errors import SelfCheckFailed, UnsupportedModel, first_line, is_memory_error
from backend.core.models import hook_points
from backend.core.models.dtypes import TOLERANCES, Tolerance, dtype_name
from backend.core.models.readout import centre

if TYPE_CHECKING:
    from backend.core.models.analysis_model import AnalysisModel

_SEED = 12


@dataclass(frozen=True)
class SelfCheck:
    """How far the processed model is from the original one, and the formulas from the model, on some tokens."""

    tokens: int
    log_probs: float
    """Largest difference of a log-probability from the original model's, in nats."""
    mlp_output: float
    """Largest difference of what the activations write from the last MLP's output, relative to the largest value."""
    norm_scale: float | None
    """Largest relative difference of the final norm's scale; None where the bridge offers none to compare with."""
    logits: float
    """Largest relative difference of a log-probability as the readout has it from the processed model's."""
    ablation: float
    """Largest relative difference of a log-probability from the processed model's, where last-layer neurons are set to
    other values in a forward pass, and the readout has it from what they write."""

    @classmethod
    def of(cls, model: "AnalysisModel", probe: Tensor, expected: Tensor) -> Self:
        """Check a model on tokens [1, position], for which the original has log-probabilities `expected`.

        Raises:
            UnsupportedModel: a closed form does not hold, or the model offers no place to read what it needs.
            SelfCheckFailed: the predictions are not the original's.
        """
        seen = _Seen.of(model, probe)
        log_p = seen.logits.log_softmax(-1)
        log_probs = _same_predictions(model, log_p, expected)
        mlp = _mlp_writes_activations(model, seen)
        scale, readout = _readout_holds(model, seen, log_p)
        return cls(probe.numel(), log_probs, mlp, scale, readout, _ablation_holds(model, probe, seen))


@dataclass(frozen=True)
class _Seen:
    """What passed the model's last steps on the tokens of the check."""

    logits: Float[Tensor, "sequences length d_vocab"]
    residual: Float[Tensor, "sequences length d_model"]
    activations: Float[Tensor, "sequences length d_mlp"]
    mlp_output: Float[Tensor, "sequences length d_model"]
    mlp_before_norm: Float[Tensor, "sequences length d_model"] | None
    scale: Float[Tensor, "sequences length 1"] | None

    @classmethod
    def of(cls, model: "AnalysisModel", probe: Int[Tensor, "sequences length"]) -> Self:
        last, scale = model.last_layer, model.scale_point
        points = {
            "residual": model.residual_point,
            "activations": hook_points.activations(last),
            "mlp_output": hook_points.mlp_output(last),
        }
        if model.experts is not None:
            points["expert_biases"] = hook_points.expert_biases(last)
        if model.readout.post_norm is not None:
            points["mlp_before_norm"] = hook_points.mlp_before_norm(last)
        try:
            logits, kept = model.run(probe, *points.values(), *([] if scale is None else [scale]))
        except (KeyError, RuntimeError) as error:
            if is_memory_error(error):
                raise
            raise UnsupportedModel(
                f"{model.name}: its last MLP or its final norm cannot be read ({first_line(error)}). The closed forms "
                "of the effects do not hold for it."
            ) from error
        if any(point not in kept for point in points.values()):
            raise UnsupportedModel(
                f"{model.name}: its last MLP offers no activations to read, so no neuron can be ablated."
            )
        return cls(
            logits=logits.float(),
            residual=kept[points["residual"]],
            activations=kept[points["activations"]],
            mlp_output=kept[points["mlp_output"]] - kept.get(points.get("expert_biases", ""), 0.0),
            mlp_before_norm=kept.get(points.get("mlp_before_norm", "")),
            scale=None if scale is None else kept.get(scale),
        )


def tolerance_of(model: "AnalysisModel") -> Tolerance:
    """How far a model may be from the original, and the formulas from the model."""
    return TOLERANCES[dtype_name(model.dtype)]


def _same_predictions(model: "AnalysisModel", log_p: Tensor, expected: Tensor) -> float:
    difference, allowed = float((log_p - expected).abs().max()), tolerance_of(model).log_probs
    if not difference < allowed:
        raise SelfCheckFailed(
            f"{model.name}: after weight processing the log-probabilities differ from the original model's by "
            f"{difference:.3g} nats (allowed {allowed}). Its effects would be wrong: it was not loaded."
        )
    return difference


def _mlp_writes_activations(model: "AnalysisModel", seen: _Seen) -> float:
    readout = model.readout
    written, output = readout.written(seen.activations), readout.centred(seen.mlp_output)
    # Only what varies from token to token matters: a bias of the MLP is the same at every position.
    apart = _apart(output - output[:, :1], written - written[:, :1])
    if readout.post_norm is not None and seen.mlp_before_norm is not None:
        # Before a norm a bias matters too.
        expected = centre(seen.mlp_before_norm, readout.post_norm.kind)
        apart = _larger(apart, _apart(readout.post_norm.before(seen.activations), expected))
    if not apart <= tolerance_of(model).relative:
        raise UnsupportedModel(
            f"{model.name}: its last MLP's output is not activations · W_out, nor that after a norm. The closed forms "
            "of the effects do not hold for it."
        )
    return apart


def _readout_holds(model: "AnalysisModel", seen: _Seen, log_probs: Tensor) -> tuple[float | None, float]:
    readout = model.readout
    centred = readout.centred(seen.residual)
    computed_scale = readout.scale(centred)
    scale_apart = None if seen.scale is None else _apart(computed_scale, seen.scale.squeeze(-1))
    if scale_apart is not None and not scale_apart <= tolerance_of(model).relative:
        raise UnsupportedModel(f"{model.name}: its final norm is neither LayerNorm nor RMSNorm as Eq. 2 has them.")
    apart = _apart(readout.logits(centred, computed_scale).log_softmax(-1), log_probs)
    if not apart <= tolerance_of(model).relative:
        raise UnsupportedModel(
            f"{model.name}: its logits are not norm(x)·W_U + b_U, nor a soft-cap of that. The closed forms of the "
            "effects do not hold for it."
        )
    return scale_apart, apart


def _ablation_holds(model: "AnalysisModel", probe: Tensor, seen: _Seen) -> float:
    """Set all last-layer neurons to other values, in a forward pass and in closed form."""
    noise = torch.randn(seen.activations.shape, generator=torch.Generator().manual_seed(_SEED))
    changed = seen.activations + 0.5 * seen.activations.std() * noise.to(seen.activations)
    hooks: list[tuple[str, Any]] = [(hook_points.activations(model.last_layer), _replacing(changed))]
    expected = model.intervened(probe, hooks).log_softmax(-1)
    readout = model.readout
    centred = readout.centred(seen.residual) + readout.written(changed) - readout.written(seen.activations)
    apart = _apart(readout.logits(centred, readout.scale(centred)).log_softmax(-1), expected)
    if not apart <= tolerance_of(model).relative:
        raise UnsupportedModel(
            f"{model.name}: neurons of its last layer reach the logits by more ways than the residual stream and the "
            "final norm. The closed forms of the effects do not hold for it."
        )
    return apart


def _replacing(values: Tensor) -> Callable[[Tensor, Any], Tensor]:
    def replace(old: Tensor, hook: Any) -> Tensor:
        return values.reshape(old.shape).to(old)

    return replace


def _apart(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value; NaN where one is not finite."""
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-6))


def _larger(one: float, other: float) -> float:
    """NaN where either is: Python's own `max` depends on the order."""
    return float(torch.tensor([one, other]).max())
