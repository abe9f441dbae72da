"""A person's own text: trace it once, read activations, intervene on neurons."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from backend import schemas
from backend.core.interventions import Intervention
from backend.core.neurons import HeadId, NeuronId, parse_unit
from backend.live import answers
from backend.live.engine import LiveModel, LiveText
from backend.routes.deps import AtlasDep, EngineDep

router = APIRouter(tags=["texts"])


def _text(engine: EngineDep, text_id: Annotated[str, Path(max_length=64)]) -> LiveText:
    return engine.text(text_id)


TextDep = Annotated[LiveText, Depends(_text)]


@router.post("/models/{model}/texts")
def trace_text(model: str, body: schemas.TextRequest, atlas: AtlasDep, engine: EngineDep) -> schemas.TextTrace:
    """Run the model over a text once; the id in the answer serves later calls. The same text has the same id."""
    source = atlas.model(model).source
    return answers.text_trace(engine.trace(LiveModel(model, source), body.text, schemas.MAX_TEXT_TOKENS))


@router.get("/texts/{text_id}")
def read_text(text: TextDep) -> schemas.TextTrace:
    """A traced text again."""
    return answers.text_trace(text)


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
    interventions = [Intervention(parse_unit(i.neuron), i.kind, i.value) for i in body.interventions]
    means, reference = atlas.reference_means(text.model.slug, body.run)
    if means is not None and any(isinstance(i.unit, HeadId) or i.unit.layer != text.layer for i in interventions):
        reference += "; for units outside the last layer, over this text"
    return answers.ablation(text, interventions, engine.ablate(text, interventions, means), reference)


@router.post("/texts/{text_id}/sweep")
def sweep(text: TextDep, body: schemas.SweepRequest, atlas: AtlasDep, engine: EngineDep) -> schemas.Sweep:
    """Who matters here: all last-layer neurons, each ablated alone, ranked on one token or over the text."""
    means, reference = atlas.reference_means(text.model.slug, body.run)
    if body.target == "zero":
        reference = "zero"
    return answers.sweep(text, body, engine.sweep(text, body.position, body.target, means), reference)
