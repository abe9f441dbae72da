"""The service while another process holds the atlas: pages are read, what writes is refused in seconds."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.atlas.locking import held, without_wal
from tests.conftest import TinyAtlas

V1 = "/api/v1"


@pytest.fixture
def path(tiny_atlas: TinyAtlas, tmp_path: Path) -> Path:
    copied = tmp_path / "a.db"
    copied.write_bytes(tiny_atlas.path.read_bytes())
    return copied


@pytest.fixture
def http(path: Path, tmp_path: Path) -> Iterator[TestClient]:
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(path)), engine=engine)) as client:
        yield client
    engine.close()


def asked_at_once(http: TestClient, paths: list[str]) -> tuple[list[Any], float]:
    began = time.monotonic()
    with ThreadPoolExecutor(len(paths)) as people:
        answers = list(people.map(http.get, paths))
    return answers, time.monotonic() - began


def job(atlas: TinyAtlas) -> dict[str, Any]:
    return {
        "kind": "induction",
        "model": atlas.slug,
        "induction": {"source": "random", "neurons": [f"{atlas.layer}.3"]},
    }


def test_everybody_reads_while_somebody_holds_the_write_lock(
    http: TestClient, path: Path, tiny_atlas: TinyAtlas
) -> None:
    at = f"{V1}/runs/{tiny_atlas.run}"
    http.post(f"{V1}/jobs", json=job(tiny_atlas)).raise_for_status()
    pages = [at, f"{at}/columns?name=total_effect", f"{at}/neurons", f"{V1}/models", f"{V1}/jobs"] * 8
    with held(path), ThreadPoolExecutor(2) as writers:
        began = time.monotonic()
        writing = [writers.submit(http.post, f"{V1}/jobs/1/cancel") for _ in range(2)]
        answers, seconds = asked_at_once(http, pages)
        assert [answer.status_code for answer in answers] == [200] * len(pages)
        assert seconds < 10
        for refused in (one.result(30) for one in writing):
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert "Another process holds the atlas" in refused.json()["detail"]
        assert time.monotonic() - began < 15
    assert http.post(f"{V1}/jobs/1/cancel").json()["status"] == "cancelled"


def test_a_service_that_starts_while_the_atlas_is_held_reads_it(
    http: TestClient, path: Path, tiny_atlas: TinyAtlas
) -> None:
    with held(path):
        began = time.monotonic()
        assert http.get(f"{V1}/runs/{tiny_atlas.run}").status_code == 200
        assert http.post(f"{V1}/jobs", json=job(tiny_atlas)).status_code == 503
        assert time.monotonic() - began < 10
    assert http.post(f"{V1}/jobs", json=job(tiny_atlas)).status_code == 201


def test_an_atlas_that_shuts_readers_out_stalls_nothing(http: TestClient, path: Path, tiny_atlas: TinyAtlas) -> None:
    at = f"{V1}/runs/{tiny_atlas.run}"
    without_wal(path)
    for _ in range(2):  # not open yet; then open
        with held(path):
            answers, seconds = asked_at_once(http, [at, f"{at}/neurons", f"{V1}/models"] * 10)
            assert {answer.status_code for answer in answers} == {503}
            assert {answer.json()["title"] for answer in answers} == {"The atlas is in use"}
            assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
            assert seconds < 15
            assert http.get(f"{V1}/health").status_code == 200
        answers, _ = asked_at_once(http, [at, f"{at}/neurons", f"{V1}/models"])
        assert [answer.status_code for answer in answers] == [200] * 3
