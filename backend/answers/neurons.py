"""Neurons of a run: pages, columns, and all that is kept of one."""

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.numbers import finite, finite_list
from backend.answers.runs import run_chance, run_summary
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.query import NeuronQuery, require_metric
from backend.atlas.records import NeuronRecord, RunRecord
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.core.metrics.classes import ChanceLines, Subject, explain
from backend.core.metrics.statistics import percentile
from backend.core.neurons import NeuronId
from backend.glossary import METRIC_COLUMNS, METRICS

_BACKGROUND_NEURONS = 100
_BACKGROUND_VALUES = 4_000


@damage.reading("a neuron's row")
def row(run: RunRecord, record: NeuronRecord) -> schemas.MeasuredNeuron:
    neuron = run.neuron(record.index)
    return schemas.MeasuredNeuron(
        neuron=str(neuron),
        layer=record.layer,
        index=record.index,
        expert=neuron.routed_expert,
        neuron_class=record.neuron_class,
        effect_tokens=record.effect_tokens,
        metrics={name: finite(value) for name, value in record.metrics.items()},
        paper_criterion=record.paper_criterion,
    )


@damage.reading("a run's neurons")
def neuron_page(atlas: Atlas, record: RunRecord, query: NeuronQuery) -> schemas.NeuronPage:
    neurons, total = atlas.neurons.page(record.id, query)
    return schemas.NeuronPage(
        rows=[row(record, neuron) for neuron in neurons], total=total, next_cursor=query.next_cursor(total)
    )


@damage.reading("a run's columns")
def columns(atlas: Atlas, record: RunRecord, names: list[str]) -> schemas.NeuronColumns:
    for name in names:
        require_metric("name", name)
    columns_read = atlas.neurons.columns(record.id, list(dict.fromkeys(names)))
    index, tokens = columns_read.pop("index").astype(int), columns_read.pop("effect_tokens")
    return schemas.NeuronColumns(
        neuron=[str(record.neuron(i)) for i in index.tolist()],
        neuron_class=atlas.neurons.classes(record.id),
        paper_criterion=atlas.neurons.marks(record.id),
        columns={name: finite_list(column) for name, column in columns_read.items()},
        effect_tokens=int(tokens.max()) if len(tokens) else 0,
        revision=record.revision,
    )


@damage.reading("a neuron")
def neuron(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.NeuronDetail:
    measured_neuron = measured(atlas, record, chosen)
    columns_of_run = atlas.neurons.columns(record.id, [metric.name for metric in METRICS])
    percentiles = {
        metric.name: percentile(columns_of_run[metric.name], measured_neuron.metrics[metric.name]) for metric in METRICS
    }
    answered = row(record, measured_neuron)
    chance = run_chance(record)
    return schemas.NeuronDetail(
        run=run_summary(record),
        row=answered,
        percentiles=percentiles,
        class_reason=explain(
            Subject(answered.neuron_class, answered.metrics, percentiles, answered.paper_criterion),
            None if chance is None else ChanceLines(**vars(chance)),
            record.error_groups,
        ),
        previous=str(record.neuron(chosen.index - 1)) if chosen.index > 0 else None,
        next=str(record.neuron(chosen.index + 1)) if chosen.index + 1 < len(columns_of_run["index"]) else None,
    )


@damage.reading("a neuron's histogram")
def histogram(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.Histogram:
    counted = atlas.neurons.histogram(record.id, chosen.index)
    if counted is None:
        raise not_yet(record, "activation histograms")
    edges, counts = counted
    mean = measured(atlas, record, chosen).metrics["mean_activation"]
    return schemas.Histogram(neuron=str(chosen), edges=edges.tolist(), counts=counts.tolist(), mean=finite(mean))


@damage.reading("a neuron's effects at single tokens")
def effects(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.TokenEffects:
    positions, of_neuron = atlas.positions.get(record.id), atlas.positions.effects(record.id, [chosen.index])
    require_tokens(record)
    if positions is None or not of_neuron:
        raise not_yet(record, "per-token effects")
    background = _background(atlas, record)
    arrays = {name: array.tolist() for name, array in of_neuron[0].items()}
    arrays["clip_delta_loss"] = _clipped(atlas, record, chosen, of_neuron[0])
    return schemas.TokenEffects(
        neuron=str(chosen),
        tokens=positions.tokens,
        targets=positions.targets,
        loss_before=positions.loss_before.tolist(),
        entropy_before=positions.entropy_before.tolist(),
        rank_before=positions.rank_before.tolist(),
        kl_before=None if positions.kl_before is None else positions.kl_before.tolist(),
        sequences=None if positions.sequences is None else positions.sequences.tolist(),
        background_total=background["delta_loss"],
        background_frozen=background["delta_loss_frozen"],
        background_freq=background.get("delta_loss_freq"),
        **arrays,
    )


@damage.reading("the tokens that a neuron moves")
def logits(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.NeuronLogits:
    extremes, vocabulary = atlas.neurons.logits(record.id, chosen.index), atlas.models.vocabulary(record.model)
    if extremes is None or not vocabulary:
        raise not_yet(record, "direct logits")

    def weights(ids: NDArray[np.int32], values: NDArray[np.float32]) -> list[schemas.TokenWeight]:
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return [schemas.TokenWeight(token_id=i, token=vocabulary[i], value=value) for i, value in pairs]

    top_ids, top_values, bottom_ids, bottom_values = extremes
    return schemas.NeuronLogits(
        neuron=str(chosen), top=weights(top_ids, top_values), bottom=weights(bottom_ids, bottom_values)
    )


@damage.reading("a run's spectrum")
def spectrum(atlas: Atlas, record: RunRecord, name: str | None) -> schemas.Spectrum:
    values = atlas.runs.spectrum(record.id)
    if values is None:
        raise not_yet(record, "the spectrum")
    cosines = None
    if name is not None:
        chosen = NeuronId.parse(name, record.experts)
        along = atlas.neurons.cosines(record.id, chosen.index) if chosen.layer == record.layer else None
        if along is None:
            raise NotInAtlas(f"Run {record.id} has no neuron {chosen}: it measures layer {record.layer}.")
        cosines = np.nan_to_num(along.astype(np.float64)).tolist()
    return schemas.Spectrum(singular_values=values.tolist(), null_dim=record.null_dim, neuron=name, cosines=cosines)


def measured(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> NeuronRecord:
    """A neuron with all its metrics.

    Raises:
        NotInAtlas: the run has not measured its neurons yet.
    """
    neuron = atlas.neurons.get(record.id, chosen.index, list(METRIC_COLUMNS))
    if neuron is None:
        raise not_yet(record, "its neurons")
    return neuron


def require_tokens(record: RunRecord) -> None:
    """
    Raises:
        NotInAtlas: the run keeps nothing of single tokens.
    """
    if record.config.get("mode") == "survey":
        raise NotInAtlas(
            f"Run {record.id} is a survey: its means are within a stated bound, and what single tokens did is not "
            "kept. Measure the model without --mode survey to see it."
        )


def _background(atlas: Atlas, record: RunRecord) -> dict[str, list[float]]:
    """|Δloss| of random neurons, total and its direct parts, at some of the sampled positions; the same for the whole
    run."""
    count = atlas.models.get(record.model).d_mlp
    rng = np.random.default_rng(record.id)
    chosen = rng.choice(count, size=min(_BACKGROUND_NEURONS, count), replace=False)
    arrays = atlas.positions.effects(record.id, chosen.tolist())
    names = [name for name in ("delta_loss", "delta_loss_frozen", "delta_loss_freq") if name in arrays[0]]
    pooled = {name: np.abs(np.concatenate([array[name] for array in arrays])) for name in names}
    size = len(pooled["delta_loss"])
    kept = rng.choice(size, size=min(_BACKGROUND_VALUES, size), replace=False)
    return {name: values[kept].tolist() for name, values in pooled.items()}


def _clipped(
    atlas: Atlas, record: RunRecord, chosen: NeuronId, effects: dict[str, NDArray[np.float32]]
) -> list[float] | None:
    """Change of loss under clip ablation. What a last-layer neuron does at a token stays at that token, so it follows
    from mean ablation."""
    if chosen.layer != atlas.models.get(record.model).n_layers - 1:
        return None
    mean = np.float32(measured(atlas, record, chosen).metrics["mean_activation"] or 0.0)
    clipped = np.where(effects["activation"] > mean, effects["delta_loss"], np.float32(0))
    return [float(value) for value in clipped]
