"""The typed client of `/api/v1`, used by the dashboard and by notebooks.

A `Call` says what to ask and what comes back; `Client` (blocking) and `AsyncClient` send it:

    with Client("http://127.0.0.1:8050") as client:
        page = client.send(calls.neurons(1, sort="-total_effect", limit=10))
"""

from collections.abc import AsyncIterator, Iterator, MutableMapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import httpx
from pydantic import BaseModel

from backend import schemas

Answer = TypeVar("Answer", bound=BaseModel)
Params = dict[str, Any]

API_PREFIX = "/api/v1"
IN_PROCESS = "calibroscope.in_process"
"""Marks the scope of a request that never left this process: what comes over a socket cannot bear it."""


def in_process(service: Any) -> httpx.AsyncBaseTransport:
    """Asks an ASGI application in this process, past what guards it against strangers."""

    async def ask(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        # Compressed, an answer would be unpacked again a moment later by the same processor.
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        await service({**scope, "headers": headers, IN_PROCESS: True}, receive, send)

    return httpx.ASGITransport(app=ask)


class ApiError(Exception):
    """The service refused or failed: `problem` says what is wrong and what to do."""

    def __init__(self, problem: schemas.Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request, and the model that its answer is read into."""

    method: str
    path: str
    answer: type[Answer]
    params: Params = field(default_factory=dict)
    body: BaseModel | None = None


class calls:  # noqa: N801 - reads as a namespace: calls.neurons(...)
    """Every request that the service understands."""

    @staticmethod
    def health() -> Call[schemas.Health]:
        return Call("GET", "/health", schemas.Health)

    @staticmethod
    def glossary() -> Call[schemas.Glossary]:
        return Call("GET", "/glossary", schemas.Glossary)

    @staticmethod
    def interventions() -> Call[schemas.InterventionList]:
        return Call("GET", "/interventions", schemas.InterventionList)

    @staticmethod
    def models() -> Call[schemas.ModelList]:
        return Call("GET", "/models", schemas.ModelList)

    @staticmethod
    def runs(model: str) -> Call[schemas.RunList]:
        """The runs of a model, newest first."""
        return Call("GET", f"/models/{model}/runs", schemas.RunList)

    @staticmethod
    def run(run: int) -> Call[schemas.RunSummary]:
        return Call("GET", f"/runs/{run}", schemas.RunSummary)

    @staticmethod
    def neurons(
        run: int,
        *,
        sort: str = "-total_effect",
        limit: int = 100,
        cursor: str | None = None,
        neuron_class: str | None = None,
        paper_criterion: bool | None = None,
        where: list[str] | None = None,
        columns: list[str] | None = None,
    ) -> Call[schemas.NeuronPage]:
        """A page of neurons. `sort`: a metric, `-` first for descending; `where`: `metric>=number` terms, all hold."""
        params = {
            "sort": sort,
            "limit": limit,
            "cursor": cursor,
            "class": neuron_class,
            "paper_criterion": paper_criterion,
            "where": where,
            "columns": columns,
        }
        return Call("GET", f"/runs/{run}/neurons", schemas.NeuronPage, _given(params))

    @staticmethod
    def columns(run: int, names: list[str]) -> Call[schemas.NeuronColumns]:
        """The named metrics of all neurons of a run, by column."""
        return Call("GET", f"/runs/{run}/columns", schemas.NeuronColumns, {"name": names})

    @staticmethod
    def classes(run: int) -> Call[schemas.RunClasses]:
        """By which rule a run's neurons have their classes, how many have each, and where the paper's criterion parts
        from them."""
        return Call("GET", f"/runs/{run}/classes", schemas.RunClasses)

    @staticmethod
    def compare(a: int, b: int, *, metric: str = "total_effect", limit: int = 20) -> Call[schemas.Comparison]:
        """Two runs beside each other; `metric`: whose most changed neurons are listed, and `limit` how many."""
        params = {"a": a, "b": b, "metric": metric, "limit": limit}
        return Call("GET", "/compare", schemas.Comparison, params)

    @staticmethod
    def neuron(run: int, neuron: str) -> Call[schemas.NeuronDetail]:
        return Call("GET", f"/runs/{run}/neurons/{neuron}", schemas.NeuronDetail)

    @staticmethod
    def histogram(run: int, neuron: str) -> Call[schemas.Histogram]:
        return Call("GET", f"/runs/{run}/neurons/{neuron}/histogram", schemas.Histogram)

    @staticmethod
    def contexts(run: int, neuron: str) -> Call[schemas.ContextList]:
        return Call("GET", f"/runs/{run}/neurons/{neuron}/contexts", schemas.ContextList)

    @staticmethod
    def effects(run: int, neuron: str) -> Call[schemas.TokenEffects]:
        return Call("GET", f"/runs/{run}/neurons/{neuron}/effects", schemas.TokenEffects)

    @staticmethod
    def logits(run: int, neuron: str) -> Call[schemas.NeuronLogits]:
        return Call("GET", f"/runs/{run}/neurons/{neuron}/logits", schemas.NeuronLogits)

    @staticmethod
    def spectrum(run: int, neuron: str | None = None) -> Call[schemas.Spectrum]:
        return Call("GET", f"/runs/{run}/spectrum", schemas.Spectrum, _given({"neuron": neuron}))

    @staticmethod
    def positions(run: int) -> Call[schemas.RunPositions]:
        """What the model predicted at the run's sampled positions (Figure 3a)."""
        return Call("GET", f"/runs/{run}/positions", schemas.RunPositions)

    @staticmethod
    def frequencies(run: int, *, limit: int = 20) -> Call[schemas.TokenFrequencies]:
        """Where the run's token frequencies come from, and the most and least frequent tokens."""
        return Call("GET", f"/runs/{run}/frequencies", schemas.TokenFrequencies, {"limit": limit})

    @staticmethod
    def similar(run: int, neuron: str) -> Call[schemas.SimilarNeurons]:
        """Neurons of the same layer like this one, by what they write and by when they fire."""
        return Call("GET", f"/runs/{run}/neurons/{neuron}/similar", schemas.SimilarNeurons)

    @staticmethod
    def ablate_context(
        run: int, neuron: str, context: int, request: schemas.ContextAblateRequest
    ) -> Call[schemas.ContextAblation]:
        """One of the run's contexts with and without a neuron."""
        path = f"/runs/{run}/neurons/{neuron}/contexts/{context}/ablate"
        return Call("POST", path, schemas.ContextAblation, body=request)

    @staticmethod
    def tokens(run: int, query: str, *, limit: int = 20) -> Call[schemas.TokenMatches]:
        """Tokens of the run's model that match, spaces included, the very token first."""
        return Call("GET", f"/runs/{run}/tokens", schemas.TokenMatches, {"query": query, "limit": limit})

    @staticmethod
    def promoters(run: int, token_id: int, *, limit: int = 10) -> Call[schemas.Promoters]:
        """The run's neurons that raise and that lower a token's logit most."""
        return Call("GET", f"/runs/{run}/promoters", schemas.Promoters, {"token_id": token_id, "limit": limit})

    @staticmethod
    def trainings() -> Call[schemas.TrainingList]:
        """The trainings of which some steps were looked at."""
        return Call("GET", "/training", schemas.TrainingList)

    @staticmethod
    def training(training: str) -> Call[schemas.TrainingDetail]:
        """What the weights say at each step of a training."""
        return Call("GET", f"/training/{training}", schemas.TrainingDetail)

    @staticmethod
    def neuron_lines(
        training: str, metric: str, *, neurons: list[str] | None = None, most: int = 5, extreme: str = "highest"
    ) -> Call[schemas.NeuronLines]:
        """A metric of some neurons over a training; without names, of the most extreme at its last step."""
        params = _given({"metric": metric, "neuron": neurons, "most": most, "extreme": extreme})
        return Call("GET", f"/training/{training}/neurons", schemas.NeuronLines, params)

    @staticmethod
    def trace_text(model: str, text: str) -> Call[schemas.TextTrace]:
        """Run the model over a text once; its id serves later calls. The same text has the same id."""
        return Call("POST", f"/models/{model}/texts", schemas.TextTrace, body=schemas.TextRequest(text=text))

    @staticmethod
    def text(text_id: str, *, predictions_at: list[int] | None = None) -> Call[schemas.TextTrace]:
        """A traced text again, with the predictions at some tokens; None for all."""
        params = _given({"predictions_at": predictions_at})
        return Call("GET", f"/texts/{text_id}", schemas.TextTrace, params)

    @staticmethod
    def activations(text_id: str, neurons: list[str]) -> Call[schemas.ActivationList]:
        body = schemas.ActivationRequest(neurons=neurons)
        return Call("POST", f"/texts/{text_id}/activations", schemas.ActivationList, body=body)

    @staticmethod
    def ablate(text_id: str, request: schemas.AblateRequest) -> Call[schemas.Ablation]:
        return Call("POST", f"/texts/{text_id}/ablate", schemas.Ablation, body=request)

    @staticmethod
    def sweep(text_id: str, request: schemas.SweepRequest) -> Call[schemas.Sweep]:
        """All last-layer neurons ranked by what ablating each does, on one token or over the text."""
        return Call("POST", f"/texts/{text_id}/sweep", schemas.Sweep, body=request)

    @staticmethod
    def generate(text_id: str, request: schemas.GenerateRequest) -> Call[schemas.GenerationEvent]:
        """Sample on from a text: for `Client.stream`, which yields the events as they come."""
        return Call("POST", f"/texts/{text_id}/generate", schemas.GenerationEvent, body=request)

    @staticmethod
    def add_job(request: schemas.JobRequest) -> Call[schemas.Job]:
        """Queue work for the worker; its results stay in the atlas."""
        return Call("POST", "/jobs", schemas.Job, body=request)

    @staticmethod
    def jobs(limit: int = 50) -> Call[schemas.JobList]:
        """The newest first."""
        return Call("GET", "/jobs", schemas.JobList, {"limit": limit})

    @staticmethod
    def job(job: int) -> Call[schemas.Job]:
        return Call("GET", f"/jobs/{job}", schemas.Job)

    @staticmethod
    def cancel_job(job: int) -> Call[schemas.Job]:
        return Call("POST", f"/jobs/{job}/cancel", schemas.Job)

    @staticmethod
    def follow_job(job: int) -> Call[schemas.InductionEvent]:
        """A job's results, to stream: those there already, then those that come."""
        return Call("GET", f"/jobs/{job}/events", schemas.InductionEvent)

    @staticmethod
    def induction(model: str, request: schemas.InductionRequest) -> Call[schemas.InductionEvent]:
        """What a model does on text that repeats: for `Client.stream`, which yields the events as they come."""
        return Call("POST", f"/models/{model}/induction", schemas.InductionEvent, body=request)


def _given(params: Params) -> Params:
    return {name: value for name, value in params.items() if value is not None}


def _request(call: Call[Any]) -> dict[str, Any]:
    request: dict[str, Any] = {"method": call.method, "url": API_PREFIX + call.path, "params": call.params}
    if call.body is not None:
        request["content"] = call.body.model_dump_json()
        request["headers"] = {"content-type": "application/json"}
    return request


def _read(call: Call[Answer], response: httpx.Response) -> Answer:
    if response.is_success:
        return call.answer.model_validate_json(response.content)
    try:
        problem = schemas.Problem.model_validate_json(response.content)
    except ValueError:
        title, text = response.reason_phrase or "Error", response.text[:500]
        problem = schemas.Problem(title=title, status=response.status_code, detail=text or title)
    raise ApiError(problem)


def _unreachable(call: Call[Any], error: httpx.HTTPError) -> ApiError:
    detail = f"{call.method} {API_PREFIX}{call.path} got no answer ({type(error).__name__}). Is the service running?"
    return ApiError(schemas.Problem(title="No answer", status=503, detail=detail))


class Client:
    """A blocking client, for notebooks and scripts."""

    def __init__(self, base_url: str = "http://127.0.0.1:8050", *, timeout: float = 120) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout)

    def send(self, call: Call[Answer]) -> Answer:
        """The answer to a call.

        Raises:
            ApiError: the service refused, failed, or could not be reached.
        """
        try:
            return _read(call, self._http.request(**_request(call)))
        except httpx.HTTPError as error:
            raise _unreachable(call, error) from error

    def stream(self, call: Call[Answer]) -> Iterator[Answer]:
        """The answers to a call that streams, one by one. Leaving the loop stops the service's work.

        Raises:
            ApiError: the service refused, failed, or could not be reached.
        """
        try:
            with self._http.stream(**_request(call)) as response:
                if not response.is_success:
                    response.read()
                    _read(call, response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield call.answer.model_validate_json(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise _unreachable(call, error) from error

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Sender(Protocol):
    """Whoever sends a call and gives its answer; pages ask through this."""

    async def send(self, call: Call[Answer]) -> Answer:
        """
        Raises:
            ApiError: the service refused, failed, or could not be reached.
        """
        ...


class AsyncClient:
    """The service's calls without blocking the event loop.

    `service` is an ASGI application to ask in this process instead of over a socket.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8050", *, service: Any | None = None, timeout: float = 120
    ) -> None:
        transport = in_process(service) if service is not None else None
        self._http = httpx.AsyncClient(base_url=base_url, transport=transport, timeout=timeout)

    async def send(self, call: Call[Answer]) -> Answer:
        """The answer to a call.

        Raises:
            ApiError: the service refused, failed, or could not be reached.
        """
        try:
            return _read(call, await self._http.request(**_request(call)))
        except httpx.HTTPError as error:
            raise _unreachable(call, error) from error

    async def stream(self, call: Call[Answer]) -> AsyncIterator[Answer]:
        """The answers to a call that streams, one by one; from a service in this process all at once, at its end.

        Raises:
            ApiError: the service refused, failed, or could not be reached.
        """
        try:
            async with self._http.stream(**_request(call)) as response:
                if not response.is_success:
                    await response.aread()
                    _read(call, response)
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        yield call.answer.model_validate_json(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise _unreachable(call, error) from error

    async def close(self) -> None:
        await self._http.aclose()
