"""What is said of a graphics card before anything is computed on it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from precompute import installation
from precompute.gpu import Gpu

H100 = Gpu(
    "2.13.0+cu130", "13.0", "3.9.0", None, "580.65", "NVIDIA H100", (9, 0), ("sm_80", "sm_90", "compute_120"),
    80 * 10**9, 79 * 10**9,
)  # fmt: skip
NONE = replace(H100, name=None, capability=None, compiled_for=(), memory=None, free=None)


def wrong(gpu: Gpu) -> dict[str, str]:
    return {finding.what: finding.sentence for finding in gpu.diagnoses() if not finding.is_well}


def test_a_good_card_is_well() -> None:
    assert H100.why_not is None
    assert wrong(H100) == {}
    assert wrong(replace(H100, capability=(8, 6))) == {}, "sm_80 runs on 8.6"
    assert wrong(replace(H100, capability=(13, 0))) == {}, "compute_120 is compiled for later cards"


@pytest.mark.parametrize(
    ("gpu", "what", "words"),
    [
        (replace(H100, triton_lacks="it finds no C compiler: install gcc"), "Triton", "install gcc"),
        (replace(H100, capability=(6, 1)), "architecture", "Triton needs 7.0"),
        (replace(H100, capability=(7, 5)), "architecture", "sm_75"),
        (replace(H100, free=10**9), "memory", "--memory"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(gpu: Gpu, what: str, words: str) -> None:
    assert list(wrong(gpu)) == [what]
    assert words in wrong(gpu)[what]


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (replace(NONE, driver=None), "no NVIDIA driver"),
        (replace(NONE, torch_version="2.13.0+cpu", torch_cuda=None), "a build for CPUs"),
        (NONE, "driver may be too old"),
    ],
)
def test_without_a_card_one_sentence_says_why(gpu: Gpu, words: str) -> None:
    assert gpu.why_not is not None
    assert words in gpu.why_not
    assert gpu.why_not in wrong(gpu)["card"]


def test_doctor_looks_at_the_card_where_one_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installation, "choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(Gpu, "here", lambda index: replace(H100, free=10**9))
    found = {one.what: one for one in installation.inspect_installation(tmp_path, "auto", "127.0.0.1", 0)}
    assert found["architecture"].is_well
    assert not found["memory"].is_well
