"""Whether the service is well, and what its words mean."""

from importlib.metadata import version

from fastapi import APIRouter, Request

from backend import schemas
from backend.answers import glossary as answers
from backend.routes.deps import EngineDep

router = APIRouter(tags=["about"])


@router.get("/health")
async def health(request: Request, engine: EngineDep) -> schemas.Health:
    """Answers while the service runs; says which models are in memory and how many requests wait for them."""
    return schemas.Health(
        status="ok", version=version("calibroscope"), models_loaded=engine.loaded, queue=engine.waiting,
        notice=request.app.state.notice,
    )  # fmt: skip


@router.get("/glossary")
async def glossary() -> schemas.Glossary:
    """Every metric's name, unit and definition, and the terms used in them."""
    return answers.glossary()


@router.get("/interventions")
async def interventions() -> schemas.InterventionList:
    """Everything that can be done to a neuron or an attention head of a text, and whether it needs a number."""
    return answers.interventions()
