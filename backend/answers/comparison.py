"""Two runs beside each other, from the columns that the atlas has of their neurons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.numbers import finite
from backend.answers.runs import model_summary, run_summary
from backend.atlas import damage
from backend.atlas.query import BadQuery
from backend.atlas.records import ModelRecord, RunRecord
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.core.metrics import comparison as core
from backend.glossary import METRIC, METRIC_COLUMNS, METRICS, PAPER_CRITERION, Metric, NeuronClass

Column = NDArray[np.float64]

_NAMED = 50
_WRITTEN = ("weight_norm", "logit_var", "null_fraction")
"""What output weights are known by: where none of these goes together, neurons of one index are strangers."""
_FIELDS = {
    "architecture": "architectures",
    "n_layers": "numbers of layers",
    "d_model": "widths",
    "d_mlp": "numbers of neurons in a layer",
    "layer": "layers measured",
}


@dataclass(frozen=True)
class MeasuredRun:
    """A run with all that is known of its neurons, in index order."""

    run: RunRecord
    model: ModelRecord
    columns: dict[str, Column]
    classes: list[str]
    marks: list[bool | None]

    @property
    def shape(self) -> core.LayerShape:
        """By which it is seen whether another run's neurons correspond."""
        one = self.model
        return core.LayerShape(one.family, one.n_layers, one.d_model, one.d_mlp, self.run.layer)

    def neuron(self, index: int) -> str:
        """The name of a neuron by its index in the layer."""
        return str(self.run.neuron(index))

    def finite(self, name: str) -> Column:
        """The values of a column that are there."""
        column = self.columns[name]
        return column[np.isfinite(column)]


@damage.reading("a comparison of two runs")
def comparison(atlas: Atlas, first: RunRecord, second: RunRecord, metric: str, limit: int) -> schemas.Comparison:
    """How far two runs agree in every metric and in their classes, and which neurons one metric has changed most for.

    Raises:
        BadQuery: there is no such metric.
        NotInAtlas: one of the runs has not measured its neurons yet.
    """
    if metric not in METRIC:
        raise BadQuery("metric", f"{metric[:60]!r} is not a metric: see /api/v1/glossary for all of them.")
    a, b = _measured(atlas, first), _measured(atlas, second)
    differing = core.differing_shapes(a.shape, b.shape)
    corresponds = not differing
    metrics = [_agreement(one, a, b, corresponds) for one in METRICS]
    return schemas.Comparison(
        a=_compared(atlas, a),
        b=_compared(atlas, b),
        corresponds=corresponds,
        reason=_reason(a, b, differing),
        related=_related(metrics) if corresponds else None,
        same_weights=first.weights_hash == second.weights_hash,
        same_text=_same_text(first, second),
        metrics=metrics,
        classes=_shared_classes(a, b) if corresponds else [],
        changes=_changes(METRIC[metric], a, b, limit) if corresponds else None,
    )


def _measured(atlas: Atlas, run: RunRecord) -> MeasuredRun:
    columns = atlas.neurons.columns(run.id, list(METRIC_COLUMNS))
    if not len(columns["index"]):
        raise not_yet(run, "its neurons")
    classes, marks = atlas.neurons.classes(run.id), atlas.neurons.marks(run.id)
    return MeasuredRun(run, atlas.models.get(run.model), columns, classes, marks)


def _compared(atlas: Atlas, one: MeasuredRun) -> schemas.ComparedRun:
    return schemas.ComparedRun(run=run_summary(one.run), model=model_summary(atlas, one.model))


def _reason(a: MeasuredRun, b: MeasuredRun, differing: Sequence[str]) -> str:
    if not differing:
        return (
            f"Both runs are of layer {a.run.layer} of a {a.model.family} with {a.model.d_mlp:,} neurons a layer: "
            "neurons are paired by their index."
        )
    values = {name: [_written(getattr(one.shape, name)) for one in (a, b)] for name in differing}
    parts = [f"{_FIELDS[name]} ({' and '.join(both)})" for name, both in values.items()]
    listed = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return (
        f"Neurons do not correspond: the runs differ in their {listed}. So only distributions and spectra are compared."
    )


def _written(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value:,}"


def _related(metrics: Sequence[schemas.MetricAgreement]) -> bool | None:
    """Whether a metric of the output weights goes together more than in neurons paired at random."""
    known = [
        (abs(one.rank_correlation), one.pairs)
        for one in metrics
        if one.metric in _WRITTEN and one.rank_correlation is not None
    ]
    if not known:
        return None
    return any(size > core.chance_correlation(pairs, len(known)) for size, pairs in known)


def _same_text(a: RunRecord, b: RunRecord) -> bool | None:
    hashes = [((one.card or {}).get("corpus") or {}).get("sample_sha256") for one in (a, b)]
    return None if None in hashes else hashes[0] == hashes[1]


def _agreement(metric: Metric, a: MeasuredRun, b: MeasuredRun, corresponds: bool) -> schemas.MetricAgreement:
    of_a, of_b = a.finite(metric.name), b.finite(metric.name)
    larger = core.larger_share(of_a, of_b)
    apart = {
        "median_a": float(np.median(of_a)) if len(of_a) else None,
        "median_b": float(np.median(of_b)) if len(of_b) else None,
        "larger_share": larger and larger.value,
        "larger_share_error": larger and larger.error,
    }
    paired = _paired(metric, a, b) if corresponds else dict.fromkeys(_PAIRED) | {"pairs": 0}
    return schemas.MetricAgreement.model_validate({"metric": metric.name} | apart | paired)


_PAIRED = ("pairs", "rank_correlation", "low", "high", "noise_ceiling", "mean_difference", "mean_difference_error")


def _paired(metric: Metric, a: MeasuredRun, b: MeasuredRun) -> dict[str, float | None]:
    """What compares neuron with neuron."""
    there = np.isfinite(a.columns[metric.name]) & np.isfinite(b.columns[metric.name])
    x, y = a.columns[metric.name][there], b.columns[metric.name][there]
    ranked = core.rank_agreement(x, y)
    errors = _errors(metric, a, b)
    ceiling, of_x, of_y = None, None, None
    if errors is not None:
        of_x, of_y = (column[there] for column in errors)
        known = np.isfinite(of_x) & np.isfinite(of_y)
        ceiling = core.noise_ceiling(x[known], of_x[known], y[known], of_y[known])
    apart = core.mean_difference(x, y, of_x, of_y)
    correlation = (None, None, None) if ranked is None else (ranked.value, ranked.low, ranked.high)
    difference = (None, None) if apart is None else (apart.value, apart.error)
    return dict(zip(_PAIRED, (len(x), *correlation, ceiling, *difference), strict=True))


def _errors(metric: Metric, a: MeasuredRun, b: MeasuredRun) -> tuple[Column, Column] | None:
    """The standard errors of a metric in both runs; None where one has none. Of one run beside itself nothing was drawn
    twice, so that its errors say nothing of the difference."""
    if not metric.has_se or a.run.id == b.run.id:
        return None
    both = tuple(one.columns[f"{metric.name}_se"] for one in (a, b))
    return (both[0], both[1]) if all(np.isfinite(one).any() for one in both) else None


def _shared_classes(a: MeasuredRun, b: MeasuredRun) -> list[schemas.SharedClass]:
    chosen = {
        name: tuple(np.array([one == name for one in run.classes]) for run in (a, b))
        for name in get_args(NeuronClass)
        if name != "plain"
    }
    if not any(mark is None for mark in (*a.marks, *b.marks)):
        chosen[PAPER_CRITERION] = tuple(np.array(run.marks, dtype=bool) for run in (a, b))
    return [_shared(name, of_a, of_b, a) for name, (of_a, of_b) in chosen.items()]


def _shared(name: str, a: NDArray[np.bool_], b: NDArray[np.bool_], run: MeasuredRun) -> schemas.SharedClass:
    found = core.shared_members(a, b)

    def named(which: NDArray[np.bool_]) -> list[str]:
        return [run.neuron(index) for index in np.flatnonzero(which)[:_NAMED].tolist()]

    counts = {field: getattr(found, field) for field in ("in_a", "in_b", "in_both", "expected", "p_value")}
    lists = {"both": named(a & b), "only_a": named(a & ~b), "only_b": named(~a & b)}
    return schemas.SharedClass.model_validate({"name": name} | counts | lists)


def _changes(metric: Metric, a: MeasuredRun, b: MeasuredRun, limit: int) -> schemas.Changes:
    x, y = a.columns[metric.name], b.columns[metric.name]
    errors = _errors(metric, a, b)
    of_x, of_y = (np.full_like(x, np.nan), np.full_like(y, np.nan)) if errors is None else errors
    z = core.standardised_change(x, y, of_x, of_y)
    measured = bool(np.isfinite(z).any())
    groups = [one.run.error_groups for one in (a, b)]
    line = None
    if measured and None not in groups:
        line = finite(core.chance_change(int(np.isfinite(z).sum()), min(int(count or 0) for count in groups)))
    order = core.largest(z if measured else y - x, limit)
    return schemas.Changes(
        metric=metric.name,
        by="z" if measured else "difference",
        line=line,
        beyond=None if line is None else int((np.abs(np.nan_to_num(z)) > line).sum()),
        rows=[_changed(a, b, (x, of_x, y, of_y, z), row) for row in order.tolist()],
    )


def _changed(a: MeasuredRun, b: MeasuredRun, columns: Sequence[Column], row: int) -> schemas.ChangedNeuron:
    of_a, a_error, of_b, b_error, z = (float(column[row]) for column in columns)
    return schemas.ChangedNeuron.model_validate(
        {
            "neuron": a.neuron(row),
            "class_a": a.classes[row],
            "class_b": b.classes[row],
            "a": of_a,
            "a_error": finite(a_error),
            "b": of_b,
            "b_error": finite(b_error),
            "difference": of_b - of_a,
            "z": finite(z),
        }
    )
