"""The neurons of a run: their scalar metrics, and what is kept of each beyond these."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from backend.atlas import damage
from backend.atlas.database import Database
from backend.atlas.query import NeuronQuery
from backend.atlas.records import Array, NeuronRecord
from backend.atlas.schema import DirectionRow, HistogramRow, NeuronRow


class Neurons:
    """`Atlas.neurons`: read only, by run and index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, run: int, query: NeuronQuery) -> tuple[list[NeuronRecord], int]:
        """One page of a run's neurons, and how many match in all."""
        matching = query.filtered(select(NeuronRow).where(NeuronRow.run == run))
        total = self._database.all(select(func.count()).select_from(matching.subquery()))[0]
        return [_record(row, query.columns) for row in self._database.all(query.page(matching))], total

    def columns(self, run: int, names: list[str]) -> dict[str, NDArray[np.float64]]:
        """Metrics of all neurons by name, NaN where not measured; and `index` and `effect_tokens`. In index order."""
        wanted = [NeuronRow.index, NeuronRow.effect_tokens, *(getattr(NeuronRow, name) for name in names)]
        rows = self._database.rows(select(*wanted).where(NeuronRow.run == run).order_by(NeuronRow.index))
        where = f"the neurons of run {run}"
        with damage.reading(where):
            table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(len(rows), len(wanted))
        if not np.array_equal(table[:, 0], np.arange(len(rows))) or not np.isfinite(table[:, 1]).all():
            raise damage.AtlasDamaged(where, "are not one row each, from 0 on")
        return dict(zip(["index", "effect_tokens", *names], table.T, strict=True))

    def classes(self, run: int) -> list[str]:
        """The class of every neuron, in index order."""
        return self._database.all(select(NeuronRow.neuron_class).where(NeuronRow.run == run).order_by(NeuronRow.index))

    def marks(self, run: int) -> list[bool | None]:
        """Whether each neuron passes the paper's own selection, in index order; None where that is not known."""
        wanted = select(NeuronRow.paper_criterion).where(NeuronRow.run == run)
        return self._database.all(wanted.order_by(NeuronRow.index))

    def get(self, run: int, index: int, names: list[str]) -> NeuronRecord | None:
        row = self._database.one(select(NeuronRow).where(NeuronRow.run == run, NeuronRow.index == index))
        return None if row is None else _record(row, names)

    def histogram(self, run: int, index: int) -> tuple[Array, Array] | None:
        """Edges and counts of a neuron's activations, or None while they are not measured."""
        row = self._database.one(select(HistogramRow).where(HistogramRow.run == run, HistogramRow.index == index))
        return (
            None if row is None else _histogram(f"the histogram of neuron {index} of run {run}", row.edges, row.counts)
        )

    def logits(self, run: int, index: int) -> tuple[Array, Array, Array, Array] | None:
        """Top ids and values, bottom ids and values of a neuron's direct path."""
        row = self._direction(run, index)
        if row is None or row.top_ids is None or row.top_values is None:
            return None
        if row.bottom_ids is None or row.bottom_values is None:
            return None
        where = f"the tokens that neuron {index} of run {run} moves"
        for ids, values in ((row.top_ids, row.top_values), (row.bottom_ids, row.bottom_values)):
            damage.axis(where, ids, values)
            damage.ids(where, ids, self._database.width(run, "d_vocab"))
        return row.top_ids, row.top_values, row.bottom_ids, row.bottom_values

    def cosines(self, run: int, index: int) -> Array | None:
        """|cos| of a neuron's w_out with every singular direction."""
        row = self._direction(run, index)
        if row is None or row.cosines is None:
            return None
        where = f"the cosines of neuron {index} of run {run}"
        with damage.reading(where):  # of a neuron that writes nothing they are no numbers
            damage.axis(where, np.nan_to_num(row.cosines), length=self._database.width(run, "d_model"))
        return row.cosines

    def similar(self, run: int, index: int) -> tuple[Array, Array] | None:
        """The neurons whose w_out is most like a neuron's, nearest first, and the cosines; None for a run made before
        they were kept."""
        row = self._direction(run, index)
        if row is None or row.similar_ids is None or row.similar_values is None:
            return None
        where = f"the neighbours of neuron {index} of run {run}"
        damage.axis(where, np.nan_to_num(row.similar_values), row.similar_ids)
        damage.ids(where, row.similar_ids, self._database.width(run, "d_mlp"))
        return row.similar_ids, row.similar_values

    def logit_histogram(self, run: int, index: int) -> tuple[Array, Array] | None:
        """Edges and counts of a neuron's direct logits over the vocabulary; None for a run made before they were
        kept."""
        row = self._direction(run, index)
        if row is None or row.logit_edges is None or row.logit_counts is None:
            return None
        where = f"the histogram of direct logits of neuron {index} of run {run}"
        return _histogram(where, row.logit_edges, row.logit_counts)

    def _direction(self, run: int, index: int) -> DirectionRow | None:
        row: DirectionRow | None = self._database.one(
            select(DirectionRow).where(DirectionRow.run == run, DirectionRow.index == index)
        )
        return row


def _record(row: NeuronRow, names: list[str]) -> NeuronRecord:
    plain = ("layer", "index", "neuron_class", "effect_tokens", "paper_criterion")
    fields = {name: getattr(row, name) for name in plain}
    metrics = {name: getattr(row, name) for name in names}
    return damage.record(NeuronRecord, f"a neuron of run {row.run}", fields | {"metrics": metrics})


def _histogram(where: str, edges: Array, counts: Array) -> tuple[Array, Array]:
    damage.axis(where, counts)
    damage.axis(where, edges, length=len(counts) + 1)
    if counts.dtype.kind != "i" or (len(counts) and counts.min() < 0):
        raise damage.AtlasDamaged(where, "has counts that are none")
    return edges, counts
