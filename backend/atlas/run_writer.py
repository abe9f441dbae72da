"""Writing to the atlas, inside one transaction: all of it is there afterwards, or none."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from backend.atlas import resuming
from backend.atlas.arrays import nullable
from backend.atlas.records import Array, ContextRecord, PositionsRecord, TraceRecord
from backend.atlas.schema import (
    POSITIONS,
    ContextRow,
    DirectionRow,
    HistogramRow,
    ModelRow,
    NeuronRow,
    PositionsRow,
    RunRow,
    ShardRow,
    SpectrumRow,
    TokenEffectsRow,
    TraceRow,
    UnigramRow,
)
from backend.core.errors import CalibroscopeError
from backend.glossary import PAPER_CRITERION

_ROWS_AT_ONCE = 2_000


class RunIsFinished(CalibroscopeError):
    """A finished run is immutable."""


class RunTakenOver(CalibroscopeError):
    """Another process carries the run out now."""


class RunWriter:
    """Puts parts of a run into the atlas. Every `put_` replaces what was there. Made by `Atlas.runs.writing`."""

    def __init__(self, session: Session, owners: dict[int, str]) -> None:
        """owners: the mark under which each run was begun here."""
        self._session, self._owners = session, owners

    def add_shard(self, run: int, stage: str, index: int, arrays: dict[str, Array]) -> bool:
        """Keep a finished shard; False when it was there already."""
        made_by = self._touch(run).made_by
        if self._session.get(ShardRow, (run, stage, index)) is not None:
            return False
        whole = resuming.sealed(arrays, made_by, stage, index)
        self._session.add(ShardRow(run=run, stage=stage, index=index, arrays=whole))
        return True

    def set_neurons(
        self,
        run: int,
        layer: int,
        columns: dict[str, Array],
        classes: Sequence[str] | None = None,
        effect_tokens: int | None = None,
        marks: list[bool] | None = None,
    ) -> None:
        """Publish metrics, each [n_neurons]; other columns keep their values. NaN and infinities become NULL.

        Args:
            marks: whether each neuron passes the paper's own selection.

        Raises:
            TypeError: a neuron has no such column; SQLAlchemy's update would drop it in silence.
        """
        if unknown := columns.keys() - NeuronRow.__table__.columns.keys():
            raise TypeError(f"a neuron has no {', '.join(sorted(unknown))}")
        self._touch(run)
        size = len(next(iter(columns.values())))
        values: dict[str, list[Any]] = {name: nullable(column) for name, column in columns.items()}
        if classes is not None:
            values["neuron_class"] = list(classes)
        if marks is not None:
            values[PAPER_CRITERION] = list(marks)
        if effect_tokens is not None:
            values["effect_tokens"] = [effect_tokens] * size
        known = set(
            self._session.scalars(select(NeuronRow.index).where(NeuronRow.run == run, NeuronRow.layer == layer))
        )
        rows = [
            {"run": run, "layer": layer, "index": i} | {name: column[i] for name, column in values.items()}
            for i in range(size)
        ]
        new, old = [row for row in rows if row["index"] not in known], [row for row in rows if row["index"] in known]
        if new:
            self._session.execute(insert(NeuronRow), new)
        if old:
            self._session.execute(update(NeuronRow), old)

    def update_run(self, run: int, **fields: Any) -> None:
        """Change fields of the run: stage, progress, counts, means.

        Raises:
            TypeError: a run has no such field.
        """
        if unknown := fields.keys() - RunRow.__table__.columns.keys():
            raise TypeError(f"a run has no {', '.join(sorted(unknown))}")
        self._touch(run, **fields)

    def put_vocabulary(self, model: str, tokens: list[str]) -> None:
        """The model's token strings, by id."""
        self._session.execute(update(ModelRow).where(ModelRow.slug == model).values(vocabulary=tokens))

    def put_spectrum(self, run: int, singular_values: Array, cosines: Array) -> None:
        """Singular values [d_model] of W_U, and each neuron's |cos| with its directions [n_neurons, d_model]."""
        self._touch(run)
        self._session.merge(SpectrumRow(run=run, singular_values=singular_values.astype(np.float32)))
        self._put_directions(run, cosines=cosines.astype(np.float16))

    def put_logits(self, run: int, top_ids: Array, top_values: Array, bottom_ids: Array, bottom_values: Array) -> None:
        """The tokens that each neuron's direct path raises and lowers most, each [n_neurons, k]."""
        self._touch(run)
        self._put_directions(
            run,
            top_ids=top_ids.astype(np.int32),
            top_values=top_values.astype(np.float32),
            bottom_ids=bottom_ids.astype(np.int32),
            bottom_values=bottom_values.astype(np.float32),
        )

    def put_logit_histograms(self, run: int, edges: Array, counts: Array) -> None:
        """Each neuron's direct logits over the vocabulary: edges [n_neurons, bins + 1], counts [n_neurons, bins]."""
        self._touch(run)
        self._put_directions(run, logit_edges=edges.astype(np.float32), logit_counts=counts.astype(np.int32))

    def put_similar(self, run: int, ids: Array, cosines: Array) -> None:
        """The neurons whose w_out is most like each one's, nearest first, each [n_neurons, k]."""
        self._touch(run)
        self._put_directions(run, similar_ids=ids.astype(np.int32), similar_values=cosines.astype(np.float32))

    def put_unigram(self, run: int, p: Array) -> None:
        """How often each token occurs, [d_vocab]; in float32, which errs by 10⁻⁶ nats of a divergence at most."""
        self._touch(run)
        self._session.merge(UnigramRow(run=run, p=p.astype(np.float32)))

    def put_histograms(self, run: int, edges: Array, counts: Array) -> None:
        """Activation histograms: edges [n_neurons, bins + 1], counts [n_neurons, bins]."""
        self._touch(run)
        self._session.execute(delete(HistogramRow).where(HistogramRow.run == run))
        rows = (
            {"run": run, "index": i, "edges": edges[i].astype(np.float32), "counts": counts[i].astype(np.int32)}
            for i in range(len(edges))
        )
        self._insert(HistogramRow, rows)

    def put_contexts(self, run: int, contexts: list[ContextRecord]) -> list[int]:
        """The windows of the sample; their ids, in order. Traces on earlier ones are dropped with them."""
        self._touch(run)
        self._session.execute(delete(TraceRow).where(TraceRow.run == run))
        self._session.execute(delete(ContextRow).where(ContextRow.run == run))
        rows = [
            ContextRow(
                run=run,
                token_ids=np.array(context.token_ids, dtype=np.int32),
                tokens=context.tokens,
                loss=context.loss.astype(np.float32),
                entropy=context.entropy.astype(np.float32),
                rank=context.rank.astype(np.int32),
            )
            for context in contexts
        ]
        self._session.add_all(rows)
        self._session.flush()
        return [row.id for row in rows]

    def put_traces(self, run: int, traces: Iterable[TraceRecord]) -> None:
        """Which contexts show which neuron, with the activations."""
        self._touch(run)
        self._session.execute(delete(TraceRow).where(TraceRow.run == run))
        rows = (
            {
                "run": run,
                "index": trace.index,
                "context": trace.context_id,
                "bucket": trace.bucket,
                "activations": trace.activations.astype(np.float32),
                "peak": trace.peak,
                "peak_position": trace.peak_position,
            }
            for trace in traces
        )
        self._insert(TraceRow, rows)

    def put_positions(self, run: int, positions: PositionsRecord) -> None:
        """The positions whose per-token effects are kept."""
        made_by = self._touch(run).made_by
        self._session.merge(
            PositionsRow(
                run=run,
                tokens=positions.tokens,
                targets=positions.targets,
                loss_before=positions.loss_before.astype(np.float32),
                entropy_before=positions.entropy_before.astype(np.float32),
                rank_before=positions.rank_before.astype(np.int32),
                kl_before=None if positions.kl_before is None else positions.kl_before.astype(np.float32),
            )
        )
        if positions.sequences is not None:
            arrays = {"sequences": positions.sequences.astype(np.int64)}
            whole = resuming.sealed(arrays, made_by, POSITIONS, 0)
            self._session.merge(ShardRow(run=run, stage=POSITIONS, index=0, arrays=whole))

    def put_token_effects(self, run: int, arrays: dict[str, Array]) -> None:
        """Effects at the sampled positions by name, each [n_neurons, positions]."""
        self._touch(run)
        self._session.execute(delete(TokenEffectsRow).where(TokenEffectsRow.run == run))
        size = len(next(iter(arrays.values())))
        rows = (
            {"run": run, "index": i, "arrays": {name: array[i].astype(np.float32) for name, array in arrays.items()}}
            for i in range(size)
        )
        self._insert(TokenEffectsRow, rows)

    def _touch(self, run: int, **fields: Any) -> RunRow:
        row = self._session.get(RunRow, run)
        if row is None:
            raise KeyError(f"no run {run}")
        if row.status == "finished":
            raise RunIsFinished(f"Run {run} is finished and cannot be changed: begin another.")
        if run not in self._owners:
            raise RunTakenOver(f"Run {run} was not begun here, so nothing is written to it.")
        if row.owner != self._owners[run]:
            raise RunTakenOver(
                f"Run {run} has been taken up by another process, which goes on with what is finished of it: this one "
                "stops."
            )
        for name, value in fields.items():
            setattr(row, name, value)
        row.heartbeat = datetime.now(UTC)
        row.revision += 1
        return row

    def _put_directions(self, run: int, **arrays: Array) -> None:
        size = len(next(iter(arrays.values())))
        known = set(self._session.scalars(select(DirectionRow.index).where(DirectionRow.run == run)))
        rows = [{"run": run, "index": i} | {name: array[i] for name, array in arrays.items()} for i in range(size)]
        if known:
            self._session.execute(update(DirectionRow), rows)
        else:
            self._session.execute(insert(DirectionRow), rows)

    def _insert(self, table: type[Any], rows: Iterable[dict[str, Any]]) -> None:
        for batch in _batches(rows):
            self._session.execute(insert(table), batch)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _ROWS_AT_ONCE)):
        yield batch
