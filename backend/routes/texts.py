"""A person's own text: trace it once, read activations, intervene on neurons."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse

from backend import schemas
from backend.answers import texts as answers
from backend.core.interventions.generation import Sampling
from backend.core.interventions.kinds import Intervention
from backend.core.neurons import HeadId, NeuronId, parse_unit
from backend.live.streams import LiveStream
from backend.live.texts import Distances, LiveGenerationStep, LiveText
from backend.requests.beginning import live_model
from backend.requests.frequencies import live_frequencies
from backend.routes import problems
from backend.routes.deps import AtlasDep, EngineDep, ModelSlug, Reading, TurnDep

router = APIRouter(tags=["texts"])


def _text(engine: EngineDep, text_id: Annotated[str, Path(max_length=64)]) -> LiveText:
    return engine.text(text_id)


TextDep = Annotated[LiveText, Depends(_text)]


@router.post("/models/{model}/texts")
def trace_text(
    turn: TurnDep, model: ModelSlug, body: schemas.TextRequest, atlas: AtlasDep, engine: EngineDep
) -> schemas.TextTrace:
    """Run the model over a text once; the id in the answer serves later calls. The same text has the same id."""
    chosen, known = live_model(atlas, model), live_frequencies(atlas, model, None)

    def trace() -> tuple[LiveText, Distances | None]:
        text = engine.trace(chosen, body.text, schemas.MAX_TEXT_TOKENS)
        return text, None if known is None else engine.distances(text, known)

    text, distances = turn.turn(trace)
    return answers.text_trace(text, distances, None if known is None else known.described)


@router.get("/texts/{text_id}", dependencies=[Reading])
def read_text(
    text: TextDep, atlas: AtlasDep, predictions_at: Annotated[schemas.TokenPositions | None, Query()] = None
) -> schemas.TextTrace:
    """A traced text again, with what is known of it already: the model is not asked. `predictions_at` names the
    tokens whose predictions are wanted, which are most of the answer; without it they are of all."""
    known = live_frequencies(atlas, text.model.slug, None)
    distances = None if known is None else text.distances(known)
    described = None if known is None or distances is None else known.described
    return answers.text_trace(text, distances, described, predictions_at)


@router.post("/texts/{text_id}/activations")
def read_activations(
    turn: TurnDep, text: TextDep, body: schemas.ActivationRequest, atlas: AtlasDep, engine: EngineDep
) -> schemas.ActivationList:
    """Activations of neurons, of any layer, on every token of a text."""
    neurons = [NeuronId.parse(name, text.model.experts) for name in body.neurons]
    means, _ = atlas.runs.reference_means(text.model.slug, None)
    activations = turn.turn(lambda: engine.activations(text, neurons))
    return answers.activations(text, neurons, activations, means)


@router.post("/texts/{text_id}/ablate")
def ablate(
    turn: TurnDep, text: TextDep, body: schemas.AblateRequest, atlas: AtlasDep, engine: EngineDep
) -> schemas.Ablation:
    """What interventions do to every token, with the final norm recomputed and frozen.

    Neurons of the last layer are ablated in closed form, in milliseconds; those of earlier layers, and attention heads,
    by a forward pass from their layer on.
    """
    interventions = _interventions(text, body.interventions)
    means, reference = atlas.runs.reference_means(text.model.slug, body.run)
    if means is not None:
        reference += _elsewhere(text, interventions)
    known = live_frequencies(atlas, text.model.slug, body.run)
    described = None if known is None else known.described
    at = body.predictions_at
    ablated = turn.turn(lambda: engine.ablate(text, interventions, means, known, at))
    return answers.ablation(text, interventions, ablated, reference, described, at)


def _interventions(text: LiveText, asked: Sequence[schemas.InterventionRequest]) -> list[Intervention]:
    return [Intervention(parse_unit(i.neuron, text.model.experts), i.kind, i.value) for i in asked]


def _elsewhere(text: LiveText, interventions: Sequence[Intervention]) -> str:
    others = any(isinstance(i.unit, HeadId) or i.unit.layer != text.layer for i in interventions)
    return "; for units outside the last layer, over this text" if others else ""


Begun = tuple[LiveStream[LiveGenerationStep], schemas.GenerationStart]


def _begun(turn: TurnDep, text: TextDep, body: schemas.GenerateRequest, atlas: AtlasDep, engine: EngineDep) -> Begun:
    """A generation that has been let in: what is wrong with it is answered before the stream begins."""
    interventions = _interventions(text, body.interventions)
    means, reference = atlas.runs.reference_means(text.model.slug, body.run)
    if means is not None:
        reference += _elsewhere(text, interventions)
    sampling = Sampling(body.temperature, body.seed, body.max_tokens)
    generation = turn.turn(lambda: engine.generate(text, interventions, means, sampling))
    return generation, schemas.GenerationStart(reference=reference, tokens=len(text.traced.tokens))


async def _closed_after(begun: Annotated[Begun, Depends(_begun)]) -> AsyncIterator[Begun]:
    """The stream's generator is not closed with the connection where it waits to be read, so this does it."""
    try:
        yield begun
    finally:
        begun[0].close()


@router.post("/texts/{text_id}/generate", response_class=EventSourceResponse)
async def generate(
    begun: Annotated[Begun, Depends(_closed_after)], request: Request
) -> AsyncIterator[schemas.GenerationEvent]:
    """Sample on from a text with the interventions on, beside the continuation without them.

    Both draw on the same chance, so they part only where the interventions change what is chosen. Tokens come as they
    are made, as server-sent events: a start, steps, and an end or a problem. Closing the connection stops the
    generation.
    """
    generation, start = begun
    try:
        yield schemas.GenerationEvent(start)
        reason = None
        while reason is None and (step := await run_in_threadpool(generation.step)) is not None:
            yield schemas.GenerationEvent(answers.generation_step(step))
            reason = step.ended
        end = {"reason": reason, "steps": generation.steps, "seconds": generation.seconds}
        yield schemas.GenerationEvent(schemas.GenerationEnd.model_validate(end))
    except Exception as error:  # the answer has begun: its status can no longer tell
        yield schemas.GenerationEvent(schemas.GenerationProblem(problem=problems.of(error, request.url.path)))


@router.post("/texts/{text_id}/sweep")
def sweep(
    turn: TurnDep, text: TextDep, body: schemas.SweepRequest, atlas: AtlasDep, engine: EngineDep
) -> schemas.Sweep:
    """Who matters here: all last-layer neurons, each ablated alone, ranked on one token or over the text."""
    means, reference = atlas.runs.reference_means(text.model.slug, body.run)
    if body.target == "zero":
        reference = "zero"
    swept = turn.turn(lambda: engine.sweep(text, body.position, body.target, means))
    return answers.sweep(text, body, swept, reference)
