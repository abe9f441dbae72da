"""Token frequencies over the wire: a run's positions, its P_freq, and a live text's distance from it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.atlas.store import Atlas
from backend.client import AsyncClient, calls
from backend.core.models.sources import ModelFiles
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import FAMILIES

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


@pytest.fixture
def p_freq(tiny_atlas: TinyAtlas) -> np.ndarray:
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        found = atlas.runs.unigram(tiny_atlas.run)
    assert found is not None
    p = found.astype(np.float64)
    normalised: np.ndarray = p / p.sum()
    return normalised


@pytest.fixture
def without(tiny_atlas: TinyAtlas, tmp_path: Path) -> Callable[..., TestClient]:
    """A copy of the atlas after statements that take things out of it."""

    def changed(*statements: str) -> TestClient:
        path = tmp_path / "less.db"
        shutil.copy(tiny_atlas.path, path)
        with sqlite3.connect(path) as database:
            for statement in statements:
                database.execute(statement)
        return TestClient(create_service(Settings(atlas=str(path)), engine=LiveEngine(tmp_path, device="cpu")))

    return changed


@pytest.mark.anyio
async def test_positions_have_entropy_and_distance_and_their_correlation(
    tiny_service: FastAPI, tiny_atlas: TinyAtlas, p_freq: np.ndarray, tiny_files: Callable[[str], ModelFiles]
) -> None:
    client = AsyncClient(service=tiny_service)
    found = await client.send(calls.positions(tiny_atlas.run))
    assert found.kl is not None
    assert len(found.tokens) == len(found.entropy) == len(found.kl) == len(found.rank) > 100
    assert found.correlation == pytest.approx(np.corrcoef(found.entropy, found.kl)[0, 1])
    order = [np.argsort(np.argsort(values)) for values in (found.entropy, found.kl)]
    assert found.rank_correlation == pytest.approx(np.corrcoef(order[0], order[1])[0, 1], abs=1e-3)
    run = await client.send(calls.frequencies(tiny_atlas.run, limit=5))
    assert run.source is not None
    assert "mean prediction" in run.source
    assert "1e-09" in run.source
    assert run.entropy == pytest.approx(-(p_freq * np.log(p_freq)).sum(), abs=1e-6)
    assert run.most is not None
    assert run.least is not None
    assert [share.token_id for share in run.most] == np.argsort(-p_freq)[:5].tolist()
    assert [share.token_id for share in run.least] == np.argsort(p_freq)[:5].tolist()
    assert run.most[0].probability == pytest.approx(p_freq.max())
    assert run.vocabulary == len(p_freq)


def test_a_run_without_distances_says_so(without: Callable[..., TestClient], tiny_atlas: TinyAtlas) -> None:
    http = without(
        "UPDATE sampled_positions SET kl_before = NULL",
        "DELETE FROM unigrams",
        "UPDATE runs SET config = json_remove(config, '$.frequency_source')",
    )
    positions = http.get(f"{V1}/runs/{tiny_atlas.run}/positions").json()
    assert positions["kl"] is positions["correlation"] is positions["rank_correlation"] is None
    assert len(positions["entropy"]) > 100
    frequencies = http.get(f"{V1}/runs/{tiny_atlas.run}/frequencies").json()
    assert frequencies["source"] is frequencies["most"] is None
    assert "before token frequencies were measured" in frequencies["missing"]


def test_a_run_that_measured_them_but_did_not_keep_them_says_so(
    without: Callable[..., TestClient], tiny_atlas: TinyAtlas
) -> None:
    http = without("DELETE FROM unigrams")
    frequencies = http.get(f"{V1}/runs/{tiny_atlas.run}/frequencies").json()
    assert "mean prediction" in frequencies["source"]
    assert "before its token frequencies were kept" in frequencies["missing"]
    assert http.get(f"{V1}/runs/{tiny_atlas.run}/positions").json()["kl"]
    trace = http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is lit."}).json()
    assert trace["values"]["kl"] is trace["frequencies"] is trace["totals"]["mean_kl"] is None
    body = {"interventions": [{"neuron": f"{tiny_atlas.layer}.3"}]}
    answer = http.post(f"{V1}/texts/{trace['id']}/ablate", json=body).json()
    assert answer["before"]["kl"] is answer["total"]["values"]["kl"] is answer["frequencies"] is None


def test_a_run_that_is_not_there_or_keeps_no_tokens_is_a_problem(
    http: TestClient, without: Callable[..., TestClient], tiny_atlas: TinyAtlas
) -> None:
    for what in ("positions", "frequencies"):
        assert http.get(f"{V1}/runs/999/{what}").status_code == 404
    for limit in (0, 101):
        assert http.get(f"{V1}/runs/{tiny_atlas.run}/frequencies", params={"limit": limit}).status_code == 422
    survey = without("UPDATE runs SET config = json_set(config, '$.mode', 'survey')")
    answer = survey.get(f"{V1}/runs/{tiny_atlas.run}/positions")
    assert answer.status_code == 404
    assert "is a survey" in answer.json()["detail"]


def _expected(
    files: ModelFiles, tokens: list[int], p: np.ndarray, values: dict[int, float], *, frozen: bool
) -> torch.Tensor:
    """D at every position, from the original model, with last-layer neurons set to values."""
    reference = Reference(str(files.folder), FAMILIES["llama"])
    edits = [(reference.mlp_out, slice(i, i + 1), torch.tensor([value])) for i, value in values.items()]
    log_p = reference.edited_logits(torch.tensor(tokens), edits, frozen=frozen).double().log_softmax(-1)
    weights = torch.from_numpy(p)
    return (weights * (weights.log() - log_p)).sum(-1)


def test_a_text_tells_its_distance_before_and_after(
    http: TestClient, tiny_atlas: TinyAtlas, p_freq: np.ndarray, tiny_files: Callable[[str], ModelFiles]
) -> None:
    trace = http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is lit. The lamp is"}).json()
    assert f"run {tiny_atlas.run}" in trace["frequencies"]
    tokens, files = trace["token_ids"], tiny_files("llama")
    before = _expected(files, tokens, p_freq, {}, frozen=False)
    np.testing.assert_allclose(trace["values"]["kl"], before, atol=3e-5)
    assert http.get(f"{V1}/texts/{trace['id']}").json() == trace
    body: dict[str, Any] = {"interventions": [{"neuron": f"{tiny_atlas.layer}.3", "kind": "value", "value": 9.0}]}
    for run in (None, tiny_atlas.run):
        answer = http.post(f"{V1}/texts/{trace['id']}/ablate", json=body | {"run": run}).json()
        assert answer["frequencies"] == trace["frequencies"]
        assert answer["before"]["kl"] == trace["values"]["kl"]
        for part, frozen in (("total", False), ("frozen", True)):
            expected = _expected(files, tokens, p_freq, {3: 9.0}, frozen=frozen)
            np.testing.assert_allclose(answer[part]["values"]["kl"], expected, atol=3e-5)
            mean = np.mean(expected.numpy()[1:-1])  # BOS counts for nothing, and nothing follows the last
            assert answer[part]["totals"]["mean_kl"] == pytest.approx(mean, abs=3e-5)
    assert answer["before_totals"]["mean_kl"] == pytest.approx(np.mean(before.numpy()[1:-1]), abs=3e-5)
    assert abs(answer["total"]["totals"]["mean_kl"] - answer["before_totals"]["mean_kl"]) > 1e-3


def test_effects_have_the_background_of_figure_3c(
    http: TestClient, without: Callable[..., TestClient], tiny_atlas: TinyAtlas
) -> None:
    effects = http.get(f"{V1}/runs/{tiny_atlas.run}/neurons/{tiny_atlas.layer}.3/effects").json()
    assert len(effects["background_freq"]) == len(effects["background_total"]) > 100
    assert min(effects["background_freq"]) >= 0
    assert effects["background_freq"] != effects["background_total"]
