"""A card to run on: for the effects one that is simulated everywhere, so that their tests run in CI, and a real one.

On a simulated card numbers are those of the CPU; what is tested is that every tensor is where it must be. Rounding,
memory, the compiled kernel, and whole models are tested on a real one (`make gpu-check`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from tests.reference import simulated_card


@dataclass(frozen=True)
class Card:
    """A device to put tensors on."""

    device: torch.device
    waits: Counter[str]
    """How often the processor waited for a simulated card, and for what; empty on a real one."""

    @property
    def is_real(self) -> bool:
        return torch.cuda.is_available()


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.cuda)])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    if request.param == "real":
        yield Card(torch.device("cuda:0"), Counter())
        return
    if torch.cuda.is_available():
        pytest.skip("there is a real card")
    with simulated_card.simulated(monkeypatch) as mode:
        yield Card(simulated_card.CARD, mode.waits)
