"""Every effect of every neuron of every family, against float64 brute force through the original model."""

from collections.abc import Callable

import pytest
import torch

from backend.core.kernels.engine import ablation_effects
from backend.core.metrics.effects import TokenBatch
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import FAMILIES, RELATIVES, VOCAB

TOKENS = 18
TOLERANCE = 2e-5
"""nats. The analysis runs in float32 on residuals that reach some tens; its rounding is some 1e-6."""


@pytest.mark.parametrize("family", FAMILIES | RELATIVES)
def test_effects_agree_with_brute_force(
    family: str, tiny_model: Callable[[str], AnalysisModel], tiny_files: Callable[[str], ModelFiles]
) -> None:
    known = (FAMILIES | RELATIVES)[family]
    model, reference = tiny_model(family), Reference(str(tiny_files(family).folder), known)
    tokens = torch.randint(2, VOCAB, (TOKENS,), generator=torch.Generator().manual_seed(3))
    trace = model.trace(tokens[None])
    torch.testing.assert_close(trace.activations[0].double(), reference.activations(tokens), atol=2e-5, rtol=1e-4)

    means = trace.activations[0].mean(dim=0)
    batch = TokenBatch(trace.residual[0, :-1], trace.activations[0, :-1], tokens[1:])
    effects = ablation_effects(model.readout, batch, means)
    before = reference.plain(tokens)
    assert model.d_mlp == known.d_mlp == model.readout.W_out.shape[0], "and not four times d_model"
    # The reference's norm, written out, is the model's own (whose RMSNorm computes in float32 whatever it is given).
    torch.testing.assert_close(before.loss, reference.unhooked(tokens).loss, atol=2e-6, rtol=0)
    torch.testing.assert_close(effects.before_loss.double(), before.loss, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(effects.before_entropy.double(), before.entropy, atol=TOLERANCE, rtol=0)
    assert torch.equal(effects.before_rank, before.rank)
    assert float(effects.delta_loss.abs().max()) > 1e-2, "ablations must matter, or agreement says nothing"

    for neuron in range(known.d_mlp):
        total = reference.ablated(tokens, neuron, float(means[neuron]), frozen=False)
        frozen = reference.ablated(tokens, neuron, float(means[neuron]), frozen=True)
        for found, expected in (
            (effects.delta_loss, total.loss - before.loss),
            (effects.delta_loss_frozen, frozen.loss - before.loss),
            (effects.delta_entropy, total.entropy - before.entropy),
            (effects.delta_entropy_frozen, frozen.entropy - before.entropy),
            (effects.delta_reciprocal_rank, 1 / total.rank - 1 / before.rank),
        ):
            torch.testing.assert_close(found[:, neuron].double(), expected.double(), atol=TOLERANCE, rtol=0)
        assert torch.equal(effects.changed[:, neuron], total.top != before.top)


def test_families_cover_both_norms_and_an_unembedding_bias(tiny_model: Callable[[str], AnalysisModel]) -> None:
    readouts = {family: tiny_model(family).readout for family in FAMILIES}
    assert {readout.norm for readout in readouts.values()} == {"LayerNorm", "RMSNorm"}
    assert readouts["phi"].b_U is not None
    assert readouts["llama"].b_U is None
