"""Tokens of a run's model, and the neurons of the run that promote or suppress one."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend import schemas
from backend.answers import texts as answers
from backend.atlas import damage
from backend.atlas.database import NotInAtlas
from backend.core.models.vocabulary import matching_tokens
from backend.live.texts import LiveModel
from backend.routes.deps import AtlasDep, EngineDep, Reading, RunDep, TurnDep

router = APIRouter(prefix="/runs/{run}", tags=["tokens"])


@router.get("/tokens", dependencies=[Reading])
@damage.reading("a model's vocabulary")
def find_tokens(
    run: RunDep,
    atlas: AtlasDep,
    query: Annotated[str, Query(min_length=1, max_length=schemas.MAX_TOKEN_QUERY, examples=[" the"])],
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_TOKENS_FOUND)] = 20,
) -> schemas.TokenMatches:
    """Tokens of the model's vocabulary that match; spaces count, and the very token comes first."""
    vocabulary = atlas.models.vocabulary(run.model)
    if not vocabulary:
        raise NotInAtlas(f"Run {run.id} has not stored its model's vocabulary yet. Ask again in a few seconds.")
    return answers.token_matches(query, vocabulary, matching_tokens(vocabulary, query), limit)


@router.get("/promoters")
def find_promoters(
    turn: TurnDep,
    run: RunDep,
    atlas: AtlasDep,
    engine: EngineDep,
    token_id: Annotated[int, Query(ge=0, le=schemas.MAX_TOKEN_ID)],
    limit: Annotated[int, Query(ge=1, le=schemas.MAX_PROMOTERS)] = 10,
) -> schemas.Promoters:
    """Which neurons of the run's layer raise and which lower a token's logit most, by their weights alone.

    Needs the model, which is loaded when it is first asked for.
    """
    model = atlas.models.get(run.model)
    if token_id >= model.d_vocab:
        raise NotInAtlas(f"{run.model} has no token {token_id}: its tokens are 0 to {model.d_vocab - 1}.")
    chosen = LiveModel(run.model, model.source, weights=run.weights_hash)
    pushed = turn.turn(lambda: engine.token_weights(chosen, run.layer, token_id))
    return answers.promoters(pushed, run.layer, run.experts, token_id, limit)
