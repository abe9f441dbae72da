"""The induction lab: one request, and a stream of what repetition does."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from backend import schemas
from backend.atlas.records import ModelRecord, RunRecord
from backend.atlas.store import Atlas, NotInAtlas
from backend.core.errors import BadNeuron
from backend.core.induction import Plan
from backend.core.neurons import HeadId, NeuronId
from backend.core.repeating import Corpus, Wanted
from backend.live.engine import LiveModel
from backend.live.inducing import LiveInduction
from backend.routes import problems
from backend.routes.context_ablation import windows_of
from backend.routes.deps import AtlasDep, EngineDep

router = APIRouter(tags=["induction"])

_DEFAULT_NEURONS = 6
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
    run = _run(atlas, record, body.run)
    experiment = engine.induce(LiveModel(model, record.source), _wanted(atlas, body, run), _plan(atlas, body, run))
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


def _run(atlas: Atlas, model: ModelRecord, asked: int | None) -> RunRecord | None:
    """Whose corpus, classes and means are used; None where the model has no run.

    Raises:
        NotInAtlas: the run that was asked for does not exist, or is of another model.
    """
    chosen = atlas.newest_run(model.slug) if asked is None else asked
    if chosen is None:
        return None
    run = atlas.run(chosen)
    if run.model != model.slug:
        raise NotInAtlas(f"Run {chosen} is of the model {run.model!r}, not of {model.slug!r}.")
    return run


def _wanted(atlas: Atlas, body: schemas.InductionRequest, run: RunRecord | None) -> Wanted:
    corpus = _corpus(atlas, run) if body.source in ("synthetic", "natural") else None
    return Wanted(body.source, body.sequences, body.span, body.seed, body.text, corpus)


def _corpus(atlas: Atlas, run: RunRecord | None) -> Corpus:
    if run is None:
        raise NotInAtlas("No run of this model has stored any text: analyse it first, or take random or your own text.")
    tokens = atlas.sequences(run.id, windows_of(run))
    if not len(tokens):
        raise NotInAtlas(f"Run {run.id} has not stored its text yet: wait, or take random tokens or your own text.")
    return Corpus(tokens, f"{run.corpus} (run {run.id})")


def _plan(atlas: Atlas, body: schemas.InductionRequest, run: RunRecord | None) -> Plan:
    names = [NeuronId.parse(name) for name in body.neurons] or _default_neurons(atlas, run)
    plan = Plan(
        neurons=tuple(dict.fromkeys(names)),
        parts=frozenset(body.parts),
        top_heads=body.top_heads,
        heads=tuple(dict.fromkeys(HeadId.parse(name) for name in body.heads)),
        seed=body.seed,
    )
    if run is None or body.source not in ("natural", "text"):
        return plan
    means, told = atlas.reference_means(run.model, body.run)
    return plan if means is None else plan.clipped_to(means, f"the {told}")


def _default_neurons(atlas: Atlas, run: RunRecord | None) -> list[NeuronId]:
    """The run's entropy neurons by total effect; where it has none, its neurons that write most into the null space.

    Raises:
        BadNeuron: no run tells.
    """
    last = None if run is None else atlas.model(run.model).n_layers - 1
    if run is not None and run.layer == last:
        columns = atlas.columns(run.id, ["total_effect", "null_fraction"])
        entropy = np.array([name == "entropy" for name in atlas.classes(run.id)], dtype=bool)
        for values in (np.where(entropy, columns["total_effect"], np.nan), columns["null_fraction"]):
            order = np.argsort(-values, kind="stable")  # NaN last
            known = order[np.isfinite(values[order])][:_DEFAULT_NEURONS]
            if len(known):
                return [NeuronId(run.layer, int(columns["index"][place])) for place in known]
    raise BadNeuron("No run tells which neurons of the last layer matter: name some in `neurons`.")
