"""A service that answers every call of `backend.client` from the sample, without a model: what the pages show in
states that a real run is rarely in.

    .venv/bin/python -m tests.app.sample_service full 8061
"""

import sys
from collections.abc import AsyncIterator
from typing import Literal

import anyio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from app.dashboard import create_dashboard, warm_up
from backend import schemas
from backend.client import AsyncClient
from tests.app import induction_sample, sample

Mode = Literal["full", "growing", "failing", "empty"]
"""`growing`: a run whose effects are not measured yet; `failing`: every call is refused; `empty`: no model at all."""
REFUSAL = "The atlas cannot be read: the disk has gone away."


def create_sample(mode: Mode = "full") -> FastAPI:
    """The sample service with the dashboard on it."""
    service = FastAPI()
    service.add_exception_handler(LookupError, _missing)
    if mode == "failing":
        service.add_api_route("/api/v1/{rest:path}", _refuse, methods=["GET", "POST"])
    _add_models(service, mode)
    _add_neurons(service, mode)
    _add_texts(service)
    create_dashboard(AsyncClient(service=service), service)
    return service


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse(schemas.Problem(title="Problem", status=status, detail=detail).model_dump(), status)


def _missing(_: Request, error: Exception) -> JSONResponse:
    return _problem(404, str(error.args[0]))


def _refuse() -> JSONResponse:
    return _problem(503, REFUSAL)


def _add_models(service: FastAPI, mode: Mode) -> None:
    growing = {"status": "running", "stage": "effects", "progress": 0.3, "tokens_counted": 0}
    run = sample.run(**(growing if mode == "growing" else {}))

    @service.get("/api/v1/models")
    def models() -> schemas.ModelList:
        return schemas.ModelList(models=[] if mode == "empty" else [sample.model()])

    @service.get("/api/v1/models/{model}/runs")
    def runs(model: str) -> schemas.RunList:
        return schemas.RunList(runs=[run])

    @service.get("/api/v1/runs/{number}")
    def one_run(number: int) -> schemas.RunSummary:
        return run

    @service.get("/api/v1/compare")
    def compare(a: int, b: int, metric: str) -> schemas.Comparison:
        return sample.comparison(run, run)

    @service.get("/api/v1/runs/{number}/columns")
    async def columns(number: int, request: Request) -> schemas.NeuronColumns:
        return sample.columns(request.query_params.getlist("name"), measured=mode == "full")


def _add_neurons(service: FastAPI, mode: Mode) -> None:
    base = "/api/v1/runs/{number}/neurons"

    def found(name: str) -> str:
        if name not in [f"29.{index}" for index in range(sample.COUNT)]:
            raise LookupError(f"There is no neuron {name}: the run has 29.0 to 29.{sample.COUNT - 1}.")
        return name

    @service.get(base)
    def neurons(number: int) -> schemas.NeuronPage:
        return schemas.NeuronPage(rows=[sample.detail().row], total=1, next_cursor=None)

    @service.get(base + "/{name}")
    def neuron(number: int, name: str) -> schemas.NeuronDetail:
        found(name)
        return sample.detail() if mode == "full" else sample.unmeasured()

    @service.get(base + "/{name}/effects")
    def effects(number: int, name: str) -> schemas.TokenEffects:
        if mode != "full":
            raise LookupError(f"The effects of {found(name)} are not measured yet.")
        return sample.effects()

    @service.get(base + "/{name}/histogram")
    def histogram(number: int, name: str) -> schemas.Histogram:
        return sample.histogram()

    @service.get(base + "/{name}/logits")
    def logits(number: int, name: str) -> schemas.NeuronLogits:
        return sample.logits()

    @service.get(base + "/{name}/contexts")
    def contexts(number: int, name: str) -> schemas.ContextList:
        if mode != "full":
            raise LookupError(f"The contexts of {found(name)} are not collected yet.")
        return sample.contexts()

    @service.get(base + "/{name}/similar")
    def similar(number: int, name: str) -> schemas.SimilarNeurons:
        if mode != "full":
            raise LookupError(f"The neighbours of {found(name)} are not measured yet.")
        return sample.similar()

    @service.post(base + "/{name}/contexts/{context}/ablate")
    def without(number: int, name: str, context: int, body: schemas.ContextAblateRequest) -> schemas.ContextAblation:
        return sample.context_ablation(context=context, kind=body.kind)

    @service.get("/api/v1/runs/{number}/positions")
    def positions(number: int) -> schemas.RunPositions:
        if mode != "full":
            raise LookupError("Run 1 has not measured per-token effects yet.")
        return sample.positions()

    @service.get("/api/v1/runs/{number}/frequencies")
    def frequencies(number: int) -> schemas.TokenFrequencies:
        return sample.frequencies()

    @service.get("/api/v1/runs/{number}/tokens")
    def tokens(number: int, query: str) -> schemas.TokenMatches:
        return sample.matches(query)

    @service.get("/api/v1/runs/{number}/promoters")
    def promoters(number: int, token_id: int) -> schemas.Promoters:
        return sample.promoters(token_id)

    @service.get("/api/v1/runs/{number}/spectrum")
    def spectrum(number: int, neuron: str | None = None) -> schemas.Spectrum:
        return sample.spectrum()


def _add_texts(service: FastAPI) -> None:
    @service.post("/api/v1/models/{model}/texts")
    def trace(model: str, body: schemas.TextRequest) -> schemas.TextTrace:
        return sample.trace(repeat=100 if body.text.startswith("long") else 1)

    @service.post("/api/v1/texts/{text}/activations")
    def activations(text: str, body: schemas.ActivationRequest) -> schemas.ActivationList:
        return sample.activations(body.neurons, repeat=100 if text == "long" else 1)

    @service.post("/api/v1/texts/{text}/ablate")
    def ablate(text: str, body: schemas.AblateRequest) -> schemas.Ablation:
        return sample.ablation(text, repeat=100 if text == "long" else 1)

    @service.post("/api/v1/models/{model}/induction")
    def induction(model: str, body: schemas.InductionRequest) -> StreamingResponse:
        async def told() -> AsyncIterator[str]:
            events = induction_sample.events(body.parts)
            for done, event in enumerate(events):
                await anyio.sleep(0.3)
                progress = schemas.InductionProgress(done=done, of=len(events), doing="Pretending")
                yield f"data: {progress.model_dump_json()}\n\ndata: {event.model_dump_json()}\n\n"

        return StreamingResponse(told(), media_type="text/event-stream")


if __name__ == "__main__":
    site = create_sample(sys.argv[1])  # type: ignore[arg-type]
    anyio.run(warm_up, site)
    uvicorn.run(site, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
