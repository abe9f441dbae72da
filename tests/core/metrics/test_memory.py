"""The memory that the engine takes stays within the setting: measured as the peak of a process."""

import subprocess
import sys
from pathlib import Path

import pytest

_PEAK = """
import sys, torch
from pathlib import Path
from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.frequency import Unigram
from tests.core.readouts import random_batch, random_readout

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))

mode, memory = sys.argv[1], int(sys.argv[2])

def unigram(d_vocab):
    return Unigram.of_counts(1e6 / torch.arange(1, d_vocab + 1)) if sys.argv[3] == "True" else None

torch.set_grad_enabled(False)
readout = random_readout(1, neurons=900, d_model=64, d_vocab=40_000)
readout.W_U.mul_(0.1)
batch = random_batch(1, readout, tokens=80)
small = random_readout(1, neurons=20, d_model=64, d_vocab=900)  # what compiling takes is not the engine's
EffectsEngine(small, mode, unigram=unigram(900)).effects(random_batch(1, small, tokens=20), torch.zeros(20))
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
EffectsEngine(readout, mode, memory, unigram(40_000)).effects(batch, torch.zeros(900))
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux' /proc")
@pytest.mark.parametrize("mode", ["exact", "survey"])
@pytest.mark.parametrize("memory", [300_000_000, 600_000_000])
@pytest.mark.parametrize("frequency", [False, True])
def test_the_peak_stays_within_the_setting(mode: str, memory: int, frequency: bool) -> None:
    command = [sys.executable, "-c", _PEAK, mode, str(memory), str(frequency)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) <= memory
