"""Sequences of requests over all operations, each fed by what earlier ones answered: no server error, ever."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

_SEQUENCES, _STEPS = 40, 8


@pytest.fixture
def service(tiny_atlas: TinyAtlas, tmp_path: Path) -> Iterator[FastAPI]:
    """Over an atlas of its own: jobs are queued in it."""
    with sqlite3.connect(tiny_atlas.path) as source, sqlite3.connect(tmp_path / "a.db") as target:
        source.backup(target)
    engine = LiveEngine(tmp_path, device="cpu")
    yield create_service(Settings(atlas=str(tmp_path / "a.db")), engine=engine)
    engine.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sequences_of_requests_keep_the_contract(service: FastAPI) -> None:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", service)
    machine = schema.as_state_machine()
    checks = [not_a_server_error, response_schema_conformance, status_code_conformance]

    class Sequences(machine):  # type: ignore[misc, valid-type]
        def validate_response(self, response: object, case: object, **options: object) -> None:
            answered.append(case.operation.label)  # type: ignore[attr-defined]
            options.pop("additional_checks", None)
            case.validate_response(response, checks=checks)  # type: ignore[attr-defined]

    answered: list[str] = []
    Sequences.run(
        settings=settings(
            max_examples=_SEQUENCES, stateful_step_count=_STEPS, deadline=None, derandomize=True, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )
    )  # fmt: skip
    assert len(answered) >= _SEQUENCES
    assert len(set(answered)) >= 5, "many operations were reached"
