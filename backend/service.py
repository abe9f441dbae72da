"""`create_service`: the HTTP API, `/api/v1`."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Match

from backend.guards.service import GuardedService
from backend.live.engine import LiveEngine
from backend.routes import (
    about,
    classes,
    comparison,
    docs,
    features,
    frequencies,
    induction,
    jobs,
    lanes,
    models,
    neurons,
    problems,
    texts,
    tokens,
    training,
)
from backend.routes.deps import AtlasDoor
from backend.settings import Settings

_REST = "/api/{rest:path}"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_service(settings: Settings, *, engine: LiveEngine) -> GuardedService:
    """The API over the atlas that the settings name and the live engine. The atlas need not exist yet."""
    reader, writer = AtlasDoor(settings, read_only=True), AtlasDoor(settings, read_only=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sys.setswitchinterval(lanes.SWITCH_SECONDS)
        # So many that no lane can take the threads of another.
        anyio.to_thread.current_default_thread_limiter().total_tokens = lanes.threads(settings.queue_limit)
        yield
        reader.close()
        writer.close()

    service = GuardedService(
        settings,
        title="Calibroscope",
        version=version("calibroscope"),
        description="How a language model regulates its own confidence: neurons, their effects, and live ablations.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    service.state.settings, service.state.engine, service.state.notice = settings, engine, None
    service.state.atlas, service.state.writable_atlas = reader, writer
    service.state.reading, service.state.writing = lanes.reading(), lanes.writing()
    service.state.followers = lanes.Followers()
    service.add_middleware(GZipMiddleware, minimum_size=2_000, compresslevel=4)  # 9 takes seconds for a model's columns
    problems.install(service)
    api = APIRouter(prefix="/api/v1", responses=problems.RESPONSES)
    rooms = (about, models, neurons, classes, comparison, frequencies, tokens, texts, induction, jobs, training)
    for room in rooms:
        api.include_router(room.router)
    service.include_router(api)
    service.include_router(features.router, prefix="/api", responses=problems.RESPONSES)
    service.include_router(docs.router)
    # Registered before the dashboard's own catch-all, which would answer a mistyped address with a page.
    service.add_api_route(_REST, _nothing_here, methods=_METHODS, include_in_schema=False)
    return service


def announce(service: FastAPI, notice: str) -> None:
    """Have `GET /health` say something that the atlas cannot."""
    service.state.notice = notice


def _nothing_here(request: Request) -> None:
    others = [route for route in request.app.router.routes if getattr(route, "path", None) != _REST]
    if any(route.matches(request.scope)[0] is Match.PARTIAL for route in others):
        raise HTTPException(405, "Method not allowed")
    raise HTTPException(404, "Not found")
