"""The worker: jobs done, resumed, cancelled and failed; the results over HTTP."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from backend.atlas.store import Atlas
from backend.core.induction import experiment as science
from backend.core.models.sources import ModelFiles
from backend.live.engine import LiveEngine
from backend.schemas import InductionChange, InductionEvent
from backend.service import create_service
from backend.settings import Settings
from precompute import induction
from precompute.progress import Silent
from precompute.worker import Worker, measure_induction
from tests.conftest import TinyAtlas

EVERY = [part for group in induction.GROUPS for part in group]


@pytest.fixture
def own(tiny_atlas: TinyAtlas, tmp_path: Path) -> Path:
    """An atlas of one's own to write to."""
    with Atlas.open(tiny_atlas.path) as _:
        shutil.copy(tiny_atlas.path, tmp_path / "own.db")
        for part in ("-wal", "-shm"):
            if (wal := Path(f"{tiny_atlas.path}{part}")).exists():
                shutil.copy(wal, tmp_path / f"own.db{part}")
    return tmp_path / "own.db"


@pytest.fixture
def client(own: Path, tmp_path: Path) -> Iterator[TestClient]:
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(own)), engine=engine)) as client:
        yield client
    engine.close()


def worker(atlas: Atlas, cache: Path) -> Worker:
    return Worker(atlas, cache, Silent(), "cpu")


def asked(client: TestClient, model: str, **changes: Any) -> dict[str, Any]:
    body = {"source": "synthetic", "sequences": 6, "span": 8, "parts": EVERY, "top_heads": 2} | changes
    answer = client.post("/api/v1/jobs", json={"model": model, "induction": body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def events(client: TestClient, job: int) -> list[Any]:
    lines = client.get(f"/api/v1/jobs/{job}/events").text.split("\n\n")
    return [InductionEvent.model_validate_json(line.removeprefix("data: ")).root for line in lines if line]


def test_a_job_is_queued_done_and_read(client: TestClient, own: Path, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    job = asked(client, tiny_atlas.slug)
    assert (job["status"], job["run"]) == ("queued", tiny_atlas.run)
    assert asked(client, tiny_atlas.slug)["id"] == job["id"], "not twice"
    with Atlas.open(own) as atlas:
        assert worker(atlas, tmp_path / "cache").work(once=True) == 1
    read = client.get(f"/api/v1/jobs/{job['id']}").json()
    assert (read["status"], read["progress"], read["message"]) == ("finished", 1.0, None)
    found = events(client, job["id"])
    kinds = [event.kind for event in found]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("heads") == 1
    assert set(kinds) == {"start", "curves", "clip", "change", "heads", "knockout", "attribution", "end"}
    assert {event.how for event in found if event.kind == "knockout"} == {"bos", "mean_output"}


def test_the_change_of_activation_becomes_a_column_of_the_run(
    client: TestClient, own: Path, tiny_atlas: TinyAtlas, tmp_path: Path
) -> None:
    address = f"/api/v1/runs/{tiny_atlas.run}/columns?name=induction_change&name=total_effect"
    before = client.get(address).json()
    assert set(before["columns"]["induction_change"]) == {None}
    job = asked(client, tiny_atlas.slug, parts=["change"])
    with Atlas.open(own) as atlas:
        worker(atlas, tmp_path / "cache").work(once=True)
    change = next(event for event in events(client, job["id"]) if isinstance(event, InductionChange))
    after = client.get(address).json()
    assert after["columns"]["induction_change"] == pytest.approx(change.change)
    assert after["columns"]["total_effect"] == before["columns"]["total_effect"]
    assert after["revision"] != before["revision"], "pages fetch it again"


def test_an_interrupted_job_goes_on_where_it_stopped(
    client: TestClient, own: Path, tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = asked(client, tiny_atlas.slug)
    measured: list[frozenset[str]] = []

    class Stopping(science.Experiment):
        def __init__(self, model: Any, repeats: Any, plan: science.Plan, bos: int | None) -> None:
            measured.append(plan.parts)
            if "bos" in plan.parts and len(measured) < 4:
                raise KeyboardInterrupt
            super().__init__(model, repeats, plan, bos)

    monkeypatch.setattr(induction, "Experiment", Stopping)
    with Atlas.open(own) as atlas:
        with pytest.raises(KeyboardInterrupt):
            worker(atlas, tmp_path / "cache").work(once=True)
        assert atlas.jobs.get(job["id"]).status == "queued"
        assert atlas.jobs.get(job["id"]).parts_done == ["start", "curves", "heads"]
        kept = atlas.jobs.results(job["id"])
        worker(atlas, tmp_path / "cache").work(once=True)
        assert atlas.jobs.results(job["id"])[: len(kept)] == kept
        assert atlas.jobs.get(job["id"]).status == "finished"
    assert [sorted(parts) for parts in measured[3:]] == [["bos"], ["mean_output"], ["attribution"]]


def test_a_cancelled_job_stops_and_keeps_what_it_found(
    client: TestClient, own: Path, tiny_atlas: TinyAtlas, tmp_path: Path
) -> None:
    job = asked(client, tiny_atlas.slug)["id"]
    with Atlas.open(own) as atlas:
        report = atlas.jobs.report_progress

        def cancelling(job: int, progress: float, doing: str) -> bool:
            if progress > 0.25:
                client.post(f"/api/v1/jobs/{job}/cancel")
            return report(job, progress, doing)

        atlas.jobs.report_progress = cancelling  # type: ignore[method-assign]
        worker(atlas, tmp_path / "cache").work(once=True)
        assert atlas.jobs.get(job).status == "cancelled"
        assert "curves" in atlas.jobs.get(job).parts_done
        assert "attribution" not in atlas.jobs.get(job).parts_done
    last = events(client, job)[-1]
    assert (last.kind, last.problem.detail) == ("problem", "The job was cancelled.")


def test_a_job_that_cannot_be_done_fails_with_its_sentence_and_the_worker_goes_on(
    own: Path, tiny_atlas: TinyAtlas, tmp_path: Path
) -> None:
    with Atlas.open(own) as atlas:
        bad = {"source": "synthetic", "span": 200, "parts": ["curves"], "run": tiny_atlas.run}
        broken = atlas.jobs.add("induction", tiny_atlas.slug, tiny_atlas.run, bad).id
        good = bad | {"span": 4, "sequences": 2}
        other = atlas.jobs.add("induction", tiny_atlas.slug, tiny_atlas.run, good).id
        assert worker(atlas, tmp_path / "cache").work(once=True) == 2
        assert atlas.jobs.get(broken).status == "failed"
        assert atlas.jobs.get(broken).message
        assert atlas.jobs.get(other).status == "finished"


def test_more_text_than_the_sample_comes_from_the_corpus(own: Path, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    with Atlas.open(own) as atlas:
        job = atlas.jobs.add(
            "induction", tiny_atlas.slug, tiny_atlas.run,
            {"source": "natural", "span": 2, "sequences": 30, "parts": ["change"], "run": tiny_atlas.run},
        ).id  # fmt: skip
        worker(atlas, tmp_path / "cache").work(once=True)
        record = atlas.jobs.get(job)
        assert record.status == "finished", record.message
        start = json.loads(atlas.jobs.results(job)[0])
        searched = int(start["summary"].split("(")[1].split(" were")[0])
        assert searched > len(atlas.contexts.sequences(tiny_atlas.run, 1)), "the whole corpus was searched"


def test_precompute_measures_induction_once(own: Path, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    with Atlas.open(own) as atlas:
        for _ in range(2):
            measure_induction(tiny_atlas.run, 3, atlas, tmp_path / "cache", Silent(), "cpu")
        assert [job.status for job in atlas.jobs.newest(10)] == ["finished"]
        assert np.isfinite(atlas.neurons.columns(tiny_atlas.run, ["induction_change"])["induction_change"]).all()


def test_what_another_version_measured_is_measured_again(
    own: Path, tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Atlas.open(own) as atlas:
        with monkeypatch.context() as older:
            older.setattr(induction, "RESULTS_FORMAT", 0)
            measure_induction(tiny_atlas.run, 3, atlas, tmp_path / "cache", Silent(), "cpu")
        measure_induction(tiny_atlas.run, 3, atlas, tmp_path / "cache", Silent(), "cpu")
        assert [job.status for job in atlas.jobs.newest(10)] == ["finished"] * 2


def test_parts_of_another_version_are_not_gone_on_with(own: Path, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    """The worker was stopped, and Calibroscope brought up to date, before the job went on."""
    parts = ["heads", "bos"]
    request = {"source": "synthetic", "sequences": 3, "span": 8, "parts": parts, "run": tiny_atlas.run, "top_heads": 2}
    with Atlas.open(own) as atlas:
        job = atlas.jobs.add("induction", tiny_atlas.slug, tiny_atlas.run, request).id
        atlas.jobs.take_up(job, "older code")
        for part in ("start", "heads"):
            atlas.jobs.keep_part(job, part, ["{}"], "older code")
        worker(atlas, tmp_path / "cache").work(once=True)
        kinds = [json.loads(event).get("kind") for event in atlas.jobs.results(job)]
        assert atlas.jobs.get(job).status == "finished"
        assert None not in kinds
        assert {"start", "heads"} <= set(kinds)
        assert not atlas.jobs.keep_part(job, "late", ["{}"], "older code"), "whose job it no longer is"


def test_other_weights_than_the_run_measured_are_refused(
    own: Path, tiny_atlas: TinyAtlas, tiny_files: Callable[[str], ModelFiles], tmp_path: Path
) -> None:
    """The folder holds the weights of another training now."""
    folder = shutil.copytree(tiny_files("llama").folder, tmp_path / "model")
    with closing(sqlite3.connect(own)) as database:
        database.execute("UPDATE models SET source = ?", (str(folder),))
        database.commit()
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor * 1.1 for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    request = {"source": "synthetic", "sequences": 3, "span": 8, "parts": ["heads"], "run": tiny_atlas.run}
    with Atlas.open(own) as atlas:
        job = atlas.jobs.add("induction", tiny_atlas.slug, tiny_atlas.run, request).id
        worker(atlas, tmp_path / "cache").work(once=True)
        assert atlas.jobs.get(job).status == "failed"
        assert "not those that run" in (atlas.jobs.get(job).message or "")


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({}, {}, 201),
        ({"host": "0.0.0.0"}, {}, 403),
        ({"host": "0.0.0.0", "api_key": ""}, {"X-API-Key": ""}, 403),
        ({"host": "0.0.0.0", "api_key": "s3cret"}, {}, 403),
        ({"host": "0.0.0.0", "api_key": "s3cret"}, {"X-API-Key": "wrong"}, 403),
        ({"host": "0.0.0.0", "api_key": "s3cret"}, {"X-API-Key": "s3cret"}, 201),
        ({"api_key": "s3cret"}, {}, 403),
    ],
)
def test_writing_needs_the_key(
    settings: dict[str, Any], headers: dict[str, str], status: int, own: Path, tiny_atlas: TinyAtlas, tmp_path: Path
) -> None:
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(own), **settings), engine=engine)) as client:
        body = {"model": tiny_atlas.slug, "induction": {"source": "random", "span": 4}}
        answer = client.post("/api/v1/jobs", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert client.get("/api/v1/jobs").status_code == 200, "reading is free"
    engine.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nobody", "induction": {}}, 404),
        ({"model": "llama", "induction": {"sequences": 2_001}}, 422),
        ({"model": "llama", "induction": {"neurons": ["1.3", "x"]}}, 422),
        ({"model": "llama", "induction": {"run": 99}}, 404),
        ({"model": "llama", "kind": "theft", "induction": {}}, 422),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_waits(body: dict[str, Any], status: int, client: TestClient) -> None:
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert client.get("/api/v1/jobs").json()["jobs"] == []
