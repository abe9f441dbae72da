"""The sample's text: contexts that show a neuron, and the sequences that they were cut from."""

from collections.abc import Collection
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from backend.atlas import damage
from backend.atlas.database import Database
from backend.atlas.records import Array, ContextRecord, ShownContext, TraceRecord
from backend.atlas.schema import ContextRow, TraceRow


class Contexts:
    """`Atlas.contexts`: read only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def showing(self, run: int, index: int) -> list[ShownContext]:
        """The contexts that show a neuron, loudest first within each bucket."""
        wanted = (
            select(TraceRow, ContextRow)
            .join(ContextRow, ContextRow.id == TraceRow.context)
            .where(TraceRow.run == run, TraceRow.index == index)
            .order_by(TraceRow.id)
        )
        with damage.reading(f"a context of neuron {index} of run {run}"):
            return [_shown(trace, context) for trace, context in self._database.rows(wanted)]

    def first_predictions(self, run: int, contexts: Collection[int], windows: int) -> dict[int, tuple[float, int]]:
        """The loss and the rank of the first token of contexts, predicted at the end of the context before; nothing for
        those that begin a sequence.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        ids = self._database.all(select(ContextRow.id).where(ContextRow.run == run).order_by(ContextRow.id))
        before = {ids[i]: ids[i - 1] for i in range(len(ids)) if i % windows and ids[i] in contexts}
        wanted = select(ContextRow.id, ContextRow.loss, ContextRow.rank).where(ContextRow.id.in_(before.values()))
        ends = {row.id: (float(row.loss[-1]), int(row.rank[-1])) for row in self._database.rows(wanted)}
        return {context: ends[earlier] for context, earlier in before.items()}

    def sequence(self, run: int, context: int, windows: int) -> tuple[list[int], slice, list[int]] | None:
        """The tokens of the sequence that a context was cut from: those up to its end, its place among them, and those
        that follow it. None where the run has no such context.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        ids = ContextRow.run == run
        if self._database.one(select(ContextRow.id).where(ids, ContextRow.id == context)) is None:
            return None
        earlier = self._database.one(select(func.count()).select_from(ContextRow).where(ids, ContextRow.id < context))
        place = earlier % windows
        wanted = select(ContextRow.token_ids).where(ids).order_by(ContextRow.id)
        texts = self._database.all(wanted.offset(earlier - place).limit(windows))
        self._check_tokens(run, texts)
        with damage.reading(f"the text of run {run}"):
            parts = [part.tolist() for part in texts]
            before, after = list(chain(*parts[:place])), list(chain(*parts[place + 1 :]))
            return before + parts[place], slice(len(before), len(before) + len(parts[place])), after

    def sequences(self, run: int, windows: int) -> NDArray[np.int64]:
        """The tokens of the run's sample, [sequences, seq_len]; none while its contexts are not stored.

        Args:
            windows: contexts of a sequence; they were stored in order.
        """
        parts = self._database.all(select(ContextRow.token_ids).where(ContextRow.run == run).order_by(ContextRow.id))
        self._check_tokens(run, parts)
        complete = len(parts) - len(parts) % windows
        with damage.reading(f"the text of run {run}"):
            whole = [np.concatenate(parts[start : start + windows]) for start in range(0, complete, windows)]
            return np.stack(whole).astype(np.int64) if whole else np.zeros((0, 0), dtype=np.int64)

    def _check_tokens(self, run: int, parts: list[Array]) -> None:
        if not parts:
            return
        where, size = f"the text of run {run}", self._database.width(run, "d_vocab")
        for part in parts:
            damage.axis(where, part)
            damage.ids(where, part, size)


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
