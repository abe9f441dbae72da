"""How often tokens occur as a run takes it, and how far the model's predictions are from that."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend import schemas
from backend.answers import frequencies as answers
from backend.routes.deps import AtlasDep, Reading, RunDep

router = APIRouter(prefix="/runs/{run}", tags=["token frequencies"], dependencies=[Reading])


@router.get("/positions")
def read_positions(run: RunDep, atlas: AtlasDep) -> schemas.RunPositions:
    """What the model predicted at the run's sampled positions: entropy against the distance from the token frequencies
    (Figure 3a)."""
    return answers.run_positions(atlas, run)


@router.get("/frequencies")
def read_frequencies(
    run: RunDep,
    atlas: AtlasDep,
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_FREQUENT_TOKENS)] = 20,
) -> schemas.TokenFrequencies:
    """Where the run's token frequencies come from, and the tokens that are most and least frequent by them."""
    return answers.token_frequencies(atlas, run, limit)
