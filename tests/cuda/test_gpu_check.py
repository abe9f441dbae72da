"""`make gpu-check` as far as a processor allows: every step at a tiny size, and what is said without a card."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.core.models.sources import ModelFiles
from precompute.gpu import Gpu
from tests.benchmarks import gpu
from tests.benchmarks.cases import Shape
from tests.precompute.test_gpu import H100, NONE

TINY = Shape("A tiny model", 16, 40, 130, "LayerNorm", True, 40)


@pytest.fixture
def scale(tiny_files: Callable[[str], ModelFiles], tmp_path: Path) -> gpu.Scale:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Lamp {n} hangs by hook {n % 5}; <b>{n}</b> is lit.\n" for n in range(40)))
    tests = ("--collect-only", "-q", str(Path(__file__)))
    return gpu.Scale((TINY,), 8, 300, str(tiny_files("llama").folder), str(text), 4, 24, tests)


def test_every_step_is_done_and_kept(scale: gpu.Scale, tmp_path: Path) -> None:
    log = gpu.Log(tmp_path / "gpu-check.log")
    gpu.checked(log, H100, scale, torch.device("cpu"))
    kept = (tmp_path / "gpu-check.log").read_text()
    assert log.failures == []
    for words in (
        "GPU check: NVIDIA H100", "well: architecture", "test_every_step_is_done_and_kept", "published algorithm",
        "300 tokens", "Goal on an H100: 4 s", "Goal on an H100: 30 s", "Largest differences", "All is well.",
    ):  # fmt: skip
        assert words in kept, words


def test_a_step_that_breaks_is_named_and_the_others_are_done(
    scale: gpu.Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(gpu, "default_run", broken)
    monkeypatch.setattr(gpu, "timed", lambda *_: None)
    log = gpu.Log(tmp_path / "gpu-check.log")
    gpu.checked(log, H100, replace(scale, tests=("--no-such-option",)), torch.device("cpu"))
    assert len(log.failures) == 2
    kept = (tmp_path / "gpu-check.log").read_text()
    assert "illegal memory access" in kept
    assert "pytest ended with 4" in kept
    assert "s in all" in kept
    assert kept.rstrip().splitlines()[-1].startswith("WRONG: ")


def test_without_a_card_one_sentence_is_said_and_the_check_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Gpu, "here", lambda: NONE)
    assert gpu.main(["--log", str(tmp_path / "none.log")]) == 1
    assert capsys.readouterr().out.strip() == NONE.why_not
    assert not (tmp_path / "none.log").exists()
