"""The runs of an atlas: begun, carried on, finished; and what is kept of each as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from backend.atlas import damage, resuming
from backend.atlas.database import Database, NotInAtlas
from backend.atlas.models import Models
from backend.atlas.neurons import Neurons
from backend.atlas.records import Array, ModelRecord, RunPlan, RunRecord
from backend.atlas.run_writer import RunWriter
from backend.atlas.schema import ModelRow, RunRow, ShardRow, SpectrumRow, UnigramRow
from backend.core.neurons import Experts

_SILENCE = timedelta(minutes=2)
"""A running run that has not been heard of for this long counts as interrupted."""
_FIELDS = tuple(name for name in RunRecord.__dataclass_fields__ if name not in ("status", "experts"))


class Runs:
    """`Atlas.runs`: every run as a record, what is kept of it as a whole, and the way it is written."""

    def __init__(self, database: Database, models: Models, neurons: Neurons) -> None:
        self._database, self._models, self._neurons = database, models, neurons
        self._owners: dict[int, str] = {}
        """The marks under which runs were begun here."""

    def begin(self, plan: RunPlan, say: resuming.Say = lambda _: None) -> RunRecord:
        """The run of a plan: a new one, or the one with the same fingerprint, set to running unless it is finished.

        A new run's model has the plan's slug, unless that is taken: then the weights' hash is added to it. An
        unfinished run belongs from now on to this atlas object alone, and has only such finished parts as would be made
        the same now.

        Args:
            say: is told what of an unfinished run is dropped, and why.
        """
        owner = resuming.new_owner()
        with self._database.changing() as session:
            row = session.scalar(select(RunRow).where(RunRow.fingerprint == plan.fingerprint))
            if row is None:
                model = _model_of(session, plan)
                session.merge(ModelRow(**vars(model)))
                row = _new_run(plan, model.slug, owner)
                session.add(row)
            elif row.status != "finished":
                resuming.take_up(session, row, plan, owner, say)
            session.flush()
            record = _record(row)
        self._owners[record.id] = owner
        return record

    @contextmanager
    def writing(self) -> Iterator[RunWriter]:
        """One transaction: everything that the writer is told is there afterwards, or nothing. One at a time."""
        with self._database.changing() as session:
            yield RunWriter(session, self._owners)

    def beat(self, run: int) -> None:
        """Say that somebody is working on a run; nothing else of it changes."""
        with self._database.changing() as session:
            session.execute(update(RunRow).where(RunRow.id == run).values(heartbeat=datetime.now(UTC)))

    def finish(self, run: int) -> None:
        """Make a run final; from now on nothing of it can change. Finishing it again changes nothing.

        Raises:
            NotInAtlas: no such run.
        """
        if self.get(run).status == "finished":
            return
        self._end(run, status="finished", stage="done", progress=1.0, finished_at=datetime.now(UTC))

    def fail(self, run: int, message: str) -> None:
        """Mark a run as failed, with what happened; beginning it again resumes it."""
        self._end(run, status="failed", message=message[:2000])

    def _end(self, run: int, **fields: Any) -> None:
        with self.writing() as writer:
            writer.update_run(run, **fields)

    def shards_done(self, run: int, stage: str) -> set[int]:
        """The indices of a stage's finished shards."""
        return set(self._database.all(select(ShardRow.index).where(ShardRow.run == run, ShardRow.stage == stage)))

    def shards(self, run: int, stage: str) -> Iterator[tuple[int, dict[str, Array]]]:
        """A stage's finished shards by index, in order."""
        wanted = select(ShardRow).where(ShardRow.run == run, ShardRow.stage == stage).order_by(ShardRow.index)
        with self._database.session() as session:
            for row in session.scalars(wanted):
                yield row.index, resuming.unsealed(row.arrays)

    def of_model(self, slug: str) -> list[RunRecord]:
        """A model's runs, newest first."""
        wanted = select(RunRow).where(RunRow.model == slug).order_by(RunRow.id.desc())
        return [_record(row) for row in self._database.all(wanted)]

    def get(self, run: int) -> RunRecord:
        """
        Raises:
            NotInAtlas: no such run.
        """
        row = self._database.one(select(RunRow).where(RunRow.id == run))
        if row is None:
            raise NotInAtlas(f"The atlas has no run {run}: see /api/v1/models for its models and their runs.")
        return _record(row)

    def newest(self, slug: str | None = None, layer: int | None = None) -> int | None:
        """The run to show first, of one model and layer or of all: one of the last layer before others, finished ones
        before unfinished, newest first."""
        wanted = _first_shown(select(RunRow.id))
        if slug is not None:
            wanted = wanted.where(RunRow.model == slug)
        runs = self._database.all(wanted if layer is None else wanted.where(RunRow.layer == layer))
        return runs[0] if runs else None

    def newest_finished(self, name: str) -> int | None:
        """The newest finished run of the last layer of a model, which is called by its slug, its name or its source."""
        called = (ModelRow.slug == name) | (ModelRow.name == name) | (ModelRow.source == name)
        runs = self._database.all(_first_shown(select(RunRow.id).where(called, RunRow.status == "finished")))
        last = [run for run in runs if self.get(run).layer == self._models.get(self.get(run).model).n_layers - 1]
        return last[0] if last else None

    def with_frequencies(self, slug: str, run: int | None) -> RunRecord | None:
        """The run whose token frequencies to take: the given one, or of a model's runs that have them the one that
        pages show first; None where there is none.

        Raises:
            NotInAtlas: the run does not exist, or belongs to another model.
        """
        if run is not None and self.get(run).model != slug:
            raise NotInAtlas(f"Run {run} is of the model {self.get(run).model!r}, not of {slug!r}.")
        wanted = select(RunRow.id).join(UnigramRow, UnigramRow.run == RunRow.id).where(RunRow.model == slug)
        wanted = wanted if run is None else wanted.where(RunRow.id == run)
        runs = self._database.all(_first_shown(wanted))
        return self.get(runs[0]) if runs else None

    def spectrum(self, run: int) -> Array | None:
        """Singular values of W_U, largest first."""
        row = self._database.one(select(SpectrumRow).where(SpectrumRow.run == run))
        if row is None:
            return None
        damage.axis(f"the spectrum of run {run}", row.singular_values, length=self._database.width(run, "d_model"))
        return np.asarray(row.singular_values)

    def unigram(self, run: int) -> Array | None:
        """P_freq by token id, float32, [d_vocab]; None for a run made before it was kept, and while it is not known."""
        row = self._database.one(select(UnigramRow).where(UnigramRow.run == run))
        if row is None:
            return None
        where = f"the token frequencies of run {run}"
        damage.axis(where, row.p, length=self._database.width(run, "d_vocab"))
        if row.p.dtype.kind != "f" or row.p.min() < 0 or abs(float(row.p.sum(dtype=np.float64)) - 1) > 1e-3:
            raise damage.AtlasDamaged(where, "are no probabilities")
        return np.asarray(row.p)

    def reference_means(self, slug: str, run: int | None) -> tuple[NDArray[np.float64] | None, str]:
        """The mean activation of every last-layer neuron, [d_mlp], and where it comes from; None where no run of the
        model has measured it.

        Args:
            run: the run to take it from; None takes the one that pages show first.

        Raises:
            NotInAtlas: the run does not exist, belongs to another model, or has not measured activations yet.
        """
        chosen = self.newest(slug) if run is None else run
        if chosen is not None:
            record = self.get(chosen)
            if record.model != slug:
                raise NotInAtlas(f"Run {chosen} is of the model {record.model!r}, not of {slug!r}.")
            if record.layer != self._models.get(slug).n_layers - 1:
                if run is None:
                    return None, "mean over this text: no run has measured the last layer's activations yet"
                raise NotInAtlas(f"Run {run} is of layer {record.layer}: it has no means of the last layer's neurons.")
            means = self._neurons.columns(chosen, ["mean_activation"])["mean_activation"]
            if len(means) and np.isfinite(means).all():
                return means, f"mean over {record.tokens_sampled:,} tokens of {record.corpus} (run {chosen})"
            if run is not None:
                raise NotInAtlas(f"Run {run} has not measured mean activations yet: wait, or leave `run` out.")
        return None, "mean over this text: no run has measured the model's activations yet"


def _first_shown(runs: Select[int]) -> Select[int]:
    last = (RunRow.layer == ModelRow.n_layers - 1).desc()
    joined = runs.join(ModelRow, ModelRow.slug == RunRow.model)
    return joined.order_by(last, (RunRow.status == "finished").desc(), RunRow.id.desc()).limit(1)


def _model_of(session: Session, plan: RunPlan) -> ModelRecord:
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


def _record(row: RunRow) -> RunRecord:
    where = f"run {row.id}"
    with damage.reading(where):
        silent = row.status == "running" and datetime.now(UTC) - row.heartbeat > _SILENCE
    fields = {name: getattr(row, name) for name in _FIELDS}
    fields |= {"status": "interrupted" if silent else row.status, "revision": _revision(row), "experts": _experts(row)}
    return damage.record(RunRecord, where, fields)


def _experts(row: RunRow) -> Experts | None:
    of_model: Any = row  # columns that its class is given from the model's row
    return Experts.of_layer(of_model.n_experts, of_model.d_expert, of_model.d_mlp)


def _revision(row: RunRow) -> str:
    job = row.results_of  # type: ignore[attr-defined]
    return f"{row.revision}" if job is None else f"{row.revision}.{job}"


def not_yet(record: RunRecord, what: str) -> NotInAtlas:
    """Part of a run that is not there yet, and what to do."""
    advice = "Wait for it" if record.status == "running" else "Run it again to resume it"
    return NotInAtlas(f"Run {record.id} has not measured {what} yet (it is {record.status}). {advice}.")
