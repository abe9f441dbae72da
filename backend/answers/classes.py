"""By which rule the neurons of a run have their classes, and where the paper's own criterion parts from them."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.runs import run_chance
from backend.atlas import damage
from backend.atlas.records import RunRecord
from backend.atlas.store import Atlas
from backend.core.metrics.classes import ChanceLines, Condition, Rules, fits, rules
from backend.core.metrics.statistics import percentile
from backend.glossary import NeuronClass

_MOST = 50


@damage.reading("a run's classes")
def run_classes(atlas: Atlas, run: RunRecord) -> schemas.RunClasses:
    """The rule, how many neurons each class has, and what of them the paper's own criterion marks."""
    chance = run_chance(run)
    classes, marks = atlas.neurons.classes(run.id), atlas.neurons.marks(run.id)
    known = [mark for mark in marks if mark is not None]
    columns = atlas.neurons.columns(run.id, ["weight_norm", "total_effect", "ln_mediated_se"])
    by = {} if chance is None else rules(ChanceLines(**vars(chance)), run.error_groups)
    return schemas.RunClasses(
        rules=[_rule(name, conditions) for name, conditions in by.items()],
        counts={name: classes.count(name) for name in get_args(NeuronClass)},
        fit_but_before=_fit_but_before(by, classes, atlas.neurons.columns(run.id, _metrics(by))),
        effects_measured=bool(np.isfinite(columns["ln_mediated_se"]).any()),
        entropy=_entropy(run, classes, marks, columns),
        paper_criterion=sum(known) if known else None,
        both=sum(bool(mark) for mark, name in zip(marks, classes, strict=True) if name == "entropy"),
    )


def _metrics(by: Rules) -> list[str]:
    """The columns that rules look at."""
    conditions = [condition for asked in by.values() for condition in asked]
    return sorted({c.metric for c in conditions} | {f"{c.metric}_se" for c in conditions if c.errors})


def _fit_but_before(by: Rules, classes: list[str], columns: dict[str, NDArray[np.float64]]) -> dict[NeuronClass, int]:
    order: list[str] = [*by, "plain"]
    return {
        name: sum(
            bool(fit) and order.index(assigned) < order.index(name)
            for fit, assigned in zip(holds, classes, strict=True)
        )
        for name, holds in fits(columns, by).items()
    }


def _rule(name: NeuronClass, conditions: Sequence[Condition]) -> schemas.ClassRule:
    return schemas.ClassRule(
        neuron_class=name,
        conditions=[
            schemas.ClassCondition(**vars(c) | {"limit": c.limit if np.isfinite(c.limit) else None}) for c in conditions
        ],
    )


def _entropy(
    run: RunRecord, classes: list[str], marks: list[bool | None], columns: dict[str, NDArray[np.float64]]
) -> list[schemas.MarkedNeuron]:
    norms, effects = columns["weight_norm"], columns["total_effect"]
    rows = [row for row, name in enumerate(classes) if name == "entropy"]
    rows.sort(key=lambda row: -np.nan_to_num(effects[row]))
    return [
        schemas.MarkedNeuron(
            neuron=str(run.neuron(int(columns["index"][row]))),
            norm_percentile=percentile(norms, norms[row]),
            paper_criterion=marks[row],
        )
        for row in rows[:_MOST]
    ]
