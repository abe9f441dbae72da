"""`Atlas`: the only door to the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from backend.atlas import damage, resuming
from backend.atlas.connect import PATIENCE, atlas_url, connect
from backend.atlas.jobs import Jobs
from backend.atlas.query import NeuronQuery
from backend.atlas.reader import NotInAtlas
from backend.atlas.records import Array, ModelRecord, NeuronRecord, RunPlan, RunRecord
from backend.atlas.schema import ModelRow, NeuronRow, RunRow, ShardRow, UnigramRow
from backend.atlas.writer import Writer

__all__ = ["Atlas", "NotInAtlas"]

_SILENCE = timedelta(minutes=2)
"""A running run that has not been heard of for this long counts as interrupted."""
_MODEL_FIELDS = tuple(ModelRecord.__dataclass_fields__)
_RUN_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name != "status")


class Atlas(Jobs):
    """An open atlas. Make one with `Atlas.open`; use it as a context manager, or `close` it."""

    def __init__(self, location: str | Path, *, read_only: bool, patience: float) -> None:
        url = atlas_url(location)
        self._engine = connect(url, read_only=read_only, patience=patience)
        self._owners: dict[int, str] = {}
        """The marks under which runs were begun here."""

    @classmethod
    def open(cls, location: str | Path, *, read_only: bool = False, patience: float = PATIENCE) -> Self:
        """Open the atlas at a path or database URL; a writable one is created and brought up to date.

        Args:
            patience: seconds that another process's lock is waited for, whenever the atlas is asked.

        Raises:
            AtlasMissing, AtlasUnusable: with a sentence that says what to do.
        """
        return cls(location, read_only=read_only, patience=patience)

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """One transaction: everything that the writer is told is there afterwards, or nothing. One at a time."""
        with self._changing() as session:
            yield Writer(session, self._owners)

    def begin_run(self, plan: RunPlan, say: resuming.Say = lambda _: None) -> RunRecord:
        """The run of a plan: a new one, or the one with the same fingerprint, set to running unless it is finished.

        A new run's model has the plan's slug, unless that is taken: then the weights' hash is added to it. An
        unfinished run belongs from now on to this atlas object alone, and has only such finished parts as would be made
        the same now.

        Args:
            say: is told what of an unfinished run is dropped, and why.
        """
        owner = resuming.new_owner()
        with self._changing() as session:
            row = session.scalar(select(RunRow).where(RunRow.fingerprint == plan.fingerprint))
            if row is None:
                model = _own_model(session, plan)
                session.merge(ModelRow(**vars(model)))
                row = _new_run(plan, model.slug, owner)
                session.add(row)
            elif row.status != "finished":
                resuming.take_up(session, row, plan, owner, say)
            session.flush()
            record = _run_record(row)
        self._owners[record.id] = owner
        return record

    def beat(self, run: int) -> None:
        """Say that somebody is working on a run; nothing else of it changes."""
        with self._changing() as session:
            session.execute(update(RunRow).where(RunRow.id == run).values(heartbeat=datetime.now(UTC)))

    def finish_run(self, run: int) -> None:
        """Make a run final; from now on nothing of it can change. Finishing it again changes nothing.

        Raises:
            NotInAtlas: no such run.
        """
        if self.run(run).status == "finished":
            return
        self._end(run, status="finished", stage="done", progress=1.0, finished_at=datetime.now(UTC))

    def fail_run(self, run: int, message: str) -> None:
        """Mark a run as failed, with what happened; beginning it again resumes it."""
        self._end(run, status="failed", message=message[:2000])

    def _end(self, run: int, **fields: Any) -> None:
        with self.writing() as writer:
            writer.update_run(run, **fields)

    def shards_done(self, run: int, stage: str) -> set[int]:
        """The indices of a stage's finished shards."""
        return set(self._all(select(ShardRow.index).where(ShardRow.run == run, ShardRow.stage == stage)))

    def shards(self, run: int, stage: str) -> Iterator[tuple[int, dict[str, Array]]]:
        """A stage's finished shards by index, in order."""
        wanted = select(ShardRow).where(ShardRow.run == run, ShardRow.stage == stage).order_by(ShardRow.index)
        with self._session() as session:
            for row in session.scalars(wanted):
                yield row.index, resuming.unsealed(row.arrays)

    def models(self) -> list[ModelRecord]:
        """All models, by name."""
        return [_model_record(row) for row in self._all(select(ModelRow).order_by(ModelRow.name))]

    def model(self, slug: str) -> ModelRecord:
        """
        Raises:
            NotInAtlas: no such model.
        """
        row = self._one(select(ModelRow).where(ModelRow.slug == slug))
        if row is None:
            raise NotInAtlas(f"The atlas has no model {slug[:80]!r}: see /api/v1/models for those it has.")
        return _model_record(row)

    def runs(self, slug: str) -> list[RunRecord]:
        """A model's runs, newest first."""
        return [
            _run_record(row) for row in self._all(select(RunRow).where(RunRow.model == slug).order_by(RunRow.id.desc()))
        ]

    def run(self, run: int) -> RunRecord:
        """
        Raises:
            NotInAtlas: no such run.
        """
        row = self._one(select(RunRow).where(RunRow.id == run))
        if row is None:
            raise NotInAtlas(f"The atlas has no run {run}: see /api/v1/models for its models and their runs.")
        return _run_record(row)

    def newest_run(self, slug: str | None = None, layer: int | None = None) -> int | None:
        """The run to show first, of one model and layer or of all: one of the last layer before others, finished ones
        before unfinished, newest first."""
        wanted = _first_shown(select(RunRow.id))
        if slug is not None:
            wanted = wanted.where(RunRow.model == slug)
        found = self._all(wanted if layer is None else wanted.where(RunRow.layer == layer))
        return found[0] if found else None

    def finished_run(self, name: str) -> int | None:
        """The newest finished run of the last layer of a model, which is called by its slug, its name or its source."""
        called = (ModelRow.slug == name) | (ModelRow.name == name) | (ModelRow.source == name)
        found = self._all(_first_shown(select(RunRow.id).where(called, RunRow.status == "finished")))
        last = [run for run in found if self.run(run).layer == self.model(self.run(run).model).n_layers - 1]
        return last[0] if last else None

    def run_with_frequencies(self, slug: str, run: int | None) -> RunRecord | None:
        """The run whose token frequencies to take: the given one, or of a model's runs that have them the one that
        pages show first; None where there is none.

        Raises:
            NotInAtlas: the run does not exist, or belongs to another model.
        """
        if run is not None and self.run(run).model != slug:
            raise NotInAtlas(f"Run {run} is of the model {self.run(run).model!r}, not of {slug!r}.")
        wanted = select(RunRow.id).join(UnigramRow, UnigramRow.run == RunRow.id).where(RunRow.model == slug)
        wanted = wanted if run is None else wanted.where(RunRow.id == run)
        found = self._all(_first_shown(wanted))
        return self.run(found[0]) if found else None

    def neurons(self, run: int, query: NeuronQuery) -> tuple[list[NeuronRecord], int]:
        """One page of a run's neurons, and how many match in all."""
        matching = query.filtered(select(NeuronRow).where(NeuronRow.run == run))
        total = self._all(select(func.count()).select_from(matching.subquery()))[0]
        return [_neuron_record(row, query.columns) for row in self._all(query.page(matching))], total

    def columns(self, run: int, names: list[str]) -> dict[str, NDArray[np.float64]]:
        """Metrics of all neurons by name, NaN where not measured; and `index` and `effect_tokens`. In index order."""
        wanted = [NeuronRow.index, NeuronRow.effect_tokens, *(getattr(NeuronRow, name) for name in names)]
        rows = self._rows(select(*wanted).where(NeuronRow.run == run).order_by(NeuronRow.index))
        where = f"the neurons of run {run}"
        with damage.reading(where):
            table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(len(rows), len(wanted))
        if not np.array_equal(table[:, 0], np.arange(len(rows))) or not np.isfinite(table[:, 1]).all():
            raise damage.AtlasDamaged(where, "are not one row each, from 0 on")
        return dict(zip(["index", "effect_tokens", *names], table.T, strict=True))

    def classes(self, run: int) -> list[str]:
        """The class of every neuron, in index order."""
        return self._all(select(NeuronRow.neuron_class).where(NeuronRow.run == run).order_by(NeuronRow.index))

    def marks(self, run: int) -> list[bool | None]:
        """Whether each neuron passes the paper's own selection, in index order; None where that is not known."""
        return self._all(select(NeuronRow.paper_criterion).where(NeuronRow.run == run).order_by(NeuronRow.index))

    def neuron(self, run: int, index: int, names: list[str]) -> NeuronRecord | None:
        row = self._one(select(NeuronRow).where(NeuronRow.run == run, NeuronRow.index == index))
        return None if row is None else _neuron_record(row, names)

    def reference_means(self, slug: str, run: int | None) -> tuple[NDArray[np.float64] | None, str]:
        """The mean activation of every last-layer neuron, [d_mlp], and where it comes from; None where no run of the
        model has measured it.

        Args:
            run: the run to take it from; None takes the one that pages show first.

        Raises:
            NotInAtlas: the run does not exist, belongs to another model, or has not measured activations yet.
        """
        chosen = self.newest_run(slug) if run is None else run
        if chosen is not None:
            record = self.run(chosen)
            if record.model != slug:
                raise NotInAtlas(f"Run {chosen} is of the model {record.model!r}, not of {slug!r}.")
            if record.layer != self.model(slug).n_layers - 1:
                if run is None:
                    return None, "mean over this text: no run has measured the last layer's activations yet"
                raise NotInAtlas(f"Run {run} is of layer {record.layer}: it has no means of the last layer's neurons.")
            means = self.columns(chosen, ["mean_activation"])["mean_activation"]
            if len(means) and np.isfinite(means).all():
                return means, f"mean over {record.tokens_sampled} tokens of {record.corpus} (run {chosen})"
            if run is not None:
                raise NotInAtlas(f"Run {run} has not measured mean activations yet: wait, or leave `run` out.")
        return None, "mean over this text: no run has measured the model's activations yet"


def _first_shown(runs: Select[int]) -> Select[int]:
    last = (RunRow.layer == ModelRow.n_layers - 1).desc()
    joined = runs.join(ModelRow, ModelRow.slug == RunRow.model)
    return joined.order_by(last, (RunRow.status == "finished").desc(), RunRow.id.desc()).limit(1)


def _own_model(session: Session, plan: RunPlan) -> ModelRecord:
    """The plan's model, under a slug of its own.

    Two folders called `model` have the same slug, and so has a folder before and after its weights were trained on:
    runs of the first must not become runs of the second.
    """
    known = session.get(ModelRow, plan.model.slug)
    if known is None:
        return plan.model
    others = select(RunRow.id).where(RunRow.model == known.slug, RunRow.weights_hash != plan.weights_hash).limit(1)
    if session.scalar(others) is None:
        return plan.model
    mark = plan.weights_hash[:8]
    return replace(plan.model, slug=f"{plan.model.slug}-{mark}", name=f"{plan.model.name} ({mark})")


def _new_run(plan: RunPlan, slug: str, owner: str) -> RunRow:
    planned = {name: value for name, value in vars(plan).items() if name != "model"}
    now = datetime.now(UTC)
    return RunRow(
        **planned,
        model=slug,
        fingerprint=plan.fingerprint,
        owner=owner,
        status="running",
        stage="queued",
        progress=0.0,
        tokens_sampled=0,
        tokens_counted=0,
        created_at=now,
        heartbeat=now,
        revision=0,
    )


def _model_record(row: ModelRow) -> ModelRecord:
    fields = {name: getattr(row, name) for name in _MODEL_FIELDS}
    return damage.record(ModelRecord, f"the model {row.slug!r}"[:90], fields)


def _run_record(row: RunRow) -> RunRecord:
    where = f"run {row.id}"
    with damage.reading(where):
        silent = row.status == "running" and datetime.now(UTC) - row.heartbeat > _SILENCE
    fields = {name: getattr(row, name) for name in _RUN_FIELDS}
    return damage.record(RunRecord, where, fields | {"status": "interrupted" if silent else row.status})


def _neuron_record(row: NeuronRow, names: list[str]) -> NeuronRecord:
    plain = ("layer", "index", "neuron_class", "effect_tokens", "paper_criterion")
    fields = {name: getattr(row, name) for name in plain}
    metrics = {name: getattr(row, name) for name in names}
    return damage.record(NeuronRecord, f"a neuron of run {row.run}", fields | {"metrics": metrics})
