"""Two runs beside each other over the wire: numbers are those of their columns; what cannot be compared is said."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scipy import stats

from backend.client import AsyncClient, calls
from backend.glossary import METRICS
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import ComparedAtlas

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(compared_atlas: ComparedAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    engine = LiveEngine(tmp_path_factory.mktemp("cache"), device="cpu")
    with TestClient(create_service(Settings(atlas=str(compared_atlas.path)), engine=engine)) as client:
        yield client
    engine.close()


def compared(http: TestClient, a: int, b: int, **asked: Any) -> dict[str, Any]:
    answer = http.get(f"{V1}/compare", params={"a": a, "b": b} | asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def column(http: TestClient, run: int, name: str) -> np.ndarray:
    values = http.get(f"{V1}/runs/{run}/columns", params={"name": [name]}).json()["columns"][name]
    return np.array([np.nan if value is None else value for value in values])


def agreement(found: dict[str, Any], metric: str) -> dict[str, Any]:
    return next(one for one in found["metrics"] if one["metric"] == metric)


def test_two_seeds_agree_as_their_columns_do(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    a, b = compared_atlas.first, compared_atlas.second
    found = compared(http, a, b, limit=5)
    assert (found["corresponds"], found["related"], found["same_weights"], found["same_text"]) == (
        True, True, True, False,
    )  # fmt: skip
    assert [one["metric"] for one in found["metrics"]] == [metric.name for metric in METRICS]
    for metric in ("total_effect", "ln_mediated", "mean_activation", "max_activation"):
        x, y = column(http, a, metric), column(http, b, metric)
        there, one = np.isfinite(x) & np.isfinite(y), agreement(found, metric)
        assert one["pairs"] == there.sum()
        assert one["rank_correlation"] == pytest.approx(stats.spearmanr(x[there], y[there]).statistic)
        assert one["low"] <= one["rank_correlation"] <= one["high"]
        assert one["mean_difference"] == pytest.approx((y - x)[there].mean())
        assert one["median_b"] == pytest.approx(np.nanmedian(y))
        assert metric != "max_activation" or one["noise_ceiling"] is None
    assert 0.5 < agreement(found, "mean_activation")["noise_ceiling"] <= 1
    weights = agreement(found, "weight_norm")
    assert (weights["rank_correlation"], weights["mean_difference"], weights["larger_share"]) == (1, 0, 0.5)
    assert weights["mean_difference_error"] is None


def test_the_most_changed_neurons_are_those_with_the_largest_z(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    a, b = compared_atlas.first, compared_atlas.second
    changes = compared(http, a, b, limit=7)["changes"]
    x, y, x_se, y_se = (column(http, run, name) for name in ("total_effect", "total_effect_se") for run in (a, b))
    z = (y - x) / np.hypot(x_se, y_se)
    assert [int(row["neuron"].split(".")[1]) for row in changes["rows"]] == np.argsort(-np.abs(z))[:7].tolist()
    assert [row["z"] for row in changes["rows"]] == pytest.approx(z[np.argsort(-np.abs(z))[:7]].tolist())
    groups = min(http.get(f"{V1}/runs/{run}").json()["error_groups"] for run in (a, b))
    assert changes["line"] == pytest.approx(stats.t.isf((1 - 0.95 ** (1 / len(z))) / 2, groups - 1), rel=1e-5)
    assert changes["beyond"] == (np.abs(z) > changes["line"]).sum()
    by_size = compared(http, a, b, metric="max_activation")["changes"]
    assert (by_size["by"], by_size["line"], by_size["beyond"]) == ("difference", None, None)
    sizes = [abs(row["difference"]) for row in by_size["rows"]]
    assert sizes == sorted(sizes, reverse=True)


def test_classes_that_both_runs_have_are_counted_beside_chance(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    a, b = compared_atlas.first, compared_atlas.second
    found = compared(http, a, b)
    assert [one["name"] for one in found["classes"]] == ["entropy", "token_frequency", "prediction", "paper_criterion"]
    for run, where in ((a, "in_a"), (b, "in_b")):
        counts = http.get(f"{V1}/runs/{run}/classes").json()
        for one in found["classes"][:3]:
            assert one[where] == counts["counts"][one["name"]]
        assert found["classes"][3][where] == counts["paper_criterion"]
    for one in found["classes"]:
        assert len(one["both"]) == one["in_both"]
        assert len(one["only_a"]) == one["in_a"] - one["in_both"]
        assert len(one["only_b"]) == one["in_b"] - one["in_both"]


def test_a_run_beside_itself(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    found = compared(http, compared_atlas.first, compared_atlas.first)
    assert (found["same_weights"], found["same_text"], found["related"]) == (True, True, True)
    known = [one for one in found["metrics"] if one["rank_correlation"] is not None]
    assert len(known) > 15
    for one in known:
        assert (one["rank_correlation"], one["mean_difference"]) == (pytest.approx(1), 0)
        assert one["larger_share"] == pytest.approx(0.5)
        assert one["mean_difference_error"] is None, "nothing was drawn twice"
    assert all(row["difference"] == 0 for row in found["changes"]["rows"])


def test_of_models_whose_neurons_do_not_correspond_only_distributions_are_compared(
    http: TestClient, compared_atlas: ComparedAtlas
) -> None:
    found = compared(http, compared_atlas.first, compared_atlas.other)
    assert not found["corresponds"]
    assert "architectures (LlamaForCausalLM and GPT2LMHeadModel)" in found["reason"]
    assert (found["classes"], found["changes"], found["related"]) == ([], None, None)
    one = agreement(found, "total_effect")
    paired = ("rank_correlation", "low", "high", "noise_ceiling", "mean_difference", "mean_difference_error")
    assert (one["pairs"], *(one[name] for name in paired)) == (0, *[None] * 6)
    x, y = (column(http, run, "total_effect") for run in (compared_atlas.first, compared_atlas.other))
    u = stats.mannwhitneyu(y, x).statistic / (len(x) * len(y))
    assert one["larger_share"] == pytest.approx(u)


def test_what_cannot_be_compared_is_refused_in_words(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    refused: list[tuple[dict[str, int | str], int, str]] = [
        ({"a": compared_atlas.first, "b": 9999}, 404, "no run 9999"),
        ({"a": compared_atlas.begun, "b": compared_atlas.first}, 404, "has not measured its neurons yet"),
        ({"a": compared_atlas.first}, 422, "b in the address"),
        ({"a": 0, "b": 1}, 422, "a in the address"),
        ({"a": 1, "b": 1, "metric": "no_such"}, 422, "'no_such' is not a metric"),
        ({"a": 1, "b": 1, "metric": "total_effect_se"}, 422, "is not a metric"),
        ({"a": 1, "b": 1, "limit": 100_000}, 422, "limit in the address"),
    ]
    for asked, status, words in refused:
        answer = http.get(f"{V1}/compare", params=asked)
        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]


def test_both_runs_cards_are_there_and_led_to(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    a, b = compared_atlas.first, compared_atlas.second
    answer = http.get(f"{V1}/compare", params={"a": a, "b": b})
    assert answer.headers["Link"].count("describedby") == 2
    assert f"/api/v1/runs/{b}>" in answer.headers["Link"]
    assert [answer.json()[side]["run"]["id"] for side in "ab"] == [a, b]
    assert answer.json()["b"]["run"]["card"]["corpus"]["sample_sha256"]


@pytest.mark.anyio
async def test_the_client_asks_for_it(http: TestClient, compared_atlas: ComparedAtlas) -> None:
    client = AsyncClient(service=http.app)
    found = await client.send(calls.compare(compared_atlas.first, compared_atlas.second, metric="ln_mediated", limit=3))
    await client.close()
    assert found.changes is not None
    assert (found.changes.metric, len(found.changes.rows)) == ("ln_mediated", 3)
