"""By which rule a run's classes are cut, as the service tells it."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


def test_a_runs_classes_come_with_the_rule_that_cut_them(http: TestClient, tiny_atlas: TinyAtlas) -> None:
    run = f"{V1}/runs/{tiny_atlas.run}"
    found, summary = http.get(f"{run}/classes").json(), http.get(run).json()
    assert [rule["neuron_class"] for rule in found["rules"]] == ["entropy", "token_frequency", "prediction"]
    conditions = {(c["metric"], c["side"]): c for rule in found["rules"] for c in rule["conditions"]}
    chance = summary["chance"]
    assert conditions["null_fraction", "above"]["limit"] == chance["null_fraction"]
    assert conditions["freq_alignment", "beyond"]["limit"] == chance["freq_alignment"]
    assert chance["neurons"] == tiny_atlas.neurons == sum(found["counts"].values())
    assert conditions["ln_mediated", "above"]["errors"] >= 2
    assert found["effects_measured"]
    columns = http.get(f"{run}/columns", params={"name": ["weight_norm", "logit_var"]}).json()
    marked = [name for name, mark in zip(columns["neuron"], columns["paper_criterion"], strict=True) if mark]
    assert found["paper_criterion"] == len(marked)
    page = http.get(f"{run}/neurons", params={"paper_criterion": True, "limit": 1000}).json()
    assert {row["neuron"] for row in page["rows"]} == set(marked)
    rest = http.get(f"{run}/neurons", params={"paper_criterion": False, "limit": 1000}).json()
    assert rest["total"] + page["total"] == tiny_atlas.neurons


def test_neurons_that_fit_a_class_and_have_one_before_it_are_counted(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    path = tmp_path / "both.db"
    shutil.copy(tiny_atlas.path, path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE neurons SET neuron_class = 'plain', logit_var = 0")
        database.execute("UPDATE neurons SET neuron_class = 'prediction', logit_var = 1e6 WHERE \"index\" = 2")
        database.execute(
            "UPDATE neurons SET neuron_class = 'token_frequency', logit_var = 1e6 WHERE \"index\" IN (3, 5)"
        )
    with TestClient(
        create_service(Settings(atlas=str(path)), engine=LiveEngine(tmp_path / "cache", device="cpu"))
    ) as http:
        found = http.get(f"{V1}/runs/{tiny_atlas.run}/classes").json()
    assert (found["counts"]["token_frequency"], found["counts"]["prediction"]) == (2, 1)
    assert found["fit_but_before"]["prediction"] == 2


def test_a_run_of_before_keeps_its_classes_and_says_by_which_rule(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    shutil.copy(tiny_atlas.path, path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE runs SET chance = NULL, error_groups = NULL")
        database.execute('UPDATE neurons SET paper_criterion = NULL, neuron_class = "entropy" WHERE "index" = 3')
        database.execute("UPDATE neurons SET paper_criterion = NULL")
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(path)), engine=engine)) as http:
        run = f"{V1}/runs/{tiny_atlas.run}"
        found = http.get(f"{run}/classes").json()
        assert (found["rules"], found["paper_criterion"], found["counts"]["entropy"]) == ([], None, 1)
        assert http.get(run).json()["chance"] is None
        neuron = http.get(f"{run}/neurons/{tiny_atlas.layer}.3").json()
        assert neuron["row"]["neuron_class"] == "entropy"
        assert "before there were chance lines" in neuron["class_reason"]
    engine.close()


@pytest.mark.parametrize("damage", ['{"neurons": "many"}', '{"null_fraction": 0.3}'])
def test_chance_lines_that_are_none_are_named(damage: str, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    shutil.copy(tiny_atlas.path, path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE runs SET chance = ?", (damage,))
    engine = LiveEngine(tmp_path / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(path)), engine=engine)) as http:
        answer = http.get(f"{V1}/runs/{tiny_atlas.run}/classes")
        assert answer.status_code == 503
        assert "What chance reaches in run" in answer.json()["detail"]
    engine.close()
