"""A person's own text: trace it once, read activations, intervene on neurons."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from backend import schemas
from backend.atlas.store import Atlas
from backend.core.generation import Sampling
from backend.core.interventions import Intervention
from backend.core.neurons import HeadId, NeuronId, parse_unit
from backend.live import answers
from backend.live.engine import LiveEngine
from backend.live.generating import LiveGeneration
from backend.live.texts import LiveModel, LiveText
from backend.routes import frequencies, problems
from backend.routes.deps import AtlasDep, EngineDep

router = APIRouter(tags=["texts"])


def _text(engine: EngineDep, text_id: Annotated[str, Path(max_length=64)]) -> LiveText:
    return engine.text(text_id)


TextDep = Annotated[LiveText, Depends(_text)]


@router.post("/models/{model}/texts")
def trace_text(model: str, body: schemas.TextRequest, atlas: AtlasDep, engine: EngineDep) -> schemas.TextTrace:
    """Run the model over a text once; the id in the answer serves later calls. The same text has the same id."""
    source = atlas.model(model).source
    return _traced(engine.trace(LiveModel(model, source), body.text, schemas.MAX_TEXT_TOKENS), atlas, engine)


@router.get("/texts/{text_id}")
def read_text(text: TextDep, atlas: AtlasDep, engine: EngineDep) -> schemas.TextTrace:
    """A traced text again."""
    return _traced(text, atlas, engine)


def _traced(text: LiveText, atlas: Atlas, engine: LiveEngine) -> schemas.TextTrace:
    known = frequencies.live(atlas, text.model.slug, None)
    if known is None:
        return answers.text_trace(text)
    return answers.text_trace(text, engine.distances(text, known), known.described)


@router.post("/texts/{text_id}/activations")
def read_activations(
    text: TextDep, body: schemas.ActivationRequest, atlas: AtlasDep, engine: EngineDep
) -> schemas.ActivationList:
    """Activations of neurons, of any layer, on every token of a text."""
    neurons = [NeuronId.parse(name) for name in body.neurons]
    means, _ = atlas.reference_means(text.model.slug, None)
    return answers.activations(text, neurons, engine.activations(text, neurons), means)


@router.post("/texts/{text_id}/ablate")
def ablate(text: TextDep, body: schemas.AblateRequest, atlas: AtlasDep, engine: EngineDep) -> schemas.Ablation:
    """What interventions do to every token, with the final norm recomputed and frozen.

    Neurons of the last layer are ablated in closed form, in milliseconds; those of earlier layers, and attention heads,
    by a forward pass from their layer on.
    """
    interventions = _interventions(body.interventions)
    means, reference = atlas.reference_means(text.model.slug, body.run)
    if means is not None:
        reference += _elsewhere(text, interventions)
    known = frequencies.live(atlas, text.model.slug, body.run)
    ablated = engine.ablate(text, interventions, means, known)
    return answers.ablation(text, interventions, ablated, reference, known and known.described)


def _interventions(asked: Sequence[schemas.InterventionRequest]) -> list[Intervention]:
    return [Intervention(parse_unit(i.neuron), i.kind, i.value) for i in asked]


def _elsewhere(text: LiveText, interventions: Sequence[Intervention]) -> str:
    others = any(isinstance(i.unit, HeadId) or i.unit.layer != text.layer for i in interventions)
    return "; for units outside the last layer, over this text" if others else ""


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, each a GenerationEvent: a start, steps, and an end or a problem.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/texts/{text_id}/generate", response_class=StreamingResponse, responses=_EVENTS)
def generate(
    text: TextDep, body: schemas.GenerateRequest, request: Request, atlas: AtlasDep, engine: EngineDep
) -> StreamingResponse:
    """Sample on from a text with the interventions on, beside the continuation without them.

    Both draw on the same chance, so they part only where the interventions change what is chosen. Tokens come as they
    are made, as server-sent events; closing the connection stops the generation.
    """
    interventions = _interventions(body.interventions)
    means, reference = atlas.reference_means(text.model.slug, body.run)
    if means is not None:
        reference += _elsewhere(text, interventions)
    generation = engine.generate(text, interventions, means, Sampling(body.temperature, body.seed, body.max_tokens))
    start = schemas.GenerationStart(reference=reference, tokens=len(text.traced.tokens))
    return StreamingResponse(
        _events(generation, start, request.url.path),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(generation: LiveGeneration, start: schemas.GenerationStart, path: str) -> AsyncIterator[str]:
    try:
        yield _event(start)
        while generation.ended is None:
            yield _event(answers.generation_step(await run_in_threadpool(generation.step)))
        end = {"reason": generation.ended, "steps": generation.steps, "seconds": generation.seconds}
        yield _event(schemas.GenerationEnd.model_validate(end))
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield _event(schemas.GenerationProblem(problem=problems.of(error, path)))
    finally:
        generation.close()


def _event(message: schemas.Wire) -> str:
    return f"data: {message.model_dump_json()}\n\n"


@router.post("/texts/{text_id}/sweep")
def sweep(text: TextDep, body: schemas.SweepRequest, atlas: AtlasDep, engine: EngineDep) -> schemas.Sweep:
    """Who matters here: all last-layer neurons, each ablated alone, ranked on one token or over the text."""
    means, reference = atlas.reference_means(text.model.slug, body.run)
    if body.target == "zero":
        reference = "zero"
    return answers.sweep(text, body, engine.sweep(text, body.position, body.target, means), reference)
