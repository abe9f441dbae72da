"""The induction lab: one request, and a stream of what repetition does."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from backend import schemas
from backend.induction_request import plan, run_of, wanted
from backend.live.inducing import LiveInduction
from backend.live.texts import LiveModel
from backend.routes import problems
from backend.routes.deps import AtlasDep, EngineDep

router = APIRouter(tags=["induction"])

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, each an InductionEvent: a start, progress and parts as they are ready, and "
        "an end or a problem.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/models/{model}/induction", response_class=StreamingResponse, responses=_EVENTS)
def induce(
    model: str, body: schemas.InductionRequest, request: Request, atlas: AtlasDep, engine: EngineDep
) -> StreamingResponse:
    """Measure what a model does on text that repeats: loss, entropy and activations by position, neurons clipped on the
    second occurrence, attention heads knocked out.

    Parts come as they are ready, as server-sent events; closing the connection stops the work.
    """
    record = atlas.model(model)
    run = run_of(atlas, record, body.run)
    experiment = engine.induce(LiveModel(model, record.source), wanted(atlas, body, run), plan(atlas, body, run))
    return StreamingResponse(
        _events(experiment, request.url.path),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(experiment: LiveInduction, path: str) -> AsyncIterator[str]:
    try:
        yield _event(experiment.start)
        while (event := await run_in_threadpool(experiment.step)) is not None:
            yield _event(event)
        yield _event(schemas.InductionEnd(seconds=experiment.seconds))
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield _event(schemas.InductionProblem(problem=problems.of(error, path)))
    finally:
        experiment.close()


def _event(message: schemas.Wire) -> str:
    return f"data: {message.model_dump_json()}\n\n"
