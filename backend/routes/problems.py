"""Every error as an RFC 9457 problem document: one shape, one place."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend import incidents
from backend.atlas.arrays import MalformedArray
from backend.atlas.connect import AtlasBusy, AtlasMissing, AtlasUnusable
from backend.atlas.damage import AtlasDamaged
from backend.atlas.database import NotInAtlas
from backend.atlas.jobs import TooManyJobs
from backend.atlas.query import BadQuery
from backend.core import errors
from backend.core.models.trust import UnknownSource
from backend.live.engine import TextForgotten
from backend.live.queue import EngineBusy, LeftTheLine, LineClosed
from backend.routes.deps import NotAllowed
from backend.schemas import BusyProblem, Problem

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotInAtlas, 404, "Not in the atlas"),
    (TextForgotten, 404, "Text not in memory"),
    (AtlasMissing, 404, "No atlas yet"),
    (AtlasBusy, 503, "The atlas is in use"),
    (AtlasDamaged, 503, "The atlas is damaged"),
    (MalformedArray, 503, "The atlas is damaged"),
    (AtlasUnusable, 503, "The atlas cannot be read"),
    (EngineBusy, 503, "Busy"),
    (LineClosed, 503, "The service is being stopped"),
    (LeftTheLine, 503, "Given up"),
    (TooManyJobs, 503, "Too many jobs"),
    (UnknownSource, 403, "Model not confirmed"),
    (NotAllowed, 403, "Not allowed"),
    (BadQuery, 422, "Bad query"),
    (errors.BadNeuron, 422, "Bad neuron"),
    (errors.BadIntervention, 422, "Bad intervention"),
    (errors.BadText, 422, "Bad text"),
    (errors.CalibroscopeError, 503, "The model cannot be used"),
)
_LONGEST_FIELD = 200

_MEDIA_TYPE = "application/problem+json"


def _documented(description: str, example: Problem) -> dict[str, Any]:
    schema = Problem.model_json_schema()  # FastAPI's `model` would document the media type of an ordinary answer
    return {"description": description, "content": {_MEDIA_TYPE: {"schema": schema, "example": example.model_dump()}}}


RESPONSES: dict[int | str, dict[str, Any]] = {
    problem.status: _documented(description, problem)
    for description, problem in (
        (
            "The request cannot be read",
            Problem(
                title="There was an error parsing the body",
                status=400,
                detail="The request's body cannot be read: send JSON in UTF-8.",
            ),
        ),
        (
            "There is no such thing",
            Problem(
                title="Not in the atlas",
                status=404,
                detail="Run 1 has no neuron 99.5: it measures layer 29, neurons 29.0 to 29.1535.",
            ),
        ),
        (
            "Writing is not allowed",
            Problem(
                title="Not allowed",
                status=403,
                detail="Writing needs the service's key: send it in the X-API-Key header.",
            ),
        ),
        (
            "The request is malformed",
            Problem(
                title="The request is malformed",
                status=422,
                detail="limit in the address: Input should be greater than or equal to 1. See /api/docs for what is "
                "understood.",
                field="limit",
            ),
        ),
        (
            "Not now",
            BusyProblem(
                title="Busy",
                status=503,
                detail="8 requests wait for the model already: this one would have place 9 in the line, which has room "
                "for 8 now. Try again in 5 s.",
                place=9,
                limit=8,
            ),
        ),
    )
}


def install(service: FastAPI) -> None:
    """Answer every error of the service's API with a problem document."""
    service.add_exception_handler(errors.CalibroscopeError, _known)
    service.add_exception_handler(RequestValidationError, _invalid)
    service.add_exception_handler(HTTPException, _http)
    service.add_middleware(_Unexpected)


def answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as the response that tells it."""
    return JSONResponse(problem.model_dump(), problem.status, headers=headers, media_type=_MEDIA_TYPE)


def of(error: Exception, path: str) -> Problem:
    """An error as a problem, also where it meets an answer that has begun; an unexpected one goes to the log."""
    known = next(((status, title) for kind, status, title in _STATUS if isinstance(error, kind)), None)
    if known is None:
        incident = incidents.record(error, path=path)
        detail = (
            f"The service met an error that it did not expect (incident {incident}). Its log has the details under "
            "that number. The request can be repeated."
        )
        return Problem(title="Internal error", status=500, detail=detail)
    if isinstance(error, EngineBusy):
        return BusyProblem(title=known[1], status=known[0], detail=str(error), place=error.place, limit=error.limit)
    detail = str(error)
    if isinstance(error, AtlasDamaged) and error.__cause__ is not None:
        # What looks like damage may be a mistake of ours in reading: how it came about is kept.
        detail += f" How it was found is in the service's log (incident {incidents.record(error, path=path)})."
    return Problem(title=known[1], status=known[0], detail=detail, field=getattr(error, "field", None))


def _known(request: Request, error: Exception) -> JSONResponse:
    wait = getattr(error, "retry_after", None)
    headers = None if wait is None else {"Retry-After": str(wait)}
    return answer(of(error, request.url.path), headers)


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    field = ".".join(place[1:])[:_LONGEST_FIELD] or place[0]
    where = {"body": "the request's body", "query": "the address", "path": "the address"}.get(place[0], place[0])
    detail = f"{field} in {where}: {first['msg']}. See /api/docs for what is understood."
    return answer(Problem(title="The request is malformed", status=422, detail=detail, field=field))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path[:_LONGEST_FIELD]}: see /api/docs for what there is."
    if error.status_code == 400:
        detail = "The request's body cannot be read: send JSON in UTF-8."
    if error.status_code == 405:
        detail = f"{request.method} is not understood at {request.url.path[:_LONGEST_FIELD]}: see /api/docs."
    headers = dict(error.headers) if error.headers else None
    return answer(Problem(title=str(error.detail), status=error.status_code, detail=detail), headers)


class _Unexpected:
    """Answers an error that nobody expected.

    Starlette's own handler raises it again after the answer; the server then closes the connection without having said
    that it will, and the client's next request on it breaks.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise  # half an answer: only closing the connection tells
            await answer(of(error, scope["path"]))(scope, receive, send)
