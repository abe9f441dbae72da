"""Whether all is well on this machine's graphics card, and how fast it is: `make gpu-check`.

The card is looked at, the tests that need one are run, the effects of models' sizes are timed beside the published
algorithm in the same run, and the packaged model is analysed whole. All is printed, and kept in a file that can be
pasted. Without a card it says so in one sentence and ends with 1.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import platformdirs
import torch
from rich.console import Console

from backend.atlas.store import Atlas
from backend.core.kernels.choose import choose_kernel
from backend.core.kernels.engine import EffectsEngine
from backend.core.kernels.plain import every_pair as row_by_row
from backend.core.metrics.effects import EffectSums, TokenBatch
from backend.core.metrics.frequency import Unigram
from precompute import pipeline
from precompute.config import SHARD_TOKENS, RunConfig
from precompute.gpu import Gpu
from tests.benchmarks.__main__ import Method, table
from tests.benchmarks.cases import SHAPES, Case, Shape, synthetic

GOAL_EFFECTS, GOAL_RUN = 4.0, 30.0
"""Seconds on an H100: 25,600 tokens of GPT-2 Small's shape, and the packaged model's whole run."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    shapes: tuple[Shape, ...]
    """The first is the one that a default run is timed on."""
    tokens_a_table: int
    tokens_of_run: int
    model: str
    dataset: str
    sequences: int
    seq_len: int
    tests: tuple[str, ...]
    """Arguments of pytest."""


FULL = Scale(
    SHAPES, 256, 25_600, "smollm2-135m", "lee-news", 100, 256, ("-m", "cuda", "-q", "-p", "no:cacheprovider", "tests")
)  # fmt: skip


@dataclass
class Log:
    """What is printed, line by line, and kept."""

    path: Path
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.write_text("", encoding="utf-8")

    def say(self, text: str = "") -> None:
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")

    def write(self, text: str) -> int:
        """For what writes to a file."""
        if text.strip():
            self.say(text.rstrip("\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def failed(self, what: str) -> None:
        self.failures.append(what)
        self.say(f"WRONG: {what}")


def looked_at(log: Log, gpu: Gpu) -> None:
    """What the card is."""
    log.say("## The card\n")
    for finding in gpu.diagnoses():
        log.say(f"- {'well' if finding.is_well else 'WRONG'}: {finding.what}: {finding.sentence}")
        if not finding.is_well:
            log.failures.append(finding.what)


def tested(log: Log, scale: Scale) -> None:
    """The tests that are marked `cuda`."""
    log.say("\n## Tests that need a card\n")
    command = [sys.executable, "-m", "pytest", *scale.tests]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            log.write(f"    {line}")
    if running.returncode:
        log.failed(f"tests (pytest ended with {running.returncode})")


@torch.inference_mode()
def timed(log: Log, scale: Scale, device: torch.device) -> None:
    """Effects of every shape, beside the published algorithm."""
    log.say("\n## Effects: ms a token for all neurons of a layer, beside the published algorithm\n")
    kernel = choose_kernel(device)
    log.say(f"By {kernel.name} ({kernel.reason}).\n")
    console = Console(file=log, width=100)  # type: ignore[arg-type]  # it writes, which is all that is asked of it
    methods = (
        Method("published algorithm (baseline)", None, min(64, scale.tokens_a_table), 120),
        Method("row by row, plain torch", row_by_row, min(16, scale.tokens_a_table)),
        Method(kernel.name, kernel.every_pair, scale.tokens_a_table),
    )
    for shape in scale.shapes:
        figures = table(console, synthetic(shape, scale.tokens_a_table, str(device)), methods)
        if not figures[-1].error < 1e-4:
            log.failed(f"errors of {shape.name}'s shape ({figures[-1].error:.1e} nats)")


@torch.inference_mode()
def default_run(log: Log, scale: Scale, device: torch.device) -> float:
    """Seconds that effects with token frequencies take for all neurons of the first shape, as a run has them."""
    shape = replace(scale.shapes[0], measured=scale.shapes[0].d_mlp)
    case = synthetic(shape, SHARD_TOKENS, str(device))
    unigram = Unigram.of_mean(torch.rand(shape.d_vocab, generator=torch.Generator().manual_seed(1)))
    engine = EffectsEngine(case.readout, unigram=unigram)
    start = time.perf_counter()
    _effects(engine, case, SHARD_TOKENS)
    first = time.perf_counter() - start
    start = time.perf_counter()
    sums = _effects(engine, case, scale.tokens_of_run)
    seconds = time.perf_counter() - start
    assert sums.count == scale.tokens_of_run
    log.say(
        f"\nA default run's effects, token frequencies included, {shape.name}'s shape, {scale.tokens_of_run:,} tokens: "
        f"{seconds:.2f} s ({1e3 * seconds / scale.tokens_of_run:.3f} ms a token); compiling and choosing blocks before "
        f"that took {first:.1f} s. Goal on an H100: {GOAL_EFFECTS:g} s."
    )
    return seconds


def _effects(engine: EffectsEngine, case: Case, tokens: int) -> EffectSums:
    """Sums over so many tokens, a shard at a time, the tokens on the processor as a run keeps them."""
    batch = case.batch
    kept = TokenBatch(batch.residual.cpu(), batch.activations.cpu(), batch.targets.cpu())
    device, whole = batch.residual.device, None
    for start in range(0, tokens, SHARD_TOKENS):
        part = slice(0, min(SHARD_TOKENS, tokens - start))
        columns = (column[part].to(device) for column in (kept.residual, kept.activations, kept.targets))
        sums = EffectSums.of(engine.effects(TokenBatch(*columns), case.means), start // SHARD_TOKENS % 50)
        whole = sums if whole is None else whole.plus(sums)
    assert whole is not None
    return whole


class Stages:
    """A reporter that notes how long each stage of a run takes."""

    def __init__(self, log: Log) -> None:
        self._log, self._name, self._since = log, "Loading", time.perf_counter()
        self.seconds: dict[str, float] = {}

    def say(self, line: str) -> None:
        self._log.say(f"    {line}")

    def stage(self, name: str, total: int, done: int, unit: str) -> None:
        now = time.perf_counter()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now

    def advance(self, units: int) -> None:
        """Progress within a stage is not noted."""


def whole_run(log: Log, scale: Scale, device: torch.device) -> float:
    """Seconds that the packaged model's whole run takes, from its files in the cache to a finished atlas."""
    log.say(f"\n## The whole of `precompute`: {scale.model}, {scale.sequences} × {scale.seq_len} tokens\n")
    cache = platformdirs.user_cache_path("calibroscope")
    config = RunConfig(scale.model, scale.dataset, sequences=scale.sequences, seq_len=scale.seq_len)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder, Atlas.open(Path(folder) / "gpu.db") as atlas:
        stages, start = Stages(log), time.perf_counter()
        run = pipeline.run(config, atlas, cache, Path(folder) / "work", stages, str(device))
        seconds = time.perf_counter() - start
        stages.stage("", 1, 0, "")
        record = atlas.runs.get(run)
    log.say(", ".join(f"{name} {took:.1f} s" for name, took in stages.seconds.items()) + ".")
    if record.status != "finished":
        log.failed(f"the run is {record.status}")
    if device.type == "cuda":
        log.say(f"Peak of the card's memory: {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB.")
    precision = (record.card or {}).get("computation", {}).get("precision") or {}
    log.say(f"Largest differences from float64, nats: {precision}.")
    worst = max(
        (value for name, value in precision.items() if name in ("total", "frozen", "frequency_held")), default=None
    )
    if worst is None or not worst < 1e-4:
        log.failed("the run's effects are not those of float64")
    log.say(f"{seconds:.1f} s in all. Goal on an H100: {GOAL_RUN:g} s.")
    return seconds


def checked(log: Log, gpu: Gpu, scale: Scale, device: torch.device) -> None:
    """Every step; one that breaks is noted, and the others are still done."""
    log.say(f"# GPU check: {gpu.name}, {time.strftime('%Y-%m-%d')}\n")
    looked_at(log, gpu)
    for name, step in _steps(log, scale, device):
        try:
            step()
        except Exception as error:  # whatever it is, the person who pastes the log should see the rest too
            log.failed(f"{name}: {type(error).__name__}: {error}")
    log.say()
    log.say("All is well." if not log.failures else f"WRONG: {'; '.join(log.failures)}.")


def _steps(log: Log, scale: Scale, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "tests", lambda: tested(log, scale)
    yield "effects", lambda: timed(log, scale, device)
    yield "default run", lambda: default_run(log, scale, device)
    yield "whole run", lambda: whole_run(log, scale, device)


def main(arguments: list[str] | None = None) -> int:
    """Check, and return what the process ends with: 0 where all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=Path("gpu-check.log"))
    asked = parser.parse_args(arguments)
    gpu = Gpu.here()
    if gpu.why_not is not None:
        print(gpu.why_not)
        return 1
    log = Log(asked.log)
    checked(log, gpu, FULL, torch.device("cuda:0"))
    print(f"The log is in {asked.log}: paste it into docs/performance.md, or into a report.")
    return 1 if log.failures else 0


if __name__ == "__main__":
    sys.exit(main())
