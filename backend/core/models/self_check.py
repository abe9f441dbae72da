"""The check on every load: the processed model computes what the original does, and the closed forms hold for it.

Weight processing (Appendix C) and the formulas of `core/metrics/effects.py` assume much of an architecture. A model for
which an assumption fails is refused with the reason; for one that passes, what was found is kept.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from torch import Tensor

from backend.core.errors import SelfCheckFailed, UnsupportedModel, first_line, is_memory_error
from backend.core.models import hook_points

if TYPE_CHECKING:
    from backend.core.models.analysis_model import AnalysisModel

LOG_PROB_TOLERANCE = 5e-3
"""nats; float32 rounding over a deep model reaches some 1e-4, a wrong fold or centring whole nats."""
CLOSED_FORM_TOLERANCE = 1e-3
"""Relative to the largest value; observed 1e-6."""


@dataclass(frozen=True)
class SelfCheck:
    """How far the processed model is from the original one, and the formulas from the model, on some tokens."""

    tokens: int
    log_probs: float
    """Largest difference of a log-probability from the original model's, in nats."""
    mlp_output: float
    """Largest difference of activations · W_out from the last MLP's output, relative to the largest value."""
    norm_scale: float | None
    """Largest relative difference of the final norm's scale; None where the bridge offers none to compare with."""
    logits: float
    """Largest relative difference of a log-probability as the readout has it from the processed model's."""

    @classmethod
    def of(cls, model: "AnalysisModel", probe: Tensor, expected: Tensor) -> Self:
        """Check a model on tokens [1, position], for which the original has log-probabilities `expected`.

        Raises:
            UnsupportedModel: a closed form does not hold, or the model offers no place to read what it needs.
            SelfCheckFailed: the predictions are not the original's.
        """
        last = model.last_layer
        activations, mlp_output = hook_points.activations(last), hook_points.mlp_output(last)
        try:
            logits, kept = model.run(probe, activations, mlp_output, model.residual_point, hook_points.FINAL_SCALE)
        except (KeyError, RuntimeError) as error:
            if is_memory_error(error):
                raise
            raise UnsupportedModel(
                f"{model.name}: its last MLP or its final norm cannot be read ({first_line(error)}), as in OPT "
                "350M, which has no final norm. The closed forms of the effects do not hold for it."
            ) from error
        log_p = logits.float().log_softmax(-1)
        log_probs = _same_predictions(model.name, log_p, expected)
        post, written, residual = (kept.get(name) for name in (activations, mlp_output, model.residual_point))
        if post is None or written is None or residual is None:
            raise UnsupportedModel(
                f"{model.name}: its last MLP offers no activations to read, so no neuron can be ablated."
            )
        mlp = _mlp_writes_activations(model, post, written)
        scale, readout = _readout_holds(model, residual, kept.get(hook_points.FINAL_SCALE), log_p)
        return cls(probe.numel(), log_probs, mlp, scale, readout)


def _same_predictions(name: str, log_p: Tensor, expected: Tensor) -> float:
    difference = float((log_p - expected).abs().max())
    if not difference < LOG_PROB_TOLERANCE:
        raise SelfCheckFailed(
            f"{name}: after weight processing the log-probabilities differ from the original model's by "
            f"{difference:.3g} nats (allowed {LOG_PROB_TOLERANCE}). Its effects would be wrong: it was not loaded."
        )
    return difference


def _mlp_writes_activations(model: "AnalysisModel", post: Tensor, output: Tensor) -> float:
    written = post @ model.readout.W_out
    # Only what varies from token to token matters: a bias of the MLP is the same at every position.
    apart = _apart(model.readout.centred(output - output[:, :1]), written - written[:, :1])
    if not apart <= CLOSED_FORM_TOLERANCE:
        raise UnsupportedModel(
            f"{model.name}: its last MLP's output is not activations · W_out (a norm follows the MLP, as in Gemma 2 "
            "and 3, or it routes between experts). The closed forms of the effects do not hold for it."
        )
    return apart


def _readout_holds(
    model: "AnalysisModel", residual: Tensor, scale: Tensor | None, log_probs: Tensor
) -> tuple[float | None, float]:
    readout = model.readout
    centred = readout.centred(residual)
    computed_scale = readout.scale(centred)
    scale_apart = None if scale is None else _apart(computed_scale, scale.squeeze(-1))
    if scale_apart is not None and not scale_apart <= CLOSED_FORM_TOLERANCE:
        raise UnsupportedModel(f"{model.name}: its final norm is neither LayerNorm nor RMSNorm as Eq. 2 has them.")
    apart = _apart(readout.logits(centred, computed_scale).log_softmax(-1), log_probs)
    if not apart <= CLOSED_FORM_TOLERANCE:
        raise UnsupportedModel(
            f"{model.name}: its logits are not norm(x)·W_U + b_U (a soft-cap or another step follows). The closed "
            "forms of the effects do not hold for it."
        )
    return scale_apart, apart


def _apart(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value; NaN where one is not finite."""
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
