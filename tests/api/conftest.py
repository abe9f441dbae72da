"""The service over a real socket, for answers that stream."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from backend.client import Client
from backend.guards.connections import server_config
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    engine = LiveEngine(tmp_path_factory.mktemp("cache"), device="cpu")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def address(tiny_atlas: TinyAtlas, engine: LiveEngine) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = create_service(Settings(atlas=str(tiny_atlas.path), port=port), engine=engine)
    server = uvicorn.Server(server_config(service, "127.0.0.1", port))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client
