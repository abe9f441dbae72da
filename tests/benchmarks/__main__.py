"""Tables: method × (ms a token for all last-layer neurons, largest error in nats). `make bench`."""

import gc
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import platformdirs
import torch
from rich.console import Console
from rich.table import Table

from backend.core.interventions.ablation import ablate_text
from backend.core.interventions.kinds import Intervention
from backend.core.kernels import choose as engine
from backend.core.kernels import plain as kernels
from backend.core.kernels import survey
from backend.core.kernels.engine import EffectsEngine
from backend.core.kernels.problem import Ablations, Before, DirectPath
from backend.core.metrics.distributions import distribution
from backend.core.metrics.effects import EffectSums, PairStatistics
from backend.core.metrics.statistics import Moments
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import find_model
from backend.core.models.traced_text import trace_text
from backend.core.neurons import NeuronId
from tests.benchmarks.cases import SHAPES, Case, Deltas, deltas_of, packaged, synthetic
from tests.core.prose import PROSE

Kernel = Callable[[Ablations, Before], PairStatistics]


@dataclass(frozen=True)
class Method:
    """A way to compute the effects, and at how many tokens a batch it is measured."""

    name: str
    kernel: Kernel | None
    """None for the published algorithm."""
    tokens: int
    neurons: int | None = None
    """How many are measured, where each costs the same and all would take long."""
    frequencies: bool = False


_BASELINE = Method("published algorithm (baseline)", None, 64, 120)
"""In batches of 64 tokens, where it is fastest."""
_WITH_FREQUENCIES = replace(_BASELINE, name="… with token frequencies", frequencies=True)
_CPU = (
    _BASELINE,
    _WITH_FREQUENCIES,
    Method("row by row, plain torch", kernels.every_pair, 16),
    Method("row by row, compiled", engine.by_rows, 64),
    Method("moment series, certified", engine.by_series, 256),
    Method("survey", survey.every_pair, 256),
    Method("moment series … with token frequencies", engine.by_series, 256, frequencies=True),
    Method("survey … with token frequencies", survey.every_pair, 256, frequencies=True),
)


@dataclass(frozen=True)
class Figure:
    """Milliseconds a token for all of a model's neurons, and the largest error in nats."""

    milliseconds: float
    error: float


def measure(case: Case, method: Method) -> Figure:
    """The best of three, for all of a model's neurons.

    What is of the tokens alone costs the same however many neurons there are: where a share of them is there, half of
    it is measured too, and the cost of the others follows from the difference.
    """
    part = case.tokens(method.tokens)
    if method.neurons is not None:
        part = part.neurons(min(method.neurons, len(case.readout.W_out)))
    seconds, found = _best(part, method)
    if method.kernel is None or part.share == 1:
        seconds /= part.share
    else:
        seconds = _extrapolated(part, seconds, lambda fewer: _best(fewer, method)[0])
    return Figure(1e3 * seconds / len(part.batch.targets), part.error(found))


def _best(part: Case, method: Method) -> tuple[float, Deltas]:
    """Seconds, and what was found."""
    readout = part.readout
    path = None if method.kernel is None else DirectPath.of(readout.W_out, readout.W_U, keep_powers=True)

    def work() -> Deltas:
        if method.kernel is None or path is None:
            return part.published(frequencies=method.frequencies)
        return deltas_of(method.kernel(*part.problem(path, frequencies=method.frequencies)))

    best, found = float("inf"), work()  # once before, for what is compiled or kept
    for _ in range(3):
        start = time.perf_counter()
        found = work()
        if found[0].is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best, found


def _extrapolated(part: Case, seconds: float, measured: Callable[[Case], float]) -> float:
    """Seconds for all of a model's neurons, from those for a share of them and for half of that."""
    there = len(part.readout.W_out)
    half = there // 2
    return seconds + (seconds - measured(part.neurons(half))) / (there - half) * (there / part.share - there)


def table(console: Console, case: Case, methods: tuple[Method, ...]) -> list[Figure]:
    """Measure, print, return; what measures frequencies too is set beside the baseline that does."""
    console.print(case.name)
    rows = Table("method", "ms a token", "× baseline", "largest error (nats)")
    figures: list[Figure] = []
    for method in methods:
        figures.append(measure(case, method))
        ratio = _baseline(methods, figures, method.frequencies).milliseconds / figures[-1].milliseconds
        rows.add_row(
            method.name, f"{figures[-1].milliseconds:.1f}", f"{ratio:.0f}", f"{figures[-1].error:.1e}"
        )  # fmt: skip
    console.print(rows)
    return figures


def _baseline(methods: tuple[Method, ...], figures: list[Figure], frequencies: bool) -> Figure:
    """The published algorithm's figure: without token frequencies or with them."""
    alike = (figure for m, figure in zip(methods, figures, strict=False) if m.frequencies == frequencies)
    return next(alike)


def default_effects_ms(case: Case, baseline: Figure, console: Console) -> float:
    """Effects and their sums by group, with token frequencies, as a run with the default memory measures them; in ms a
    token for all of a model's neurons.

    Where A does not fit, it is measured as if what is there of it did. To that is added what each further slab costs:
    the predictions once more, taken from slabs of few neurons, and A's formation, which thousands of tokens share.
    """
    d_model, d_vocab = case.readout.W_U.shape
    d_mlp = round(len(case.readout.W_out) / case.share)
    tiles = engine.Tiles.within(engine.DEFAULT_MEMORY, d_mlp, d_model, d_vocab)
    kept = replace(tiles, neurons=d_mlp, keep_powers=True)
    first, again = _engine_seconds(case, kept)
    seconds = again if case.share == 1 else _extrapolated(case, again, lambda fewer: _engine_seconds(fewer, kept)[1])
    if tiles.neurons < d_mlp:
        few = replace(tiles, neurons=64)
        one, two = (_engine_seconds(case.neurons(count), few)[1] for count in (64, 128))
        a_neuron = (first - again) / len(case.readout.W_out)
        further = two - one - 128 * a_neuron  # the two slabs are formed each time, for these few tokens alone
        formed = a_neuron * d_mlp * len(case.batch.targets) / tiles.block
        seconds += (math.ceil(d_mlp / tiles.neurons) - 1) * further + formed
    found = 1e3 * seconds / len(case.batch.targets)
    console.print(
        f"The effects of a default run, token frequencies included: {found:.1f} ms a token, "
        f"{baseline.milliseconds / found:.0f} × the published algorithm with them."
    )
    return found


def _engine_seconds(case: Case, tiles: engine.Tiles) -> tuple[float, float]:
    """The first time, in which A and its powers are formed, and the best of three later ones."""
    measuring = EffectsEngine(case.readout, unigram=case.frequencies())
    measuring.tiles = tiles
    groups, chosen = np.arange(len(case.batch.targets)) % 50, torch.zeros_like(case.batch.targets, dtype=torch.bool)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        measuring.sums(case.batch, case.means, groups, chosen)
        times.append(time.perf_counter() - start)
    return times[0], min(times[1:])


def default_run_ms(model: AnalysisModel, case: Case) -> tuple[float, float]:
    """What a default run does, in ms a token, the best of three; and of that the effects alone.

    It runs the model over the tokens with a row of predictions each, takes the moments of the activations, and measures
    the effects with token frequencies and their sums by group. What a run does once (weights, chance lines, contexts)
    is left out, since its share depends on how many tokens there are.
    """
    tokens, groups = case.batch.targets, np.arange(len(case.batch.targets)) % 50
    engine_of_run = EffectsEngine(case.readout, unigram=case.frequencies())
    best, best_effects = float("inf"), float("inf")
    for _ in range(4):  # the first compiles and keeps powers
        start = time.perf_counter()
        trace = model.trace(tokens[None])
        logits = case.readout.logits(*_normed(case, trace.residual[0]))
        distribution(logits, tokens)
        logits.softmax(dim=1).sum(dim=0, dtype=torch.float64)
        Moments.of(trace.activations[0].double().numpy(), groups)
        middle = time.perf_counter()
        EffectSums.of(engine_of_run.effects(case.batch, case.means), groups)
        end = time.perf_counter()
        best, best_effects = min(best, end - start), min(best_effects, end - middle)
    return 1e3 * best / len(tokens), 1e3 * best_effects / len(tokens)


def _normed(case: Case, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centred = case.readout.centred(residual)
    return centred, case.readout.scale(centred)


def live_ms(model: AnalysisModel) -> float:
    """One neuron ablated on a traced text of 256 tokens; the median of nine."""
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
    """Print the tables, and end with one line for machines."""
    console = Console(width=100)
    processor = platform.processor() or platform.machine()
    console.print(f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    cache = platformdirs.user_cache_path("calibroscope")
    model = AnalysisModel.load(find_model("smollm2-135m", cache, print), "cpu")
    baseline, with_frequencies, _, _, exact, surveyed, exact_with, surveyed_with = table(console, packaged(model), _CPU)
    live = live_ms(model)
    whole, effects = default_run_ms(model, packaged(model).tokens(256))
    console.print(
        f"A default run, token frequencies included: {whole:.1f} ms a token, of which effects {effects:.1f}; "
        f"{with_frequencies.milliseconds / whole:.0f} × the published algorithm with them."
    )
    del model
    if "--quick" not in sys.argv:
        few = tuple(
            replace(m, tokens=min(m.tokens, 64), neurons=20 if m.kernel is None else None)
            for m in (*_CPU[:2], *_CPU[3:])
        )  # fmt: skip
        for shape in SHAPES:
            gc.collect()
            figures = table(console, synthetic(shape, 64), few)
            gc.collect()
            default_effects_ms(synthetic(shape, 256), figures[1], console)
        if torch.cuda.is_available():
            console.print("There is a GPU: `make gpu-check` checks and measures it.")
    print(
        f"exact_ratio={baseline.milliseconds / exact.milliseconds:.1f} exact_error_nats={exact.error:.2e} "
        f"survey_ratio={baseline.milliseconds / surveyed.milliseconds:.1f} survey_error={surveyed.error:.2e} "
        f"exact_frequencies_ratio={with_frequencies.milliseconds / exact_with.milliseconds:.1f} "
        f"survey_frequencies_ratio={with_frequencies.milliseconds / surveyed_with.milliseconds:.1f} "
        f"default_run_ratio={with_frequencies.milliseconds / whole:.1f} default_run_ms={whole:.1f} live_ms={live:.1f}"
    )


if __name__ == "__main__":
    main()
