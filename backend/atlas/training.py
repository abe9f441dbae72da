"""Trainings: what the weights say at each step of a model's training that was looked at."""

import hashlib
from collections.abc import Sequence

import numpy as np
from sqlalchemy import select

from backend.atlas import damage
from backend.atlas.database import Database, NotInAtlas
from backend.atlas.records import TrainingStep, WeighedStep
from backend.atlas.schema import ModelRow, RunRow, TrainingStepRow
from backend.core.errors import BadConfig

METRICS = ("weight_norm", "logit_var", "null_fraction")
"""Of every neuron that a step has."""
_SPECTRUM = "singular_values"
_FIELDS = tuple(TrainingStep.__dataclass_fields__)
_MARK = 8


class Training:
    """`Atlas.training`: the steps of trainings, each measured from the weights alone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def slug_of(self, slug: str, source: str, null_dim: int) -> str:
        """Under which slug a model's training is kept: its own, unless another model or another k has that."""
        taken = select(TrainingStepRow.source, TrainingStepRow.null_dim).where(TrainingStepRow.training == slug)
        others = [row for row in self._database.rows(taken.distinct()) if tuple(row) != (source, null_dim)]
        if not others:
            return slug
        mark = hashlib.sha256(f"{source}\0{null_dim}".encode()).hexdigest()[:_MARK]
        return f"{slug}-{mark}"

    def put(self, step: WeighedStep) -> None:
        """Keep a step, in place of one that had its revision.

        Raises:
            BadConfig: the training's other steps are of another size.
        """
        values = {name: getattr(step, name) for name in _FIELDS}
        arrays = {name: step.columns[name].astype(np.float32) for name in METRICS}
        arrays[_SPECTRUM] = step.singular_values.astype(np.float64)
        sizes = select(TrainingStepRow.n_neurons, TrainingStepRow.d_model, TrainingStepRow.layer)
        with self._database.changing() as session:
            others = session.execute(
                sizes.where(TrainingStepRow.training == step.training, TrainingStepRow.revision != step.revision)
            ).first()
            if others is not None and tuple(others) != (step.n_neurons, step.d_model, step.layer):
                raise BadConfig(
                    f"{step.name} has {step.n_neurons} neurons in layer {step.layer} and d_model {step.d_model} at "
                    f"{step.revision}; at the steps measured before it had {others[0]}, layer {others[2]} and "
                    f"{others[1]}: it is another model's checkpoint."
                )
            session.merge(TrainingStepRow(**values, arrays=arrays))

    def all(self) -> dict[str, list[TrainingStep]]:
        """Every training by its slug, its steps in order, without what is kept of each neuron."""
        wanted = select(*(getattr(TrainingStepRow, name) for name in _FIELDS))
        trainings: dict[str, list[TrainingStep]] = {}
        order = (TrainingStepRow.training, TrainingStepRow.step, TrainingStepRow.revision)
        for row in self._database.rows(wanted.order_by(*order)):
            step = damage.record(TrainingStep, "a step of a training", dict(zip(_FIELDS, row, strict=True)))
            trainings.setdefault(step.training, []).append(step)
        return trainings

    def get(self, training: str) -> list[WeighedStep]:
        """The steps of a training, in order.

        Raises:
            NotInAtlas: there is none of that slug.
        """
        wanted = select(TrainingStepRow).where(TrainingStepRow.training == training)
        rows = self._database.all(wanted.order_by(TrainingStepRow.step, TrainingStepRow.revision))
        if not rows:
            raise NotInAtlas(f"The atlas has no training {training[:80]!r}: see /api/v1/training for those it has.")
        steps = [_record(row) for row in rows]
        if len({(step.n_neurons, step.d_model) for step in steps}) > 1:
            raise damage.AtlasDamaged(f"the training {training!r}", "has steps of several sizes")
        return steps

    def runs_of(self, steps: Sequence[TrainingStep]) -> dict[str, tuple[str, int]]:
        """By hash of weights: the model and the newest finished run of the same layer, where there is one."""
        last = select(RunRow.weights_hash, RunRow.model, RunRow.id, RunRow.layer)
        last = last.join(ModelRow, ModelRow.slug == RunRow.model)
        hashes, layers = {step.weights_hash for step in steps}, {step.layer for step in steps}
        wanted = last.where(RunRow.weights_hash.in_(hashes), RunRow.layer.in_(layers), RunRow.status == "finished")
        return {row[0]: (row[1], row[2]) for row in self._database.rows(wanted.order_by(RunRow.id))}


def _record(row: TrainingStepRow) -> WeighedStep:
    where = f"step {row.revision!r} of the training {row.training!r}"[:120]
    plain = damage.record(TrainingStep, where, {name: getattr(row, name) for name in _FIELDS})
    with damage.reading(where):
        columns = {name: np.asarray(row.arrays[name], dtype=np.float64) for name in METRICS}
        spectrum = np.asarray(row.arrays[_SPECTRUM], dtype=np.float64)
        for column in columns.values():
            damage.axis(where, np.nan_to_num(column), length=row.n_neurons)
        damage.axis(where, spectrum, length=row.d_model)
    return WeighedStep(**vars(plain), columns=columns, singular_values=spectrum)
