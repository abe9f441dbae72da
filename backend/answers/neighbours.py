"""Which neurons of a run are like one: from the atlas's records to what the wire says."""

import math

from backend import schemas
from backend.atlas import damage
from backend.atlas.records import RunRecord
from backend.atlas.runs import not_yet
from backend.atlas.store import Atlas
from backend.core.metrics.statistics import correlations_with
from backend.core.neurons import NeuronId

_COUNT = 10


@damage.reading("a neuron's neighbours")
def similar(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> schemas.SimilarNeurons:
    """
    Raises:
        NotInAtlas: the run knows neither the neurons' weights nor when they fire.
    """
    classes = atlas.neurons.classes(record.id)
    if not classes:
        raise not_yet(record, "its neurons")
    cosines = by_weights(atlas, record, chosen)
    activations = atlas.positions.activations(record.id)
    correlations = {} if activations is None else correlations_with(activations, chosen.index)
    nearest = sorted(correlations, key=lambda index: -correlations[index])[:_COUNT]

    def described(indices: list[int]) -> list[schemas.SimilarNeuron]:
        return [
            schemas.SimilarNeuron(
                neuron=str(record.neuron(index)),
                neuron_class=classes[index],
                weight_cosine=None if cosines is None else cosines.get(index),
                activation_correlation=correlations.get(index),
            )
            for index in indices
        ]

    return schemas.SimilarNeurons(
        neuron=str(chosen),
        by_weights=None if cosines is None else described(list(cosines)),
        weights_missing=None if cosines is not None else _no_weights(record),
        by_activations=None if activations is None else described(nearest),
        activations_missing=None if activations is not None else _no_activations(record),
        positions=0 if activations is None else activations.shape[1],
    )


def by_weights(atlas: Atlas, record: RunRecord, chosen: NeuronId) -> dict[int, float] | None:
    """cos of w_out by neuron, nearest first; None for a run made before they were kept."""
    cosines = atlas.neurons.similar(record.id, chosen.index)
    if cosines is None:
        return None
    pairs = zip(*(part.tolist() for part in cosines), strict=True)
    return {index: cosine for index, cosine in pairs if math.isfinite(cosine)}


def _no_weights(record: RunRecord) -> str:
    return (
        f"Run {record.id} was made before neighbours by w_out were kept. Measure the model again, with another --seed "
        "or --sequences, to have them."
    )


def _no_activations(record: RunRecord) -> str:
    if record.config.get("mode") == "survey":
        return f"Run {record.id} is a survey: activations at single tokens were not kept for all neurons."
    return str(not_yet(record, "per-token effects"))
