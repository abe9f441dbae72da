"""Trainings over HTTP: what the weights say at each step, lines of neurons, and the way to a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.atlas.store import Atlas
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1/training"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


@pytest.fixture(scope="module")
def detail(http: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{V1}/trained").json()
    return found


def test_trainings_are_listed_with_their_extent(http: TestClient, tiny_atlas: TinyAtlas) -> None:
    (found,) = http.get(V1).json()["trainings"]
    assert (found["id"], found["name"], found["steps"]) == ("trained", "trained", 3)
    assert (found["first"], found["last"], found["n_neurons"]) == (0, 2000, tiny_atlas.neurons)
    assert (found["null_dim"], found["reachable_null_dim"]) == (3, 3), "an RMSNorm lets all directions be written"
    assert "/" not in found["name"], "no path of the machine"


def test_a_step_says_what_its_neurons_are_held_against(detail: dict[str, Any], tiny_atlas: TinyAtlas) -> None:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        steps = atlas.training.get("trained")
    assert [step["step"] for step in detail["steps"]] == [0, 10, 2000]
    for found, step in zip(detail["steps"], steps, strict=True):
        rho = step.columns["null_fraction"]
        spread = found["spreads"]["null_fraction"]
        assert spread["highest"] == pytest.approx(rho.max())
        assert spread["highest_neuron"] == f"{step.layer}.{int(rho.argmax())}"
        assert spread["q95"] == pytest.approx(float(np.quantile(rho, 0.95)))
        assert found["above_line"] == int((rho > step.chance["null_fraction"]).sum())
        assert found["singular_tail"] == pytest.approx(step.singular_values[-len(found["singular_tail"]) :].tolist())
        assert len(found["singular_tail"]) == 3 + 8
        assert set(found["by_weights"]) == {"entropy", "prediction"}


def test_a_step_leads_to_the_finished_run_of_its_weights(detail: dict[str, Any], tiny_atlas: TinyAtlas) -> None:
    runs = [step["run"] for step in detail["steps"]]
    assert runs[:2] == [None, None]
    assert (runs[2]["model"], runs[2]["run"]) == (tiny_atlas.slug, tiny_atlas.run)
    assert sum(runs[2]["counts"].values()) == tiny_atlas.neurons


@pytest.mark.parametrize(("extreme", "sign"), [("highest", -1), ("lowest", 1)])
def test_lines_are_of_the_most_extreme_at_the_last_step(
    extreme: str, sign: int, http: TestClient, tiny_atlas: TinyAtlas
) -> None:
    asked: dict[str, str | int] = {"metric": "weight_norm", "most": 3, "extreme": extreme}
    found = http.get(f"{V1}/trained/neurons", params=asked).json()
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        steps = atlas.training.get("trained")
    order = np.argsort(sign * steps[-1].columns["weight_norm"], kind="stable")[:3]
    assert [line["neuron"] for line in found["lines"]] == [f"{tiny_atlas.layer}.{index}" for index in order]
    for line, index in zip(found["lines"], order, strict=True):
        assert line["values"] == pytest.approx([step.columns["weight_norm"][index] for step in steps])
        assert line["errors"] == [None] * 3


def test_effects_are_those_of_runs_with_their_errors(http: TestClient, tiny_atlas: TinyAtlas) -> None:
    name = f"{tiny_atlas.layer}.7"
    found = http.get(f"{V1}/trained/neurons", params={"metric": "total_effect", "neuron": [name, name]}).json()
    neuron = http.get(f"/api/v1/runs/{tiny_atlas.run}/neurons/{name}").json()["row"]["metrics"]
    (line,) = found["lines"]
    assert line["values"] == [None, None, pytest.approx(neuron["total_effect"])]
    assert line["errors"][2] is not None
    assert line["errors"][:2] == [None, None]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/none", 404, "no training 'none'"),
        ("/none/neurons", 404, "no training 'none'"),
        ("/trained/neurons?metric=charm", 422, "'charm' is not a metric"),
        ("/trained/neurons?neuron=0.1", 404, "has no neuron 0.1: its neurons are 1.0 to 1.43"),
        ("/trained/neurons?neuron=1.44", 404, "has no neuron 1.44"),
        ("/trained/neurons?neuron=many", 422, "neuron"),
        ("/trained/neurons?most=21", 422, "most"),
    ],
)
def test_what_is_not_there_is_said(path: str, status: int, words: str, http: TestClient) -> None:
    answer = http.get(V1 + path)
    assert answer.status_code == status
    assert words in answer.text


def test_without_an_atlas_there_are_none(tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(tmp_path / "none.db")), engine=engine)) as http:
        assert http.get(V1).json() == {"trainings": []}
