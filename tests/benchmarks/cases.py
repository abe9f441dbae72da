"""What is measured: tokens, neurons and weights, with their float64 truth for some pairs."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from backend.core.kernels.problem import Ablations, Before, DirectPath
from backend.core.metrics.effects import PairStatistics, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.readout import Readout
from precompute.corpus import counted_positions
from tests.benchmarks.published import CHUNK, published_effects
from tests.core.prose import PROSE

Deltas = tuple[Tensor, ...]
"""Changes of loss (total, frozen), of entropy (total, frozen), and of the loss beside frequencies where known."""
_CHECKED_TOKENS, _CHECKED_NEURONS = 4, 60


@dataclass(frozen=True)
class Case:
    """A readout, tokens, and the neurons that are ablated on them."""

    name: str
    readout: Readout
    batch: TokenBatch
    means: Tensor
    share: float = 1.0
    """Part of the model's neurons that is there."""

    def tokens(self, count: int) -> "Case":
        rows = self.batch
        return replace(
            self, batch=TokenBatch(rows.residual[:count], rows.activations[:count], rows.targets[:count])
        )  # fmt: skip

    def neurons(self, count: int) -> "Case":
        batch = replace(self.batch, activations=self.batch.activations[:, :count])
        readout = replace(self.readout, W_out=self.readout.W_out[:count])
        share = self.share * count / len(self.readout.W_out)
        return replace(self, readout=readout, batch=batch, means=self.means[:count], share=share)

    def problem(self, path: DirectPath, *, frequencies: bool = False) -> tuple[Ablations, Before]:
        readout, batch = self.readout, self.batch
        centred = readout.centred(batch.residual)
        scale = readout.scale(centred)
        deltas = self.means - batch.activations
        r = scale[:, None] / readout.ablated_scale(centred, scale, deltas)
        logits = readout.logits(centred, scale)
        direction = self.frequencies().direction.to(logits) if frequencies else None
        problem = Ablations(logits, batch.targets, deltas / scale[:, None], r, path, readout.b_U, direction)
        return problem, Before.of(logits, batch.targets, readout.b_U)

    def frequencies(self) -> Unigram:
        """Token frequencies as text has them: by Zipf's law, in a random order."""
        d_vocab = self.readout.W_U.shape[1]
        order = torch.randperm(d_vocab, generator=torch.Generator().manual_seed(0))
        return Unigram.of_counts(1e6 / (1 + order.double()))

    def published(self, *, frequencies: bool = False) -> Deltas:
        """By the baseline."""
        direction = self.frequencies().direction.to(self.readout.W_U) if frequencies else None
        return published_effects(self.readout, self.batch, self.means, direction)

    def error(self, found: Deltas) -> float:
        """Largest |found − float64| over the first tokens and some neurons, in nats."""
        count = found[0].shape[1]
        checked = np.random.default_rng(0).choice(count, min(count, _CHECKED_NEURONS), replace=False)
        readout = self.readout
        exact = replace(
            readout, W_out=readout.W_out[checked].double(), W_U=readout.W_U.double(),
            b_U=None if readout.b_U is None else readout.b_U.double(),
        )  # fmt: skip
        worst = 0.0
        for t in range(_CHECKED_TOKENS):
            x, target = self.batch.residual[t].double(), self.batch.targets[t]
            deltas = (self.means - self.batch.activations[t]).double()[checked]
            streams = exact.centred(torch.cat([x[None], x + deltas[:, None] * exact.W_out]))
            scales = exact.scale(streams)
            truth = []
            for scale in (scales, scales[:1].expand_as(scales)):
                log_p = exact.logits(streams, scale).log_softmax(1)
                truth.append((-log_p[:, target], -(log_p.exp() * log_p).sum(1)))
            (loss, entropy), (loss_frozen, entropy_frozen) = truth
            for column, values in zip(found[:4], (loss, loss_frozen, entropy, entropy_frozen), strict=True):
                own = column[t, checked].double()
                worst = max(worst, float((own - (values[1:] - values[0])).abs().max()))
        return worst


def deltas_of(pairs: PairStatistics) -> Deltas:
    found = (pairs.delta_loss, pairs.delta_loss_frozen, pairs.delta_entropy, pairs.delta_entropy_frozen)
    return found if pairs.delta_loss_freq is None else (*found, pairs.delta_loss_freq)


def packaged(model: AnalysisModel) -> Case:
    """Real text on the packaged model, all neurons of its last layer."""
    tokens = np.array([[model.bos, *model.encode(PROSE)]])
    trace = model.trace(torch.from_numpy(tokens))
    counted = torch.from_numpy(np.flatnonzero(counted_positions(tokens, model.uncounted)))
    batch = TokenBatch(
        trace.residual[0, counted], trace.activations[0, counted], torch.from_numpy(tokens)[0, counted + 1]
    )  # fmt: skip
    return Case("SmolLM2-135M, real text", model.readout, batch, trace.activations[0].mean(dim=0))


@dataclass(frozen=True)
class Shape:
    """The sizes of a model whose weights are not here."""

    name: str
    d_model: int
    d_mlp: int
    d_vocab: int
    norm: str
    bias: bool
    measured: int
    """Neurons that are made and measured, a multiple of the baseline's chunk."""


SHAPES = (
    Shape("GPT-2 Small", 768, 3072, 50_257, "LayerNorm", True, 51 * CHUNK),
    Shape("Qwen2.5 0.5B", 896, 4864, 151_936, "RMSNorm", False, 25 * CHUNK),
    Shape("LLaMA-2 7B", 4096, 11_008, 32_000, "RMSNorm", False, 25 * CHUNK),
    Shape("Gemma 2B", 2048, 16_384, 256_000, "RMSNorm", False, 10 * CHUNK),
)


def synthetic(shape: Shape, tokens: int, device: str = "cpu") -> Case:
    """Random weights; ablations whose sizes are spread as they are in the packaged model, over four decades."""
    g = torch.Generator().manual_seed(0)
    W_U = torch.randn(shape.d_model, shape.d_vocab, generator=g) * (2.5 / shape.d_model**0.5)
    W_out = torch.randn(shape.measured, shape.d_model, generator=g) / shape.d_model**0.5
    if shape.norm == "LayerNorm":
        W_out -= W_out.mean(dim=1, keepdim=True)
    residual = torch.randn(tokens, shape.d_model, generator=g)
    b_U = 0.5 * torch.randn(shape.d_vocab, generator=g) if shape.bias else None
    readout = Readout(W_out, W_U, b_U, shape.norm, 1e-5)  # type: ignore[arg-type]
    sizes = torch.exp(1.9 * torch.randn(tokens, shape.measured, generator=g)) * 0.0027
    activations = sizes * torch.randn(tokens, shape.measured, generator=g).sign() * (shape.d_model / 2.5**2) ** 0.5
    targets = readout.logits(residual, readout.scale(residual)).topk(40, dim=1).indices[torch.arange(tokens), 7]
    W_out, W_U, residual, activations, targets = (x.to(device) for x in (W_out, W_U, residual, activations, targets))
    b_U = None if b_U is None else b_U.to(device)
    name = f"{shape.name}'s shape: {shape.d_mlp} neurons, {shape.d_vocab} tokens, random weights"
    readout = replace(readout, W_out=W_out, W_U=W_U, b_U=b_U)
    batch = TokenBatch(residual, activations, targets)
    return Case(name, readout, batch, torch.zeros(shape.measured, device=device), shape.measured / shape.d_mlp)
