"""Which models and runs the atlas has."""

from fastapi import APIRouter

from backend import schemas
from backend.answers import runs as answers
from backend.routes.deps import AtlasDep, MaybeAtlasDep, ModelSlug, Reading, RunDep

router = APIRouter(tags=["models and runs"], dependencies=[Reading])


@router.get("/models")
def list_models(atlas: MaybeAtlasDep) -> schemas.ModelList:
    """All models of the atlas; none while there is no atlas yet."""
    if atlas is None:
        return schemas.ModelList(models=[])
    return schemas.ModelList(models=[answers.model_summary(atlas, record) for record in atlas.models.all()])


@router.get("/models/{model}/runs")
def list_runs(model: ModelSlug, atlas: AtlasDep) -> schemas.RunList:
    """A model's runs, newest first."""
    return schemas.RunList(
        runs=[answers.run_summary(record) for record in atlas.runs.of_model(atlas.models.get(model).slug)]
    )


@router.get("/runs/{run}")
def read_run(run: RunDep) -> schemas.RunSummary:
    """A run: what it measures, and how far it is."""
    return answers.run_summary(run)
