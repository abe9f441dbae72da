"""No run gets anything of another, whatever becomes of that one: killed at any stage, running meanwhile, or finished.

Every test shares one cache among runs and compares each whole atlas with the one that a clean cache gives.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backend.atlas.run_writer import RunTakenOver
from backend.atlas.store import Atlas
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from precompute import maker, pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from precompute.sample import TracedShard, Traces
from tests.precompute.atlas_content import Content, assert_the_same, content
from tests.reference.tiny_models import build

STAGES = ["Weights 0", "Activations 1", "Contexts 0", "Effects 0", "Effects 2"]
"""A stage, and how many of its steps are done."""


class Killed(BaseException):
    """Ends a run as a signal would: nothing catches it."""


class At(Silent):
    """Does something when a run has come to a place."""

    def __init__(self, place: str, act: Callable[[], None]) -> None:
        self._place, self._act, self._stage, self._done = place, act, "", 0

    def stage(self, name: str, total: int, done: int, unit: str) -> None:
        self._stage, self._done = name, 0
        self._look()

    def advance(self, units: int) -> None:
        self._done += 1
        self._look()

    def _look(self) -> None:
        if f"{self._stage} {self._done}" == self._place:
            self._act()


class Telling(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def kill() -> None:
    raise Killed


@dataclass
class Bench:
    """Runs that differ in one thing each, and what a clean cache gives for them."""

    base: RunConfig
    others: dict[str, RunConfig]
    folder: Path
    expected: dict[str, Content]

    def run(self, config: RunConfig, atlas: Path, cache: Path, reporter: Silent | None = None) -> None:
        if not atlas.exists():
            atlas.parent.mkdir(exist_ok=True)
            shutil.copy(self.folder / "empty.db", atlas)  # as opening a new one would make it, in less time
        with Atlas.open(atlas) as opened:
            pipeline.run(config, opened, cache, cache / "work", reporter or Silent(), "cpu")

    def clean(self, name: str) -> Content:
        if name not in self.expected:
            config = self.base if name in ("base", "atlas") else self.others[name]
            folder = self.folder / f"clean-{name}"
            self.run(config, folder / "a.db", folder)
            self.expected[name] = content(folder / "a.db")
        return self.expected[name]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_files: Callable[[str], ModelFiles]) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    for name in ("one", "other"):
        (folder / name).mkdir()
        lines = (f"The {name} lamp {n} hangs by {n % 7} hooks and {n * n} nails.\n" for n in range(40))
        (folder / name / "text.txt").write_text("".join(lines))
    base = RunConfig(str(tiny_files("llama").folder), str(folder / "one" / "text.txt"), sequences=5, seq_len=24)
    others = {
        "corpus": replace(base, dataset=str(folder / "other" / "text.txt")),
        "seed": replace(base, seed=1),
        "length": replace(base, seq_len=20),
        "layer": replace(base, layer=0),
        # by the same name, of the same shape
        "model": replace(base, model=str(build("llama", folder, seed=8).folder)),
        "atlas": base,
    }
    Atlas.open(folder / "empty.db").close()
    return Bench(base, others, folder, {})


@pytest.fixture(scope="module")
def load() -> Callable[[ModelFiles, str], AnalysisModel]:
    """Loads each model once: nothing changes one."""
    plain, loaded = AnalysisModel.load, {}

    def once(files: ModelFiles, device: str, dtype: str = "auto") -> AnalysisModel:
        if files.folder not in loaded:
            loaded[files.folder] = plain(files, device, dtype)
        return loaded[files.folder]

    return once


@pytest.fixture(autouse=True)
def _small_and_fast(load: Callable[[ModelFiles, str], AnalysisModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnalysisModel, "load", load)
    monkeypatch.setattr(pipeline, "SHARD_TOKENS", 30)
    monkeypatch.setattr("precompute.sample.SHARD_SEQUENCES", 2)


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_leaves_nothing_to_others_and_ends_the_same(bench: Bench, tmp_path: Path, stage: str) -> None:
    reached = At(stage, kill)
    with pytest.raises(Killed):
        bench.run(bench.base, tmp_path / "base.db", tmp_path, reached)
    for name, config in bench.others.items():
        bench.run(config, tmp_path / f"{name}.db", tmp_path)
        assert_the_same(content(tmp_path / f"{name}.db"), bench.clean(name), f"after a run killed at {stage}: {name}")
    going_on = Telling()
    bench.run(bench.base, tmp_path / "base.db", tmp_path, going_on)
    assert_the_same(content(tmp_path / "base.db"), bench.clean("base"), f"killed at {stage} and resumed")
    assert not [line for line in going_on.said if "anew" in line], "nothing was damaged or of other code"


@pytest.mark.parametrize("stage", STAGES[1:])
def test_runs_at_the_same_time_do_not_meet(bench: Bench, tmp_path: Path, stage: str) -> None:
    """The others begin and end while the first one is at a stage; then the first one goes on."""

    def run_the_others() -> None:
        for name, config in bench.others.items():
            bench.run(config, tmp_path / f"{name}.db", tmp_path)

    bench.run(bench.base, tmp_path / "base.db", tmp_path, At(stage, run_the_others))
    for name in bench.others:
        assert_the_same(content(tmp_path / f"{name}.db"), bench.clean(name), f"while one was at {stage}: {name}")
    assert_the_same(content(tmp_path / "base.db"), bench.clean("base"), f"while others ran at {stage}")


def test_an_atlas_that_was_deleted_is_made_anew(bench: Bench, tmp_path: Path) -> None:
    """Interrupted, its atlas deleted, and another text measured into a new one of that name."""
    with pytest.raises(Killed):
        bench.run(bench.base, tmp_path / "a.db", tmp_path, At("Effects 0", kill))
    for file in tmp_path.glob("a.db*"):
        file.unlink()
    bench.run(bench.others["corpus"], tmp_path / "a.db", tmp_path)
    assert_the_same(content(tmp_path / "a.db"), bench.clean("corpus"))


@pytest.mark.parametrize("stage", STAGES[1:])
def test_two_at_the_same_run_of_one_atlas_do_no_harm(bench: Bench, tmp_path: Path, stage: str) -> None:
    """The second takes it up and finishes it; the first sees that at its next write."""
    reporter = At(stage, lambda: bench.run(bench.base, tmp_path / "a.db", tmp_path))
    bench.run(bench.base, tmp_path / "a.db", tmp_path, reporter)
    assert_the_same(content(tmp_path / "a.db"), bench.clean("base"), f"taken up at {stage}")


def test_a_run_that_another_process_took_up_stops_with_a_sentence(bench: Bench, tmp_path: Path) -> None:
    """The run stays as the other left it: neither failed, nor with older sums published over its own."""

    def begin_again_and_die() -> None:
        with pytest.raises(Killed):
            bench.run(bench.base, tmp_path / "a.db", tmp_path, At("Effects 1", kill))

    with pytest.raises(RunTakenOver, match="another process"):
        bench.run(bench.base, tmp_path / "a.db", tmp_path, At("Effects 2", begin_again_and_die))
    with Atlas.open(tmp_path / "a.db") as atlas:
        assert atlas.runs.get(1).status == "running"
    bench.run(bench.base, tmp_path / "a.db", tmp_path)
    assert_the_same(content(tmp_path / "a.db"), bench.clean("base"))


@pytest.mark.parametrize("change", ["cut", "bit", "swapped", "empty"])
def test_a_damaged_working_file_is_made_anew(bench: Bench, tmp_path: Path, change: str) -> None:
    with pytest.raises(Killed):
        bench.run(bench.base, tmp_path / "a.db", tmp_path, At("Effects 2", kill))
    first, second, *_ = sorted((tmp_path / "work").rglob("trace-*.safetensors"))
    whole = first.read_bytes()
    bit = whole[:-9] + bytes([whole[-9] ^ 2]) + whole[-8:]
    first.write_bytes({"cut": whole[:-64], "bit": bit, "swapped": second.read_bytes(), "empty": b""}[change])
    bench.run(bench.base, tmp_path / "a.db", tmp_path)
    assert_the_same(content(tmp_path / "a.db"), bench.clean("base"), change)


@pytest.mark.parametrize("format", ["results", "versions"])
def test_what_older_code_left_is_not_gone_on_with(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Its runs here keep other numbers: all of them would show in the end if they were read."""
    plain = Traces._compute

    def otherwise(self: Traces, sequences: slice) -> TracedShard:
        shard = plain(self, sequences)
        return replace(shard, activations=shard.activations + 1, loss=shard.loss + 1)

    with monkeypatch.context() as older:
        older.setattr(Traces, "_compute", otherwise)
        if format == "versions":
            older.setattr(maker, "version", lambda name: "0.1")
        else:
            older.setattr("precompute.config.RESULTS_FORMAT", 0)
        with pytest.raises(Killed):
            bench.run(bench.base, tmp_path / "a.db", tmp_path, At("Effects 2", kill))
    bench.run(bench.base, tmp_path / "b.db", tmp_path)
    assert_the_same(content(tmp_path / "b.db"), bench.clean("base"), format)
    if format == "versions":
        bench.run(bench.base, tmp_path / "a.db", tmp_path)
        assert_the_same(content(tmp_path / "a.db"), bench.clean("base"), format)
