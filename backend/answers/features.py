"""A neuron in the shape of Neuronpedia's `/api/feature`, for tools that parse it already."""

import numpy as np

from backend import schemas
from backend.answers import neighbours
from backend.answers import neurons as answers
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.atlas.records import Array, RunRecord, ShownContext
from backend.atlas.store import Atlas
from backend.core.neurons import NeuronId

_INTERVALS = 8
"""Equal parts of the range of activations, one of which a context stands for."""
_TOP = -1.0
"""Neuronpedia's mark for contexts that stand for no interval: the loudest."""


@damage.reading("a neuron")
def feature(atlas: Atlas, record: RunRecord, neuron: NeuronId) -> schemas.Feature:
    """All that a run knows of a neuron; what it has not measured yet is null or empty."""
    metrics = answers.measured(atlas, record, neuron).metrics
    raised, lowered = _extreme_tokens(atlas, record, neuron)
    frequencies, logits = (
        atlas.neurons.histogram(record.id, neuron.index),
        atlas.neurons.logit_histogram(record.id, neuron.index),
    )
    shown = atlas.contexts.showing(record.id, neuron.index)
    highest = max((context.trace.peak for context in shown if context.trace.bucket == "max"), default=None)
    similar = neighbours.by_weights(atlas, record, neuron)
    nearest = {} if similar is None else {neuron.index: 1.0, **similar}
    activations = [_activation(context, frequencies, highest) for context in shown]
    return schemas.Feature(
        modelId=record.model,
        layer=str(neuron.layer),
        index=str(neuron.index),
        maxActApprox=highest,
        frac_nonzero=metrics["fraction_positive"],
        pos_str=[token.token for token in raised],
        pos_values=[token.value for token in raised],
        neg_str=[token.token for token in lowered],
        neg_values=[token.value for token in lowered],
        freq_hist_data_bar_heights=[] if frequencies is None else frequencies[1].tolist(),
        freq_hist_data_bar_values=_centres(frequencies),
        logits_hist_data_bar_heights=[] if logits is None else logits[1].tolist(),
        logits_hist_data_bar_values=_centres(logits),
        topkCosSimIndices=list(nearest),
        topkCosSimValues=list(nearest.values()),
        activations=sorted(activations, key=lambda one: (one.binContains != _TOP, -one.maxValue)),
    )


def _extreme_tokens(
    atlas: Atlas, record: RunRecord, neuron: NeuronId
) -> tuple[list[schemas.TokenWeight], list[schemas.TokenWeight]]:
    try:
        logits = answers.logits(atlas, record, neuron)
    except NotInAtlas:
        return [], []
    return logits.top, logits.bottom


def _centres(histogram: tuple[Array, Array] | None) -> list[float]:
    if histogram is None:
        return []
    edges = histogram[0].astype(np.float64)
    centres: list[float] = ((edges[:-1] + edges[1:]) / 2).tolist()
    return centres


def _activation(
    context: ShownContext, histogram: tuple[Array, Array] | None, highest: float | None
) -> schemas.FeatureActivation:
    trace = context.trace
    values = trace.activations.tolist()
    is_lowest = trace.bucket == "min"
    place = _highest_at(trace.activations, highest) if is_lowest else trace.peak_position
    if trace.bucket == "max" or histogram is None:
        low, high, share = _TOP, trace.peak if highest is None else highest, _TOP
    else:
        low, high, share = _interval(histogram, trace.peak)
    return schemas.FeatureActivation(
        tokens=context.context.tokens,
        values=values,
        maxValue=values[place],
        maxValueTokenIndex=place,
        minValue=trace.peak if is_lowest else min(values),
        lossValues=[],
        binMin=low,
        binMax=high,
        binContains=share,
    )


def _highest_at(activations: Array, highest: float | None) -> int:
    """Where an activation is highest, not counting those above every peak: there tokens are special or come first."""
    counted = activations if highest is None else np.where(activations <= highest, activations, -np.inf)
    return int(np.argmax(counted))


def _interval(histogram: tuple[Array, Array], value: float) -> tuple[float, float, float]:
    """The interval that holds a value: its ends, and the share of positions within."""
    edges, counts = histogram
    width = len(counts) // _INTERVALS
    part = int(np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(counts) - 1)) // width
    part = min(part, _INTERVALS - 1)
    start, stop = part * width, len(counts) if part == _INTERVALS - 1 else (part + 1) * width
    return float(edges[start]), float(edges[stop]), float(counts[start:stop].sum() / counts.sum())
