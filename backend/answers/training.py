"""A model's last layer over its training."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.numbers import finite, finite_list
from backend.answers.runs import shown_name
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.query import require_metric
from backend.atlas.records import TrainingStep, WeighedStep
from backend.atlas.store import Atlas
from backend.core.errors import NoSuchNeuron
from backend.core.metrics.by_weights import WEIGHT_METRICS, fits_by_weights
from backend.core.metrics.classes import ChanceLines, paper_criterion
from backend.core.neurons import NeuronId
from backend.glossary import METRIC_COLUMNS, NeuronClass

Extreme = Literal["highest", "lowest"]
_TAIL = 24
_BEFORE = 8
"""Singular values before the null space that are shown with it, at least."""


@damage.reading("the trainings")
def training_list(atlas: Atlas) -> schemas.TrainingList:
    """All trainings of the atlas, by name."""
    summaries = [_summary(steps) for steps in atlas.training.all().values()]
    return schemas.TrainingList(trainings=sorted(summaries, key=lambda summary: (summary.name, summary.id)))


@damage.reading("a training")
def training(atlas: Atlas, slug: str) -> schemas.TrainingDetail:
    """A training's steps: how metrics are spread, how many neurons are beyond chance, and the spectrum's tail."""
    steps = atlas.training.get(slug)
    runs = atlas.training.runs_of(steps)
    return schemas.TrainingDetail(
        training=_summary(steps), steps=[_step(atlas, step, runs.get(step.weights_hash)) for step in steps]
    )


@damage.reading("a training's neurons")
def neuron_lines(
    atlas: Atlas, slug: str, metric: str, neurons: Sequence[str] | None, most: int, extreme: Extreme
) -> schemas.NeuronLines:
    """A metric of some neurons over the steps.

    Args:
        neurons: their names; None for those that have the most extreme values at the last step that has any.
        most: how many of them.
        extreme: which end counts.

    Raises:
        BadQuery: there is no such metric.
        BadNeuron, NotInAtlas: a name is none, or of a neuron that the layer does not have.
    """
    require_metric("metric", metric)
    steps = atlas.training.get(slug)
    values, errors = _columns(atlas, steps, metric)
    if neurons is None:
        chosen = _extremes(values, most, extreme)
    else:
        chosen = [_index(name, steps[-1]) for name in dict.fromkeys(neurons)]
    last = steps[-1]
    return schemas.NeuronLines(
        metric=metric,
        steps=[step.step for step in steps],
        lines=[
            schemas.NeuronLine(
                neuron=str(last.neuron(index)),
                values=finite_list(values[:, index]),
                errors=finite_list(errors[:, index]),
            )
            for index in chosen
        ],
    )


def _summary(steps: Sequence[TrainingStep]) -> schemas.TrainingSummary:
    last = steps[-1]
    return schemas.TrainingSummary(
        id=last.training,
        name=shown_name(last.name),
        family=last.family,
        layer=last.layer,
        n_neurons=last.n_neurons,
        d_model=last.d_model,
        null_dim=last.null_dim,
        reachable_null_dim=last.null_dim - _unread(last),
        steps=len(steps),
        first=steps[0].step,
        last=last.step,
        measured_at=max(step.measured_at for step in steps),
    )


def _step(atlas: Atlas, step: WeighedStep, run: tuple[str, int] | None) -> schemas.TrainingStepSummary:
    lines = ChanceLines(**step.chance)
    marks = paper_criterion(step.columns["weight_norm"], step.columns["logit_var"], lines)
    tail = min(_TAIL, step.null_dim + max(_BEFORE, step.null_dim))
    values = step.singular_values[: step.d_model - _unread(step)]
    return schemas.TrainingStepSummary(
        revision=step.revision,
        step=step.step,
        weights_hash=step.weights_hash,
        chance=schemas.RunChance(**step.chance),
        spreads={name: _spread(step.columns[name], step) for name in WEIGHT_METRICS},
        above_line=int((step.columns["null_fraction"] > lines.null_fraction).sum()),
        by_weights={name: int(fit.sum()) for name, fit in fits_by_weights(step.columns, lines).items()},
        paper_criterion=int(marks.sum()),
        singular_median=float(np.median(values)),
        singular_tail=values[-tail:].tolist(),
        run=None if run is None else _run(atlas, *run),
    )


def _unread(step: TrainingStep) -> int:
    """Directions of the residual stream that no unembedding reads: its mean, where the norm is LayerNorm."""
    return int(step.norm == "LayerNorm")


def _spread(column: NDArray[np.float64], step: TrainingStep) -> schemas.MetricSpread:
    known = column[np.isfinite(column)]
    if not len(known):
        nothing = dict.fromkeys(schemas.MetricSpread.model_fields)
        return schemas.MetricSpread(**nothing)
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
    return schemas.MetricSpread(
        lowest=finite(float(known.min())),
        q05=float(low),
        median=float(middle),
        q95=float(high),
        highest=finite(float(known.max())),
        lowest_neuron=str(step.neuron(int(np.nanargmin(column)))),
        highest_neuron=str(step.neuron(int(np.nanargmax(column)))),
    )


def _run(atlas: Atlas, model: str, run: int) -> schemas.StepRun:
    classes = atlas.neurons.classes(run)
    return schemas.StepRun(model=model, run=run, counts={name: classes.count(name) for name in get_args(NeuronClass)})


def _columns(atlas: Atlas, steps: list[WeighedStep], metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A metric of all neurons at every step and its errors, each [steps, n_neurons]; NaN where not measured."""
    nothing = np.full((len(steps), steps[-1].n_neurons), np.nan)
    if metric in WEIGHT_METRICS:
        return np.stack([step.columns[metric] for step in steps]), nothing
    values, errors = nothing.copy(), nothing.copy()
    runs, error = atlas.training.runs_of(steps), f"{metric}_se"
    names = [name for name in (metric, error) if name in METRIC_COLUMNS]
    for row, step in enumerate(steps):
        if step.weights_hash in runs:
            columns = atlas.neurons.columns(runs[step.weights_hash][1], names)
            values[row] = columns[metric]
            errors[row] = columns.get(error, np.nan)
    return values, errors


def _extremes(values: NDArray[np.float64], most: int, extreme: Extreme) -> list[int]:
    measured = [row for row in values if np.isfinite(row).any()]
    if not measured:
        return []
    last = measured[-1]
    order = np.argsort(np.where(np.isfinite(last), -last if extreme == "highest" else last, np.inf), kind="stable")
    return [int(index) for index in order[:most] if np.isfinite(last[index])]


def _index(name: str, step: TrainingStep) -> int:
    try:
        neuron = NeuronId.parse(name, step.experts)
    except NoSuchNeuron as error:
        raise NotInAtlas(str(error)) from error
    if neuron.layer != step.layer or neuron.index >= step.n_neurons:
        raise NotInAtlas(
            f"The training {step.training} has no neuron {neuron}: its neurons are {step.neuron(0)} to "
            f"{step.neuron(step.n_neurons - 1)}."
        )
    return neuron.index
