"""Two runs beside each other."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from backend import schemas
from backend.answers import comparison as answers
from backend.routes.deps import AtlasDep, Reading, about_run

router = APIRouter(tags=["comparison"], dependencies=[Reading])


@router.get("/compare")
def compare(
    atlas: AtlasDep,
    response: Response,
    a: Annotated[schemas.Id, Query(description="A run.")],
    b: Annotated[schemas.Id, Query(description="The run that it is compared with: differences are b − a.")],
    metric: Annotated[
        str, Query(max_length=60, description="The metric whose most changed neurons are listed.")
    ] = "total_effect",
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_CHANGED, description="How many of them.")] = 20,
) -> schemas.Comparison:
    """Any two runs: rank correlations of all metrics with their intervals, shared classes beside chance, and the
    neurons that have changed most. Of runs whose neurons do not correspond only the distributions are compared."""
    response.headers["Link"] = ", ".join(about_run(run)["Link"] for run in (a, b))
    return answers.comparison(atlas, atlas.runs.get(a), atlas.runs.get(b), metric, limit)
