"""The service without any atlas: guards stand before everything that would need one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.guards.service import GuardedService
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings

Made = Callable[..., GuardedService]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Made]:
    """Makes a service from settings."""
    engine = LiveEngine(tmp_path, device="cpu")

    def made(**settings: Any) -> GuardedService:
        return create_service(Settings(atlas=str(tmp_path / "none.db"), **settings), engine=engine)

    yield made
    engine.close()


@pytest.fixture
def http(service: Made) -> Iterator[TestClient]:
    with TestClient(service()) as client:
        yield client
