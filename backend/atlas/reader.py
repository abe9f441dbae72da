"""What the atlas knows of a run's neurons beyond their scalar metrics: read only, by run and index."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Executable, Select, func, select
from sqlalchemy.exc import DatabaseError, TimeoutError
from sqlalchemy.orm import Session, undefer

from backend.atlas import damage
from backend.atlas.connect import failure
from backend.atlas.records import Array, ContextRecord, SampledPositions, ShownContext, TraceRecord
from backend.atlas.schema import (
    POSITIONS,
    ContextRow,
    DirectionRow,
    HistogramRow,
    ModelRow,
    PositionsRow,
    RunRow,
    ShardRow,
    SpectrumRow,
    TokenEffectsRow,
    TraceRow,
    UnigramRow,
)
from backend.core.errors import CalibroscopeError

_ADVICE = "See that its file is whole and writable and its disk has room, or that its server runs; then try again."

_EFFECTS = {"activation", "delta_loss", "delta_loss_frozen", "delta_entropy", "delta_entropy_frozen"}
"""What every run keeps of a neuron at single tokens; newer ones keep more."""


class NotInAtlas(CalibroscopeError):
    """The atlas has no such model, run or neuron, or not that part of it yet."""


class Reader:
    """The reading half of `Atlas`."""

    _engine: Engine

    def histogram(self, run: int, index: int) -> tuple[Array, Array] | None:
        """Edges and counts of a neuron's activations, or None while they are not measured."""
        row = self._one(select(HistogramRow).where(HistogramRow.run == run, HistogramRow.index == index))
        return (
            None if row is None else _histogram(f"the histogram of neuron {index} of run {run}", row.edges, row.counts)
        )

    def contexts(self, run: int, index: int) -> list[ShownContext]:
        """The contexts that show a neuron, loudest first within each bucket."""
        wanted = (
            select(TraceRow, ContextRow)
            .join(ContextRow, ContextRow.id == TraceRow.context)
            .where(TraceRow.run == run, TraceRow.index == index)
            .order_by(TraceRow.id)
        )
        with damage.reading(f"a context of neuron {index} of run {run}"):
            return [_shown(trace, context) for trace, context in self._rows(wanted)]

    def first_predictions(self, run: int, contexts: Collection[int], windows: int) -> dict[int, tuple[float, int]]:
        """The loss and the rank of the first token of contexts, predicted at the end of the context before; nothing for
        those that begin a sequence.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        ids = self._all(select(ContextRow.id).where(ContextRow.run == run).order_by(ContextRow.id))
        before = {ids[i]: ids[i - 1] for i in range(len(ids)) if i % windows and ids[i] in contexts}
        wanted = select(ContextRow.id, ContextRow.loss, ContextRow.rank).where(ContextRow.id.in_(before.values()))
        ends = {row.id: (float(row.loss[-1]), int(row.rank[-1])) for row in self._rows(wanted)}
        return {own: ends[earlier] for own, earlier in before.items()}

    def positions(self, run: int) -> SampledPositions | None:
        """The positions whose per-token effects are kept, or None while there are none."""
        row = self._one(select(PositionsRow).where(PositionsRow.run == run))
        if row is None:
            return None
        before = (row.loss_before, row.entropy_before, row.rank_before, row.kl_before)
        kept = self._one(select(ShardRow.arrays).where(ShardRow.run == run, ShardRow.stage == POSITIONS))
        where = f"what run {run} keeps of its sampled positions"
        with damage.reading(where):
            sequences = None if kept is None else kept["sequences"]
        damage.axis(where, *before, sequences, length=len(row.tokens))
        if len(row.targets) != len(row.tokens):
            raise damage.AtlasDamaged(where, "has more tokens than targets, or fewer")
        return SampledPositions(row.tokens, row.targets, *before, sequences)

    def token_effects(self, run: int, indices: list[int]) -> list[dict[str, Array]]:
        """Per-token effects of neurons at the sampled positions, in index order; empty while there are none."""
        chosen = TokenEffectsRow.index.in_(indices)
        wanted = select(TokenEffectsRow.arrays).where(TokenEffectsRow.run == run, chosen)
        found = self._all(wanted.order_by(TokenEffectsRow.index))
        where = f"what run {run} keeps of its neurons' effects at single tokens"
        for arrays in found:
            if not arrays.keys() >= _EFFECTS:
                raise damage.AtlasDamaged(where, f"lacks {', '.join(sorted(_EFFECTS - arrays.keys()))}")
            damage.axis(where, *arrays.values())
        return found

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
            damage.ids(where, ids, self._width(run, "d_vocab"))
        return row.top_ids, row.top_values, row.bottom_ids, row.bottom_values

    def spectrum(self, run: int) -> Array | None:
        """Singular values of W_U, largest first."""
        row = self._one(select(SpectrumRow).where(SpectrumRow.run == run))
        if row is None:
            return None
        damage.axis(f"the spectrum of run {run}", row.singular_values, length=self._width(run, "d_model"))
        return np.asarray(row.singular_values)

    def unigram(self, run: int) -> Array | None:
        """P_freq by token id, float32, [d_vocab]; None for a run made before it was kept, and while it is not known."""
        row = self._one(select(UnigramRow).where(UnigramRow.run == run))
        if row is None:
            return None
        where = f"the token frequencies of run {run}"
        damage.axis(where, row.p, length=self._width(run, "d_vocab"))
        if row.p.dtype.kind != "f" or row.p.min() < 0 or abs(float(row.p.sum(dtype=np.float64)) - 1) > 1e-3:
            raise damage.AtlasDamaged(where, "are no probabilities")
        return np.asarray(row.p)

    def cosines(self, run: int, index: int) -> Array | None:
        """|cos| of a neuron's w_out with every singular direction."""
        row = self._direction(run, index)
        if row is None or row.cosines is None:
            return None
        where = f"the cosines of neuron {index} of run {run}"
        with damage.reading(where):  # of a neuron that writes nothing they are no numbers
            damage.axis(where, np.nan_to_num(row.cosines), length=self._width(run, "d_model"))
        return row.cosines

    def vocabulary(self, slug: str) -> list[str]:
        """A model's token strings, by id; empty while they are not stored."""
        row = self._one(select(ModelRow).where(ModelRow.slug == slug).options(undefer(ModelRow.vocabulary)))
        if row is None or row.vocabulary is None:
            return []
        if len(row.vocabulary) != row.d_vocab:
            raise damage.AtlasDamaged(
                f"the vocabulary of {slug!r}", f"has {len(row.vocabulary)} tokens, the model {row.d_vocab!r}"
            )
        return list(row.vocabulary)

    def similar(self, run: int, index: int) -> tuple[Array, Array] | None:
        """The neurons whose w_out is most like a neuron's, nearest first, and the cosines; None for a run made before
        they were kept."""
        row = self._direction(run, index)
        if row is None or row.similar_ids is None or row.similar_values is None:
            return None
        where = f"the neighbours of neuron {index} of run {run}"
        damage.axis(where, np.nan_to_num(row.similar_values), row.similar_ids)
        damage.ids(where, row.similar_ids, self._width(run, "d_mlp"))
        return row.similar_ids, row.similar_values

    def logit_histogram(self, run: int, index: int) -> tuple[Array, Array] | None:
        """Edges and counts of a neuron's direct logits over the vocabulary; None for a run made before they were
        kept."""
        row = self._direction(run, index)
        if row is None or row.logit_edges is None or row.logit_counts is None:
            return None
        where = f"the histogram of direct logits of neuron {index} of run {run}"
        return _histogram(where, row.logit_edges, row.logit_counts)

    def sampled_activations(self, run: int) -> NDArray[np.float32] | None:
        """Activations of all neurons at the sampled positions, [n_neurons, positions]; None while there are none."""
        wanted = select(TokenEffectsRow.arrays).where(TokenEffectsRow.run == run).order_by(TokenEffectsRow.index)
        with damage.reading(f"what run {run} keeps of its neurons' activations at single tokens"):
            found = [arrays["activation"] for arrays in self._all(wanted)]
            return np.stack(found) if found else None

    def sequence(self, run: int, context: int, windows: int) -> tuple[list[int], slice, list[int]] | None:
        """The tokens of the sequence that a context was cut from: those up to its end, its place among them, and those
        that follow it. None where the run has no such context.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        ids = ContextRow.run == run
        if self._one(select(ContextRow.id).where(ids, ContextRow.id == context)) is None:
            return None
        earlier = self._one(select(func.count()).select_from(ContextRow).where(ids, ContextRow.id < context))
        place = earlier % windows
        wanted = select(ContextRow.token_ids).where(ids).order_by(ContextRow.id)
        found = self._all(wanted.offset(earlier - place).limit(windows))
        self._check_tokens(run, found)
        with damage.reading(f"the text of run {run}"):
            parts = [part.tolist() for part in found]
            before, after = list(chain(*parts[:place])), list(chain(*parts[place + 1 :]))
            return before + parts[place], slice(len(before), len(before) + len(parts[place])), after

    def sequences(self, run: int, windows: int) -> NDArray[np.int64]:
        """The tokens of the run's sample, [sequences, seq_len]; none while its contexts are not stored.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        parts = self._all(select(ContextRow.token_ids).where(ContextRow.run == run).order_by(ContextRow.id))
        self._check_tokens(run, parts)
        complete = len(parts) - len(parts) % windows
        with damage.reading(f"the text of run {run}"):
            whole = [np.concatenate(parts[start : start + windows]) for start in range(0, complete, windows)]
            return np.stack(whole).astype(np.int64) if whole else np.zeros((0, 0), dtype=np.int64)

    def _check_tokens(self, run: int, parts: list[Array]) -> None:
        if not parts:
            return
        where, size = f"the text of run {run}", self._width(run, "d_vocab")
        for part in parts:
            damage.axis(where, part)
            damage.ids(where, part, size)

    def _width(self, run: int, of: str) -> int:
        """A size of a run's model: `d_model`, `d_mlp` or `d_vocab`."""
        found = self._one(
            select(getattr(ModelRow, of)).join(RunRow, RunRow.model == ModelRow.slug).where(RunRow.id == run)
        )
        if not isinstance(found, int):
            raise damage.AtlasDamaged(f"the model of run {run}", f"has no {of}")
        return found

    def _direction(self, run: int, index: int) -> DirectionRow | None:
        row: DirectionRow | None = self._one(
            select(DirectionRow).where(DirectionRow.run == run, DirectionRow.index == index)
        )
        return row

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """
        Raises:
            AtlasBusy: another process holds the atlas.
            AtlasUnusable: the database fails: its file is damaged, its disk full, its server gone.
        """
        try:
            with Session(self._engine) as session:
                yield session
        except (DatabaseError, TimeoutError) as error:
            raise failure(error, "The atlas fails", _ADVICE) from error

    def _all(self, wanted: Select[Any]) -> list[Any]:
        with self._session() as session, damage.reading(_tables(wanted)):
            return list(session.scalars(wanted))

    def _one(self, wanted: Select[Any]) -> Any:
        with self._session() as session, damage.reading(_tables(wanted)):
            return session.scalar(wanted)

    def _rows(self, wanted: Executable) -> list[Any]:
        with self._session() as session, damage.reading(_tables(wanted)):
            return list(session.execute(wanted))


def _tables(wanted: Executable) -> str:
    froms = wanted.get_final_froms() if isinstance(wanted, Select) else []
    names = sorted({str(getattr(table, "name", "a part of it")) for table in froms})
    return f"a row of {' and '.join(names)[:80]}"


def _histogram(where: str, edges: Array, counts: Array) -> tuple[Array, Array]:
    damage.axis(where, counts)
    damage.axis(where, edges, length=len(counts) + 1)
    if counts.dtype.kind != "i" or (len(counts) and counts.min() < 0):
        raise damage.AtlasDamaged(where, "has counts that are none")
    return edges, counts


def _shown(trace: TraceRow, context: ContextRow) -> ShownContext:
    where, tokens = f"context {context.id} of run {trace.run}", len(context.tokens)
    damage.axis(where, context.token_ids, context.entropy, trace.activations, length=tokens)
    damage.axis(where, context.loss, context.rank)
    if not tokens - 1 <= len(context.loss) <= tokens or not 0 <= trace.peak_position < tokens:
        raise damage.AtlasDamaged(where, "has a loss, or a peak, where there is no token")
    ids = context.token_ids.tolist()
    return ShownContext(
        id=context.id,
        context=ContextRecord(ids, context.tokens, context.loss, context.entropy, context.rank),
        trace=TraceRecord(trace.index, context.id, trace.bucket, trace.activations, trace.peak, trace.peak_position),
    )
