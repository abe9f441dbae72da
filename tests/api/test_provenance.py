"""Every answer about a run leads to what was measured."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.schemas import RunSummary
from tests.conftest import TinyAtlas

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


def _answers_about_a_run(service: FastAPI, atlas: TinyAtlas) -> list[str]:
    """Every address under a run that can be read, and the one in Neuronpedia's shape."""
    given = {
        "run": atlas.run,
        "neuron": f"{atlas.layer}.3",
        "modelId": atlas.slug,
        "layer": atlas.layer,
        "index": 3,
    }
    paths = [
        path
        for path, operations in service.openapi()["paths"].items()
        if "get" in operations and ("/runs/{run}" in path or path.startswith("/api/feature/"))
    ]
    filled = [path.format(**given, format="{format}") for path in paths]
    needed = {"columns": "?name=total_effect", "tokens": "?query=lamp", "promoters": "?token_id=5"}
    filled = [path + needed.get(path.rsplit("/", 1)[-1], "") for path in filled]
    formats = ("csv", "parquet", "json")
    return [path.format(format=format) for path in filled for format in (formats if "{" in path else ("",))]


def test_every_answer_about_a_run_leads_to_its_card(
    http: TestClient, tiny_service: FastAPI, tiny_atlas: TinyAtlas
) -> None:
    asked = _answers_about_a_run(tiny_service, tiny_atlas)
    assert len(asked) > 12, "else the walk has lost its way"
    for address in asked:
        response = http.get(address)
        assert response.status_code == 200, address
        leads = re.fullmatch(r'<(.*)>; rel="describedby"; type="application/json"', response.headers.get("link", ""))
        assert leads, address
        run = RunSummary.model_validate(http.get(leads.group(1)).json())
        assert run.id == tiny_atlas.run
        assert run.card is not None
        assert str(tiny_atlas.path.parent).encode() not in response.content, f"{address} tells a private folder"


def test_a_runs_answer_and_a_models_list_of_runs_have_the_card(http: TestClient, tiny_atlas: TinyAtlas) -> None:
    one = http.get(f"{V1}/runs/{tiny_atlas.run}").json()
    listed = http.get(f"{V1}/models/{tiny_atlas.slug}/runs").json()["runs"]
    assert listed == [one]
    assert one["card"]["checkpoint"]["described"] == "llama, a folder, float32"
