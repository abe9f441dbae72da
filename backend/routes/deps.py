"""What routes are handed: a place in their lane, the atlas, the live engine, a neuron's name."""

from collections.abc import AsyncIterator
from hmac import compare_digest
from threading import Lock
from typing import Annotated

from fastapi import Depends, Header, Path, Request, Response

from backend import schemas
from backend.atlas.connect import AtlasBusy, AtlasMissing, file_of
from backend.atlas.database import NotInAtlas
from backend.atlas.records import RunRecord
from backend.atlas.store import Atlas
from backend.core.errors import CalibroscopeError, NoSuchNeuron
from backend.core.neurons import NeuronId
from backend.live.engine import LiveEngine
from backend.live.queue import Place
from backend.routes.lanes import Lane, watched
from backend.settings import Settings

_READERS_WAIT = 0.1
"""Seconds. A reader waits for no writer, in an atlas that Calibroscope has made; somebody else may have locked it."""
_WRITERS_WAIT = 3.0


class NotAllowed(CalibroscopeError):
    """A request to write without the key."""


class AtlasDoor:
    """Opens the atlas when it is first asked for: it may be made only after the service has started. One that was put
    in its place since is opened instead: else some answers would be of the old and some of the new."""

    def __init__(self, settings: Settings, *, read_only: bool) -> None:
        self._location, self._read_only, self._lock = settings.atlas, read_only, Lock()
        self._patience = _READERS_WAIT if read_only else _WRITERS_WAIT
        self._open: Atlas | None = None
        self._file: tuple[int, int] | None = None

    def get(self) -> Atlas:
        """
        Raises:
            AtlasMissing, AtlasUnusable: there is nothing to open.
            AtlasBusy: another process holds it.
        """
        file = file_of(self._location)
        if self._open is not None and file == self._file:
            return self._open
        if not self._lock.acquire(timeout=_WRITERS_WAIT):  # who holds it opens the atlas, which takes its time
            raise AtlasBusy
        try:
            if self._open is not None and file != self._file:
                self.close()
                self._open = None
            if self._open is None:
                self._open = Atlas.open(self._location, read_only=self._read_only, patience=self._patience)
                self._file = file_of(self._location)
            return self._open
        finally:
            self._lock.release()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def _atlas(request: Request) -> Atlas:
    door: AtlasDoor = request.app.state.atlas
    return door.get()


def _atlas_if_there(request: Request) -> Atlas | None:
    try:
        return _atlas(request)
    except AtlasMissing:
        return None


async def _engine(request: Request) -> LiveEngine:
    engine: LiveEngine = request.app.state.engine
    return engine


async def _reading(request: Request) -> AsyncIterator[None]:
    lane: Lane = request.app.state.reading
    async with lane.hold(request):
        yield


async def _writing(request: Request) -> AsyncIterator[None]:
    lane: Lane = request.app.state.writing
    async with lane.hold(request):
        yield


async def _turn(request: Request) -> AsyncIterator[Place]:
    """A place in the line to the model, which is given back when the client closes the connection.

    Raises:
        EngineBusy: there is none.
    """
    engine: LiveEngine = request.app.state.engine
    with engine.join() as place:
        async with watched(request, place.leave):
            yield place


def _writable(request: Request, key: Annotated[str | None, Header(alias="X-API-Key", max_length=200)] = None) -> Atlas:
    """The atlas, for who may write to it.

    Raises:
        NotAllowed: the key is missing or wrong.
    """
    settings: Settings = request.app.state.settings
    if settings.api_key is not None:
        known = settings.api_key.get_secret_value().encode()
        if key is None or not compare_digest(key.encode(), known):
            raise NotAllowed("Writing needs the service's key: send it in the X-API-Key header.")
    elif not settings.is_local:
        raise NotAllowed(
            "The service listens beyond its own machine and has no key, so nothing can be written over HTTP. Start it "
            "with CALIBROSCOPE_API_KEY set, and send that in the X-API-Key header."
        )
    _atlas(request)  # where there is none, writing would make an empty one
    door: AtlasDoor = request.app.state.writable_atlas
    return door.get()


AtlasDep = Annotated[Atlas, Depends(_atlas)]
WritableAtlasDep = Annotated[Atlas, Depends(_writable)]
MaybeAtlasDep = Annotated[Atlas | None, Depends(_atlas_if_there)]
EngineDep = Annotated[LiveEngine, Depends(_engine)]
# Until the answer is made, not until it is sent: a slow connection keeps nobody waiting.
Reading = Depends(_reading, scope="function")
Writing = Depends(_writing, scope="function")
TurnDep = Annotated[Place, Depends(_turn, scope="function")]
"""A route that needs the model takes this first, and does all that it needs of the model in the one turn."""


ModelSlug = Annotated[str, Path(max_length=200, description="A model's id, from /api/v1/models.")]


def about_run(run: int) -> dict[str, str]:
    """The header that leads from an answer's numbers to what was measured (RFC 8288)."""
    return {"Link": f'</api/v1/runs/{run}>; rel="describedby"; type="application/json"'}


def _run(atlas: AtlasDep, run: Annotated[schemas.Id, Path()], response: Response) -> RunRecord:
    response.headers.update(about_run(run))
    return atlas.runs.get(run)


RunDep = Annotated[RunRecord, Depends(_run)]


def _neuron(atlas: AtlasDep, run: RunDep, neuron: Annotated[str, Path(max_length=40, examples=["29.830"])]) -> NeuronId:
    """A neuron that the run has measured.

    Raises:
        BadNeuron: malformed; NotInAtlas: the run does not have it.
    """
    model = atlas.models.get(run.model)
    try:
        parsed = NeuronId.parse(neuron, run.experts)
        if parsed.layer == run.layer:
            return parsed.within(model.n_layers, model.d_mlp)
    except NoSuchNeuron as error:
        raise NotInAtlas(str(error)) from error
    raise NotInAtlas(
        f"Run {run.id} has no neuron {parsed}: it measures layer {run.layer}, neurons {run.neuron(0)} to "
        f"{run.neuron(model.d_mlp - 1)}."
    )


NeuronDep = Annotated[NeuronId, Depends(_neuron)]
