"""From the atlas's records to what the wire says."""

import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backend import schemas
from backend.answers.runs import model_name, run_chance, run_summary
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.export import Format, run_table, write_table
from backend.atlas.query import NeuronQuery, require_metric
from backend.atlas.records import ModelRecord, NeuronRecord, RunRecord, ShownContext, windows_of
from backend.atlas.store import Atlas
from backend.core.metrics.classes import ChanceLines, Subject, explain
from backend.core.metrics.loss_position import at_own_token
from backend.core.neurons import NeuronId
from backend.glossary import FORMULAS, METRIC_COLUMNS, METRICS, TERMS

First = tuple[float | None, int | None]
"""The loss and the rank of a context's first token."""
_BACKGROUND_NEURONS = 100
_BACKGROUND_VALUES = 4_000


@damage.reading("a model")
def model(atlas: Atlas, record: ModelRecord) -> schemas.ModelSummary:
    described = {name: value for name, value in vars(record).items() if name not in ("slug", "source", "name")}
    runs, latest = atlas.runs.of_model(record.slug), atlas.runs.newest(record.slug)
    return schemas.ModelSummary(
        id=record.slug, name=model_name(record), n_runs=len(runs), latest_run=latest, **described
    )  # fmt: skip


@damage.reading("a run")
def run(record: RunRecord) -> schemas.RunSummary:
    return run_summary(record)


@damage.reading("a neuron's row")
def row(record: NeuronRecord) -> schemas.NeuronRow:
    return schemas.NeuronRow(
        neuron=f"{record.layer}.{record.index}",
        layer=record.layer,
        index=record.index,
        neuron_class=record.neuron_class,
        effect_tokens=record.effect_tokens,
        metrics={name: _finite(value) for name, value in record.metrics.items()},
        paper_criterion=record.paper_criterion,
    )


@damage.reading("a run's neurons")
def neuron_page(atlas: Atlas, record: RunRecord, query: NeuronQuery) -> schemas.NeuronPage:
    found, total = atlas.neurons.page(record.id, query)
    return schemas.NeuronPage(rows=[row(neuron) for neuron in found], total=total, next_cursor=query.next_cursor(total))


@damage.reading("a run's columns")
def columns(atlas: Atlas, record: RunRecord, names: list[str]) -> schemas.NeuronColumns:
    for name in names:
        require_metric("name", name)
    found = atlas.neurons.columns(record.id, list(dict.fromkeys(names)))
    index, tokens = found.pop("index").astype(int), found.pop("effect_tokens")
    return schemas.NeuronColumns(
        neuron=[f"{record.layer}.{i}" for i in index],
        neuron_class=atlas.neurons.classes(record.id),
        paper_criterion=atlas.neurons.marks(record.id),
        columns={name: _finite_list(column) for name, column in found.items()},
        effect_tokens=int(tokens.max()) if len(tokens) else 0,
        revision=record.revision,
    )


@damage.reading("a neuron")
def neuron(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.NeuronDetail:
    found = measured(atlas, record, chosen)
    everyone = atlas.neurons.columns(record.id, [metric.name for metric in METRICS])
    percentiles = {metric.name: percentile(everyone[metric.name], found.metrics[metric.name]) for metric in METRICS}
    answered = row(found)
    chance = run_chance(record)
    return schemas.NeuronDetail(
        run=run(record),
        row=answered,
        percentiles=percentiles,
        class_reason=explain(
            Subject(answered.neuron_class, answered.metrics, percentiles, answered.paper_criterion),
            None if chance is None else ChanceLines(**vars(chance)),
            record.error_groups,
        ),
        previous=f"{chosen.layer}.{chosen.index - 1}" if chosen.index > 0 else None,
        next=f"{chosen.layer}.{chosen.index + 1}" if chosen.index + 1 < len(everyone["index"]) else None,
    )


@damage.reading("a neuron's histogram")
def histogram(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.Histogram:
    found = atlas.neurons.histogram(record.id, chosen.index)
    if found is None:
        raise not_yet(record, "activation histograms")
    edges, counts = found
    mean = measured(atlas, record, chosen).metrics["mean_activation"]
    return schemas.Histogram(neuron=str(chosen), edges=edges.tolist(), counts=counts.tolist(), mean=_finite(mean))


@damage.reading("a neuron's contexts")
def contexts(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.ContextList:
    found = atlas.contexts.showing(record.id, chosen.index)
    if not found:
        raise not_yet(record, "contexts")
    first = first_predictions(atlas, record, found)
    return schemas.ContextList(neuron=str(chosen), contexts=[_strip(shown, *first[shown.id]) for shown in found])


@damage.reading("a neuron's effects at single tokens")
def effects(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.TokenEffects:
    positions, own = atlas.positions.get(record.id), atlas.positions.effects(record.id, [chosen.index])
    require_tokens(record)
    if positions is None or not own:
        raise not_yet(record, "per-token effects")
    background = _background(atlas, record)
    arrays = {name: array.tolist() for name, array in own[0].items()}
    arrays["clip_delta_loss"] = _clipped(atlas, record, chosen, own[0])
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
    found, vocabulary = atlas.neurons.logits(record.id, chosen.index), atlas.models.vocabulary(record.model)
    if found is None or not vocabulary:
        raise not_yet(record, "direct logits")

    def weights(ids: NDArray[np.int32], values: NDArray[np.float32]) -> list[schemas.TokenWeight]:
        pairs = zip(ids.tolist(), values.tolist(), strict=True)
        return [schemas.TokenWeight(token_id=i, token=vocabulary[i], value=value) for i, value in pairs]

    top_ids, top_values, bottom_ids, bottom_values = found
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
        chosen = NeuronId.parse(name)
        found = atlas.neurons.cosines(record.id, chosen.index) if chosen.layer == record.layer else None
        if found is None:
            raise NotInAtlas(f"Run {record.id} has no neuron {chosen}: it measures layer {record.layer}.")
        cosines = np.nan_to_num(found.astype(np.float64)).tolist()
    return schemas.Spectrum(singular_values=values.tolist(), null_dim=record.null_dim, neuron=name, cosines=cosines)


@damage.reading("a run's table")
def exported(atlas: Atlas, record: RunRecord, format: Format) -> bytes:
    sink = io.BytesIO()
    write_table(run_table(atlas, record), format, sink)
    return sink.getvalue()


def glossary() -> schemas.Glossary:
    definitions = [
        schemas.MetricDefinition(
            name=m.name, label=m.label, unit=m.unit, sentence=m.sentence, equation=m.equation,
            formula=FORMULAS.get(m.name, ""),
        )
        for m in METRICS
    ]  # fmt: skip
    return schemas.Glossary(metrics=definitions, terms=TERMS)


def measured(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> NeuronRecord:
    """A neuron with all its metrics.

    Raises:
        NotInAtlas: the run has not measured its neurons yet.
    """
    found = atlas.neurons.get(record.id, chosen.index, list(METRIC_COLUMNS))
    if found is None:
        raise not_yet(record, "its neurons")
    return found


def not_yet(record: RunRecord, what: str) -> NotInAtlas:
    """Part of a run that is not there yet, and what to do."""
    advice = "Wait for it" if record.status == "running" else "Run it again to resume it"
    return NotInAtlas(f"Run {record.id} has not measured {what} yet (it is {record.status}). {advice}.")


def first_predictions(atlas: Atlas, record: RunRecord, shown: Sequence[ShownContext]) -> dict[int, First]:
    """Of contexts, by id: what the end of the context before predicted; nothing for the first of a sequence."""
    known = atlas.contexts.first_predictions(record.id, {one.id for one in shown}, windows_of(record))
    return {one.id: known.get(one.id, (None, None)) for one in shown}


def losses(shown: ShownContext, first: float | None) -> list[float | None]:
    """Of a context's tokens, each at its own token."""
    return at_own_token(_finite_list(shown.context.loss), len(shown.context.tokens), _finite(first))


def _strip(shown: ShownContext, first_loss: float | None, first_rank: int | None) -> schemas.ContextStrip:
    context, trace = shown.context, shown.trace
    return schemas.ContextStrip(
        id=shown.id,
        bucket=trace.bucket,
        tokens=context.tokens,
        token_ids=context.token_ids,
        activations=trace.activations.tolist(),
        loss=losses(shown, first_loss),
        entropy=_finite_list(context.entropy),
        rank=at_own_token(context.rank.tolist(), len(context.tokens), first_rank),
        peak=trace.peak,
        peak_position=trace.peak_position,
    )


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


def percentile(everyone: NDArray[np.float64], value: float | None) -> float | None:
    """Share (0..100) of the neurons that have a value whose value is at most this one; None where there is none."""
    measured = everyone[np.isfinite(everyone)]
    if value is None or not len(measured):
        return None
    return float(100 * np.mean(measured <= value))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite_list(column: NDArray[np.floating]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column.tolist()]
