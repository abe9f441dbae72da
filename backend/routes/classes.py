"""The classes of a run's neurons."""

from fastapi import APIRouter

from backend import schemas
from backend.answers import classes as answers
from backend.routes.deps import AtlasDep, RunDep

router = APIRouter(prefix="/runs/{run}", tags=["neurons"])


@router.get("/classes")
def read_classes(run: RunDep, atlas: AtlasDep) -> schemas.RunClasses:
    """The rule, how many neurons each class has, and what of them the paper's own criterion marks."""
    return answers.run_classes(atlas, run)
