"""The sampled positions of a run, and every neuron's effects at them."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from backend.atlas import damage
from backend.atlas.database import Database
from backend.atlas.records import Array, PositionsRecord
from backend.atlas.schema import POSITIONS, PositionsRow, ShardRow, TokenEffectsRow

_EFFECTS = {"activation", "delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen"}
"""What every run keeps of a neuron at single tokens; newer ones keep more."""


class Positions:
    """`Atlas.positions`: read only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run: int) -> PositionsRecord | None:
        """The positions whose per-token effects are kept, or None while there are none."""
        row = self._database.one(select(PositionsRow).where(PositionsRow.run == run))
        if row is None:
            return None
        before = (row.loss_before, row.entropy_before, row.rank_before, row.kl_before)
        kept = self._database.one(select(ShardRow.arrays).where(ShardRow.run == run, ShardRow.stage == POSITIONS))
        where = f"what run {run} keeps of its sampled positions"
        with damage.reading(where):
            sequences = None if kept is None else kept["sequences"]
        damage.axis(where, *before, sequences, length=len(row.tokens))
        if len(row.targets) != len(row.tokens):
            raise damage.AtlasDamaged(where, "has more tokens than targets, or fewer")
        return PositionsRecord(row.tokens, row.targets, *before, sequences)

    def effects(self, run: int, indices: list[int]) -> list[dict[str, Array]]:
        """Per-token effects of neurons at the sampled positions, in index order; empty while there are none."""
        chosen = TokenEffectsRow.index.in_(indices)
        wanted = select(TokenEffectsRow.arrays).where(TokenEffectsRow.run == run, chosen)
        by_neuron = self._database.all(wanted.order_by(TokenEffectsRow.index))
        where = f"what run {run} keeps of its neurons' effects at single tokens"
        for arrays in by_neuron:
            if not arrays.keys() >= _EFFECTS:
                raise damage.AtlasDamaged(where, f"lacks {', '.join(sorted(_EFFECTS - arrays.keys()))}")
            damage.axis(where, *arrays.values())
        return by_neuron

    def activations(self, run: int) -> NDArray[np.float32] | None:
        """Activations of all neurons at the sampled positions, [n_neurons, positions]; None while there are none."""
        wanted = select(TokenEffectsRow.arrays).where(TokenEffectsRow.run == run).order_by(TokenEffectsRow.index)
        with damage.reading(f"what run {run} keeps of its neurons' activations at single tokens"):
            by_neuron = [arrays["activation"] for arrays in self._database.all(wanted)]
            return np.stack(by_neuron) if by_neuron else None
