"""One table: method × (ms a token for all last-layer neurons, largest error in nats), on the packaged model."""

import platform
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import platformdirs
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from backend.core.ablation import ablate_text
from backend.core.interventions import Intervention
from backend.core.metrics import engine, kernels, survey
from backend.core.metrics.effects import TokenBatch
from backend.core.metrics.kernels import Before, DirectPath, PairStatistics, Problem
from backend.core.model import AnalysisModel
from backend.core.neurons import NeuronId
from backend.core.sources import find_model
from backend.core.text import trace_text
from precompute.corpus import counted_positions
from tests.benchmarks.published import published_effects
from tests.core.prose import PROSE

Deltas = tuple[Tensor, Tensor, Tensor, Tensor]
_CHECKED_NEURONS = 60
_BASELINE_NEURONS = 120
"""The baseline is measured on the first of them, in batches of 64 tokens, where it is fastest, and scaled up: each of
its chunks of 20 neurons costs the same."""


class Case:
    """Tokens of a real text on the packaged model, with their float64 truth for some neurons."""

    def __init__(self, model: AnalysisModel) -> None:
        tokens = np.array([[model.bos, *model.encode(PROSE)]])
        trace = model.trace(torch.from_numpy(tokens))
        counted = torch.from_numpy(np.flatnonzero(counted_positions(tokens, model.uncounted)))
        self.readout, self.means = model.readout, trace.activations[0].mean(dim=0)
        self.residual, self.activations = trace.residual[0, counted], trace.activations[0, counted]
        self.targets = torch.from_numpy(tokens)[0, counted + 1]
        self.path = DirectPath.of(model.readout.W_out, model.readout.W_U, keep_powers=True)
        self.checked = np.random.default_rng(0).choice(_BASELINE_NEURONS, _CHECKED_NEURONS, replace=False)

    def batch(self, count: int) -> TokenBatch:
        return TokenBatch(self.residual[:count], self.activations[:count], self.targets[:count])

    def problem(self, count: int) -> Problem:
        batch, readout = self.batch(count), self.readout
        centred = readout.centred(batch.residual)
        scale = readout.scale(centred)
        deltas = self.means - batch.activations
        r = scale[:, None] / readout.ablated_scale(centred, scale, deltas)
        return Problem(
            readout.logits(centred, scale), batch.targets, deltas / scale[:, None], r, self.path, readout.b_U
        )

    def error(self, found: Deltas) -> float:
        """Largest |found − float64| over the first four tokens and the checked neurons, in nats."""
        worst, readout = 0.0, self.readout
        W_out, W_U = readout.W_out[self.checked].double(), readout.W_U.double()
        for t in range(4):
            x, target = self.residual[t].double(), self.targets[t]
            deltas = (self.means - self.activations[t]).double()[self.checked]
            streams = torch.cat([x[None], x + deltas[:, None] * W_out])
            scales = (streams.square().mean(1, keepdim=True) + readout.eps).sqrt()
            truth = []
            for scale in (scales, scales[:1]):
                log_p = ((streams / scale) @ W_U).log_softmax(1)
                truth.append((-log_p[:, target], -(log_p.exp() * log_p).sum(1)))
            (loss, entropy), (loss_frozen, entropy_frozen) = truth
            for column, values in zip(found, (loss, loss_frozen, entropy, entropy_frozen), strict=True):
                own = column[t, self.checked].double()
                worst = max(worst, float((own - (values[1:] - values[0])).abs().max()))
        return worst


def _deltas(pairs: PairStatistics) -> Deltas:
    return pairs.delta_loss, pairs.delta_loss_frozen, pairs.delta_entropy, pairs.delta_entropy_frozen


def _timed(work: Callable[[int], Deltas], tokens: int) -> tuple[float, Deltas]:
    """Milliseconds a token, the best of three, and the result."""
    best, found = float("inf"), None
    for _ in range(3):
        start = time.perf_counter()
        found = work(tokens)
        best = min(best, time.perf_counter() - start)
    assert found is not None
    return 1e3 * best / tokens, found


def _live_ms(model: AnalysisModel) -> float:
    text = trace_text(model, PROSE, 256)
    chosen = [Intervention(NeuronId(model.last_layer, 830), "mean")]
    times = []
    for _ in range(9):
        start = time.perf_counter()
        ablate_text(model, text, chosen, None)
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]


@torch.inference_mode()
def main() -> None:
    """Measure, print the table, and end with one line for machines."""
    cache = platformdirs.user_cache_path("calibroscope")
    model = AnalysisModel.load(find_model("smollm2-135m", cache, print), "cpu")
    case = Case(model)

    def by_kernel(kernel: Callable[[Problem, Before], PairStatistics]) -> Callable[[int], Deltas]:
        def work(count: int) -> Deltas:
            problem = case.problem(count)
            return _deltas(kernel(problem, Before.of(problem.logits, problem.targets)))

        return work

    def baseline(count: int) -> Deltas:
        batch, some = case.batch(count), slice(0, _BASELINE_NEURONS)
        readout = replace(case.readout, W_out=case.readout.W_out[some])
        part = TokenBatch(batch.residual, batch.activations[:, some], batch.targets)
        return published_effects(readout, part, case.means[some])

    methods: tuple[tuple[str, Callable[[int], Deltas], int, float], ...] = (
        ("published algorithm (baseline)", baseline, 64, model.d_mlp / _BASELINE_NEURONS),
        ("row by row, plain torch", by_kernel(kernels.every_pair), 16, 1.0),
        ("row by row, compiled", by_kernel(engine.by_rows), 64, 1.0),
        ("moment series, certified", by_kernel(engine.by_series), 256, 1.0),
        ("survey", by_kernel(survey.every_pair), 256, 1.0),
    )
    table = Table("method", "ms a token", "× baseline", "largest error (nats)")
    results: dict[str, tuple[float, float]] = {}
    for name, work, tokens, share in methods:
        milliseconds, found = _timed(work, tokens)
        milliseconds *= share
        results[name] = (milliseconds, case.error(found))
        ratio = results[methods[0][0]][0] / milliseconds
        table.add_row(name, f"{milliseconds:.1f}", f"{ratio:.0f}", f"{results[name][1]:.1e}")
    console = Console()
    console.print(f"SmolLM2-135M, {model.d_mlp} neurons, {model.d_vocab} tokens; {platform.machine()}, "
                  f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    console.print(table)
    baseline, exact, surveyed = (results[methods[n][0]] for n in (0, 3, 4))
    live = _live_ms(model)
    print(
        f"exact_ratio={baseline[0] / exact[0]:.1f} exact_error_nats={exact[1]:.2e} "
        f"survey_ratio={baseline[0] / surveyed[0]:.1f} survey_error={surveyed[1]:.2e} live_ms={live:.1f}"
    )


if __name__ == "__main__":
    main()
