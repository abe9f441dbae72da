"""A neuron in the shape of Neuronpedia's `/api/feature`, for tools that parse it already. Read only."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from backend import schemas
from backend.answers import features as answers
from backend.atlas.database import NotInAtlas
from backend.core.errors import NoSuchNeuron
from backend.core.neurons import NeuronId
from backend.routes.deps import AtlasDep, Reading, about_run

router = APIRouter(tags=["neuronpedia"], dependencies=[Reading])


@router.get("/feature/{modelId}/{layer}/{index}")
def read_feature(
    atlas: AtlasDep,
    modelId: Annotated[str, Path(max_length=200, description="A model's id, from /api/v1/models.")],
    layer: Annotated[str, Path(max_length=20, examples=["29"])],
    index: Annotated[str, Path(max_length=20, examples=["830"])],
    response: Response,
) -> schemas.Feature:
    """A neuron of the model's newest run of that layer, as Neuronpedia's users parse it. The `Link` header leads to
    that run, which says what was measured.

    In a mixture of experts `index` counts all of a layer's neurons, expert by expert.

    Not filled: `lossValues`, which elsewhere is what a feature contributes to the loss and which no run keeps for its
    contexts; and, for runs made before they were kept, `topkCosSim…` and `logits_hist_data…`. These are empty lists.
    """
    neuron = NeuronId.parse(f"{layer}.{index}")
    model = atlas.models.get(modelId)
    try:
        neuron.within(model.n_layers, model.d_mlp)
    except NoSuchNeuron as error:
        raise NotInAtlas(str(error)) from error
    run = atlas.runs.newest(modelId, neuron.layer)
    if run is None:
        raise NotInAtlas(
            f"No run of {modelId} has measured layer {neuron.layer}: calibroscope precompute with --layers does."
        )
    response.headers.update(about_run(run))
    return answers.feature(atlas, atlas.runs.get(run), neuron)
