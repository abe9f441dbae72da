"""The effects engine on a card: against float64, in both modes, without waiting for the card."""

from dataclasses import replace

import pytest
import torch

from backend.core.kernels.choose import Mode
from backend.core.kernels.engine import EffectsEngine
from backend.core.metrics.effects import Effects, EffectSums, TokenBatch
from backend.core.metrics.frequency import Unigram
from backend.core.metrics.precision import recomputed
from backend.core.models.readout import Readout
from tests.core.readouts import random_batch, random_readout
from tests.cuda.conftest import Card


def _placed(readout: Readout, batch: TokenBatch, device: torch.device) -> tuple[Readout, TokenBatch]:
    b_U = None if readout.b_U is None else readout.b_U.to(device)
    moved = (column.to(device) for column in (batch.residual, batch.activations, batch.targets))
    return replace(readout, W_out=readout.W_out.to(device), W_U=readout.W_U.to(device), b_U=b_U), TokenBatch(*moved)


def _case(bias: bool, tokens: int = 5) -> tuple[Readout, TokenBatch, Unigram]:
    readout = random_readout(3, norm="LayerNorm", bias=bias, neurons=11, d_model=24, d_vocab=150)
    readout.W_U.mul_(0.3)
    frequencies = torch.rand(150, generator=torch.Generator().manual_seed(5)) ** 4
    return readout, random_batch(3, readout, tokens), Unigram.of_mean(frequencies)


def _apart(found: Effects, readout: Readout, batch: TokenBatch, unigram: Unigram | None) -> float:
    neurons = torch.arange(found.delta_loss.shape[1])
    exact = recomputed(readout, batch, torch.zeros(len(neurons)), neurons, unigram)
    return max(float((getattr(found, name).cpu() - values).abs().max()) for name, values in exact.items())


@pytest.mark.parametrize("mode", ["exact", "survey"])
@pytest.mark.parametrize("bias", [False, True])
def test_effects_with_and_without_frequencies_are_those_of_float64(card: Card, bias: bool, mode: Mode) -> None:
    """A survey sums every term on a card as well: its bound is kept a thousand times over."""
    readout, batch, unigram = _case(bias)
    placed = _placed(readout, batch, card.device)
    for known in (None, unigram):
        engine = EffectsEngine(placed[0], mode, unigram=known)
        assert engine.kernel.name == "Triton"
        found = engine.effects(placed[1], torch.zeros(11, device=card.device))
        assert {values.device for values in vars(found).values() if values is not None} == {card.device}
        assert _apart(found, readout, batch, known) < 4e-6
        assert (found.delta_loss_freq is None) == (known is None)


def test_the_processor_waits_for_the_card_twice_a_batch(card: Card) -> None:
    """For whether a pair is beyond what the kernel can hold, and for the sums; nothing else is waited for."""
    if card.is_real:
        pytest.skip("waits are counted on a simulated card")
    readout, batch, unigram = _case(True)
    placed, tokens = _placed(readout, batch, card.device)
    engine, targets = EffectsEngine(placed, unigram=unigram), torch.zeros(11, device=card.device)
    engine.effects(tokens, targets)  # what is found once
    card.waits.clear()
    sums = EffectSums.of(engine.effects(tokens, targets), 3)
    assert sum(card.waits.values()) == 2, card.waits
    assert sums.groups == 1


def test_sums_by_group_are_those_of_the_processor(card: Card) -> None:
    readout, batch, unigram = _case(True)
    placed, tokens = _placed(readout, batch, card.device)
    on_card = EffectSums.of(
        EffectsEngine(placed, unigram=unigram).effects(tokens, torch.zeros(11, device=card.device)), 2
    )
    here = EffectSums.of(EffectsEngine(readout, unigram=unigram).effects(batch, torch.zeros(11)), 2)
    for name, column in here.columns().items():
        torch.testing.assert_close(
            torch.from_numpy(on_card.columns()[name]), torch.from_numpy(column), atol=5e-6, rtol=1e-3, equal_nan=True
        )


def test_slabs_of_neurons_and_tiles_of_tokens_change_nothing(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where A does not fit."""
    from backend.core.kernels import choose

    readout, batch, unigram = _case(False, tokens=9)
    placed, tokens = _placed(readout, batch, card.device)
    targets = torch.zeros(11, device=card.device)
    whole = EffectsEngine(placed, unigram=unigram).effects(tokens, targets)
    monkeypatch.setattr(choose.Tiles, "within", lambda *_: choose.Tiles(4, 8))
    tiled = EffectsEngine(placed, unigram=unigram).effects(tokens, targets)
    for name, values in vars(whole).items():
        torch.testing.assert_close(getattr(tiled, name).double(), values.double(), atol=2e-6, rtol=0)


@pytest.mark.cuda
def test_the_engine_keeps_to_its_memory() -> None:
    device = torch.device("cuda:0")
    readout = random_readout(1, neurons=4096, d_model=64, d_vocab=50_000)
    placed, tokens = _placed(readout, random_batch(1, readout, tokens=512), device)
    targets, memory = torch.zeros(4096, device=device), 10**9
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    EffectsEngine(placed, memory=memory, unigram=Unigram.of_mean(torch.rand(50_000))).effects(tokens, targets)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < memory
