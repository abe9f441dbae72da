"""`calibroscope precompute`, killed at random moments and begun again, ends with the atlas of an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.atlas.store import Atlas
from backend.core.models.sources import ModelFiles
from tests.precompute.atlas_content import assert_the_same, content

KILLS = 20
ROOT = Path(__file__).parent.parent.parent


class Zygote:
    """Makes processes that carry out command lines."""

    def __init__(self, cache: Path) -> None:
        own = {"CALIBROSCOPE_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.precompute.zygote"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | own, cwd=ROOT,
        )  # fmt: skip
        self._answer()

    def run(self, *arguments: object, kill_after: float = 300) -> int:
        """The exit code, or minus the signal that ended it; it is killed after so many seconds if it is not done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([[str(argument) for argument in arguments], kill_after]) + "\n")
        self.process.stdin.flush()
        return int(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the zygote is gone"
        return line.strip()


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    made = Zygote(tmp_path / "cache")
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def test_twenty_kills_at_random_moments(
    zygote: Zygote, tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Lamp {n} hangs by hook {n % 5}; {n * n} others are lit.\n" for n in range(80)))
    command = ["precompute", "--model", tiny_files("llama").folder, "--dataset", text, "--sequences", 12]
    command += ["--seq-len", 32, "--induction", 3, "--device", "cpu", "--out"]

    assert zygote.run(*command, tmp_path / "undisturbed.db") == 0
    began = time.monotonic()
    assert zygote.run(*command, tmp_path / "timed.db") == 0
    whole = time.monotonic() - began
    expected = content(tmp_path / "undisturbed.db")
    assert_the_same(content(tmp_path / "timed.db"), expected, "undisturbed")

    chance, kills, atlases, stages = random.Random(20240624), 0, 0, []
    while kills < KILLS:
        atlas, ended = tmp_path / f"killed-{atlases}.db", -signal.SIGKILL
        atlases += 1
        while kills < KILLS and ended == -signal.SIGKILL:
            ended = zygote.run(*command, atlas, kill_after=chance.uniform(0, whole))
            kills += ended == -signal.SIGKILL
            stages.append(_stage(atlas))
        assert zygote.run(*command, atlas) == 0
        assert_the_same(content(atlas), expected, f"after {kills} kills, at {stages}")
    assert len({stage.split()[0] for stage in stages}) >= 2, f"all fell into one stage: {stages}"
    assert not [path for path in (tmp_path / "cache" / "work").iterdir() if path.is_dir()]


def _stage(path: Path) -> str:
    """Where a killed run has come to."""
    try:
        with Atlas.open(path, read_only=True) as atlas:
            run = atlas.runs.get(1)
            return f"{run.stage} {run.progress:.2f}"
    except Exception:
        return "nothing yet"
