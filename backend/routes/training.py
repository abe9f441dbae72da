"""A model's last layer over its training, from checkpoints that were looked at."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from backend import schemas
from backend.answers import training as answers
from backend.routes.deps import AtlasDep, MaybeAtlasDep, Reading

router = APIRouter(prefix="/training", tags=["training"], dependencies=[Reading])
TrainingSlug = Annotated[str, Path(max_length=200, description="A training's id, from /api/v1/training.")]


@router.get("")
def list_trainings(atlas: MaybeAtlasDep) -> schemas.TrainingList:
    """The trainings of which some steps were looked at; none while there is no atlas yet."""
    return schemas.TrainingList(trainings=[]) if atlas is None else answers.training_list(atlas)


@router.get("/{training}")
def read_training(training: TrainingSlug, atlas: AtlasDep) -> schemas.TrainingDetail:
    """What the weights say at each step: how metrics are spread, how many neurons are beyond chance, the spectrum's
    tail, and the run of these weights where there is one."""
    return answers.training(atlas, training)


@router.get("/{training}/neurons")
def read_neuron_lines(
    training: TrainingSlug,
    atlas: AtlasDep,
    metric: Annotated[str, Query(max_length=60)] = "null_fraction",
    neuron: Annotated[list[schemas.NeuronName] | None, Query(max_length=schemas.MAX_LINES)] = None,
    most: Annotated[int, Query(ge=1, le=schemas.MAX_LINES)] = 5,
    extreme: answers.Extreme = "highest",
) -> schemas.NeuronLines:
    """A metric of some neurons over the steps: of those that are named, else of those that are most extreme at the last
    step. Metrics of effects are those of runs, and null at steps without one."""
    return answers.neuron_lines(atlas, training, metric, neuron, most, extreme)
