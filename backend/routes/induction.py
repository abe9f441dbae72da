"""The induction lab: one request, and a stream of what repetition does."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse

from backend import schemas
from backend.answers.induction import Event, experiment_events
from backend.live.streams import LiveStream
from backend.live.texts import LiveModel
from backend.requests.induction import plan, repeat_spec, run_of
from backend.routes import problems
from backend.routes.deps import AtlasDep, EngineDep, ModelSlug, TurnDep

router = APIRouter(tags=["induction"])


def _begun(
    turn: TurnDep, model: ModelSlug, body: schemas.InductionRequest, atlas: AtlasDep, engine: EngineDep
) -> LiveStream[Event]:
    """An experiment that has been let in: what is wrong with it is answered before the stream begins."""
    record = atlas.models.get(model)
    run = run_of(atlas, record, body.run)
    chosen = LiveModel(model, record.source, weights=None if run is None else run.weights_hash)
    spec, measured = repeat_spec(atlas, body, run), plan(atlas, body, record.experts, run)
    return turn.turn(lambda: engine.measure(chosen, lambda loaded: experiment_events(loaded, spec, measured)))


async def _closed_after(begun: Annotated[LiveStream[Event], Depends(_begun)]) -> AsyncIterator[LiveStream[Event]]:
    """The stream's generator is not closed with the connection where it waits to be read, so this does it."""
    try:
        yield begun
    finally:
        begun.close()


@router.post("/models/{model}/induction", response_class=EventSourceResponse)
async def induce(
    experiment: Annotated[LiveStream[Event], Depends(_closed_after)], request: Request
) -> AsyncIterator[schemas.InductionEvent]:
    """Measure what a model does on text that repeats: loss, entropy and activations by position, neurons clipped on the
    second occurrence, attention heads knocked out.

    Parts come as they are ready, as server-sent events: a start, progress and parts, and an end or a problem. Closing
    the connection stops the work.
    """
    try:
        while (event := await run_in_threadpool(experiment.step)) is not None:
            yield schemas.InductionEvent(event)
        yield schemas.InductionEvent(schemas.InductionEnd(seconds=experiment.seconds))
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield schemas.InductionEvent(schemas.InductionProblem(problem=problems.of(error, request.url.path)))
