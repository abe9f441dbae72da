"""What the service tells of a neuron beyond its metrics: Neuronpedia's shape, neighbours, contexts without it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.atlas.store import Atlas
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from precompute import config, contexts, pipeline
from precompute.config import RunConfig
from precompute.corpus import open_corpus, pack
from precompute.progress import Silent
from tests.conftest import TinyAtlas
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import FAMILIES

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


@pytest.fixture
def older(tiny_atlas: TinyAtlas, tmp_path: Path) -> Iterator[TestClient]:
    """The run as it stands in an atlas that was made before neighbours and logit histograms were kept."""
    path = tmp_path / "older.db"
    shutil.copy(tiny_atlas.path, path)
    with sqlite3.connect(path) as database:
        for name in ("similar_ids", "similar_values", "logit_edges", "logit_counts"):
            database.execute(f"ALTER TABLE directions DROP COLUMN {name}")
        for table in ("job_results", "job_events", "jobs", "unigrams", "training_steps"):
            database.execute(f"DROP TABLE {table}")
        database.execute("DROP INDEX ix_runs_weights_hash")
        database.execute("ALTER TABLE sampled_positions DROP COLUMN kl_before")
        for name in ("direct_effect_freq", "freq_mediated", "delta_kl", "abs_delta_kl"):
            database.execute(f"ALTER TABLE neurons DROP COLUMN {name}")
            database.execute(f"ALTER TABLE neurons DROP COLUMN {name}_se")
        for name in ("freq_alignment", "fraction_positive_se", "paper_criterion"):
            database.execute(f"ALTER TABLE neurons DROP COLUMN {name}")
        for name in ("n_experts", "d_expert"):
            database.execute(f"ALTER TABLE models DROP COLUMN {name}")
        for name in ("card", "chance", "error_groups", "owner", "made_by"):
            database.execute(f"ALTER TABLE runs DROP COLUMN {name}")
        database.execute("UPDATE alembic_version SET version_num = '0001'")
    Atlas.open(path).close()
    with TestClient(create_service(Settings(atlas=str(path)), engine=LiveEngine(tmp_path))) as client:
        yield client


@pytest.fixture
def at(tiny_atlas: TinyAtlas) -> str:
    return f"{V1}/runs/{tiny_atlas.run}/neurons/{tiny_atlas.layer}.3"


def test_a_feature_has_neuronpedias_shape_and_the_runs_numbers(
    http: TestClient, tiny_atlas: TinyAtlas, tiny_model: Callable[[str], AnalysisModel], at: str
) -> None:
    feature = http.get(f"/api/feature/{tiny_atlas.slug}/{tiny_atlas.layer}/3").json()
    assert (feature["modelId"], feature["layer"], feature["index"]) == (tiny_atlas.slug, str(tiny_atlas.layer), "3")
    metrics = http.get(at).json()["row"]["metrics"]
    assert feature["frac_nonzero"] == pytest.approx(metrics["fraction_positive"])
    assert feature["maxActApprox"] <= metrics["max_activation"] + 1e-6, "BOS does not count"
    logits = http.get(f"{at}/logits").json()
    assert feature["pos_str"] == [token["token"] for token in logits["top"]]
    assert feature["pos_values"] == sorted(feature["pos_values"], reverse=True)
    assert feature["neg_values"] == sorted(feature["neg_values"])
    assert sum(feature["freq_hist_data_bar_heights"]) == 12 * 32
    assert len(feature["freq_hist_data_bar_values"]) == len(feature["freq_hist_data_bar_heights"])
    readout = tiny_model("llama").readout
    row = readout.direct_logits(torch.tensor([3]))[0]
    assert sum(feature["logits_hist_data_bar_heights"]) == len(row)
    mean = np.average(feature["logits_hist_data_bar_values"], weights=feature["logits_hist_data_bar_heights"])
    assert mean == pytest.approx(float(row.mean()), abs=float(row.max() - row.min()) / 50)
    assert feature["topkCosSimIndices"][0] == 3
    assert feature["topkCosSimValues"][0] == 1.0


def test_a_features_activations_are_the_contexts_loudest_first(
    http: TestClient, tiny_atlas: TinyAtlas, at: str
) -> None:
    feature = http.get(f"/api/feature/{tiny_atlas.slug}/{tiny_atlas.layer}/3").json()
    contexts = http.get(f"{at}/contexts").json()["contexts"]
    assert len(feature["activations"]) == len(contexts)
    first = feature["activations"][0]
    assert first["maxValue"] == feature["maxActApprox"]
    assert (first["binMin"], first["binContains"], first["binMax"]) == (-1, -1, feature["maxActApprox"])
    for one in feature["activations"]:
        assert len(one["tokens"]) == len(one["values"])
        assert one["values"][one["maxValueTokenIndex"]] == one["maxValue"]
        assert one["minValue"] <= one["maxValue"] <= feature["maxActApprox"], "BOS, which can be louder, does not count"
        assert one["lossValues"] == [], "no run keeps what a neuron contributes to the loss of its contexts"
        if one["binContains"] != -1:
            assert 0 < one["binContains"] <= 1
            assert one["binMin"] < one["binMax"]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("nobody/1/3", 404, "no model"),
        ("{slug}/0/3", 404, "No run of"),
        ("{slug}/9/3", 404, "does not exist"),
        ("{slug}/1/99999", 404, "does not exist"),
        ("{slug}/one/3", 422, "layer.index"),
        ("{slug}/1/-3", 422, "layer.index"),
    ],
)
def test_a_feature_that_is_not_there_gets_a_problem(
    path: str, status: int, words: str, http: TestClient, tiny_atlas: TinyAtlas
) -> None:
    response = http.get("/api/feature/" + path.replace("{slug}", tiny_atlas.slug))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]


def test_similar_neurons_are_those_with_the_highest_cosine_and_correlation(
    http: TestClient, tiny_atlas: TinyAtlas, tiny_model: Callable[[str], AnalysisModel], at: str
) -> None:
    found = http.get(f"{at}/similar").json()
    rows = tiny_model("llama").readout.W_out.double().numpy()
    cosines = rows @ rows[3] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[3])
    cosines[3] = -2
    order = np.argsort(-cosines)[:10]
    assert [one["neuron"] for one in found["by_weights"]] == [f"{tiny_atlas.layer}.{i}" for i in order]
    assert [one["weight_cosine"] for one in found["by_weights"]] == pytest.approx(cosines[order].tolist(), abs=1e-5)
    own, other = (
        http.get(f"{V1}/runs/{tiny_atlas.run}/neurons/{name}/effects").json()["activation"]
        for name in (f"{tiny_atlas.layer}.3", found["by_activations"][0]["neuron"])
    )
    best = found["by_activations"][0]["activation_correlation"]
    assert best == pytest.approx(np.corrcoef(own, other)[0, 1], abs=1e-6)
    assert best == max(one["activation_correlation"] for one in found["by_activations"] + found["by_weights"])
    assert found["positions"] == len(own)
    assert found["weights_missing"] is found["activations_missing"] is None


def test_a_run_made_before_neighbours_were_kept_says_so(older: TestClient, tiny_atlas: TinyAtlas, at: str) -> None:
    found = older.get(f"{at}/similar").json()
    assert found["by_weights"] is None
    assert "before neighbours" in found["weights_missing"]
    assert len(found["by_activations"]) == 10
    feature = older.get(f"/api/feature/{tiny_atlas.slug}/{tiny_atlas.layer}/3").json()
    assert feature["topkCosSimIndices"] == feature["logits_hist_data_bar_heights"] == []
    assert feature["pos_str"]


def test_clip_ablation_is_mean_ablation_above_the_mean_and_nothing_below(
    http: TestClient, tiny_atlas: TinyAtlas, at: str
) -> None:
    effects, mean = http.get(f"{at}/effects").json(), http.get(at).json()["row"]["metrics"]["mean_activation"]
    above = [activation > mean for activation in effects["activation"]]
    assert 0 < sum(above) < len(above)
    for is_above, clipped, plain in zip(above, effects["clip_delta_loss"], effects["delta_loss"], strict=True):
        assert clipped == (plain if is_above else 0)


@dataclass(frozen=True)
class Windows:
    """Runs of both layers whose sequences of 32 tokens were cut into contexts of 12, 12 and 8."""

    http: TestClient
    runs: dict[int, int]
    sequences: torch.Tensor


@pytest.fixture(scope="module")
def windows(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_files: Callable[[str], ModelFiles],
    tiny_model: Callable[[str], AnalysisModel],
) -> Iterator[Windows]:
    folder = tmp_path_factory.mktemp("windows")
    (folder / "text.txt").write_text("".join(f"Lamp {n} hangs by hook {n % 5} and is lit.\n" for n in range(40)))
    plan = RunConfig(str(tiny_files("llama").folder), str(folder / "text.txt"), sequences=5, seq_len=32)
    with pytest.MonkeyPatch.context() as patch, Atlas.open(folder / "a.db") as atlas:
        patch.setattr(config, "WINDOW", 12)
        patch.setattr(contexts, "WINDOW", 12)
        runs = {
            layer: pipeline.run(replace(plan, layer=layer), atlas, folder, folder / "work", Silent(), "cpu")
            for layer in (0, 1)
        }
    tokens = pack(open_corpus(plan.dataset, folder, print), tiny_model("llama"), 5, 32, 0, tiny_model("llama").bos)
    engine = LiveEngine(folder / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(folder / "a.db")), engine=engine)) as client:
        yield Windows(client, runs, torch.from_numpy(tokens))
    engine.close()


@pytest.mark.parametrize(("layer", "kind"), [(1, "mean"), (1, "clip"), (1, "zero"), (0, "mean"), (0, "clip")])
def test_a_context_without_the_neuron_is_what_the_original_model_says(
    layer: int, kind: str, windows: Windows, tiny_files: Callable[[str], ModelFiles]
) -> None:
    """The whole sequence counts, not the window alone: what came before it reaches its tokens."""
    reference = Reference(str(tiny_files("llama").folder), FAMILIES["llama"])
    module, column = reference.neurons_of(layer), slice(3, 4)
    at = f"{V1}/runs/{windows.runs[layer]}/neurons/{layer}.3"
    mean = windows.http.get(at).json()["row"]["metrics"]["mean_activation"]
    shown = windows.http.get(f"{at}/contexts").json()["contexts"]
    places = set()
    for context in shown:
        found = windows.http.post(f"{at}/contexts/{context['id']}/ablate", json={"kind": kind}).json()
        number, place = divmod(context["id"] - _first_context(windows, layer), 3)
        row, own = windows.sequences[number], slice(12 * place, 12 * place + len(context["tokens"]))
        assert row[own].tolist() == context["token_ids"]
        activations = reference.inputs_of(module, row)[:, column]
        target = {"mean": torch.full_like(activations, mean), "zero": torch.zeros_like(activations)}
        edits = [(module, column, target.get(kind, activations.clamp(max=mean)))]
        for frozen, name in ((False, "loss_after"), (True, "loss_frozen")):
            wanted = [None, *reference.edited(row, edits, frozen=frozen).loss.tolist()][own]
            assert found[name] == [None if loss is None else pytest.approx(loss, abs=2e-4) for loss in wanted]
        measured = [None if loss is None else pytest.approx(loss, abs=1e-4) for loss in context["loss"]]
        assert found["loss_before"] == measured, "of predicting the token itself, over the border of windows too"
        assert [rank is None for rank in context["rank"]] == [loss is None for loss in context["loss"]]
        assert [place for place, loss in enumerate(context["loss"]) if loss is None] == ([] if own.start else [0])
        assert found["activations_before"] == pytest.approx(context["activations"], abs=1e-4)
        assert found["disagreement"] < 1e-4
        places.add(place)
    assert places == {0, 1, 2}


def _first_context(windows: Windows, layer: int) -> int:
    """The id of a run's first context: runs are stored one after the other, 15 contexts each."""
    return 1 + 15 * sorted(windows.runs.values()).index(windows.runs[layer])


def test_effects_of_clipping_token_by_token_are_not_guessed_for_an_earlier_layer(windows: Windows) -> None:
    at = f"{V1}/runs/{windows.runs[0]}/neurons/0.3"
    assert windows.http.get(f"{at}/effects").json()["clip_delta_loss"] is None


def test_a_feature_comes_from_the_newest_run_of_its_layer(windows: Windows) -> None:
    for layer in (0, 1):
        feature = windows.http.get(f"/api/feature/llama/{layer}/3").json()
        metrics = windows.http.get(f"{V1}/runs/{windows.runs[layer]}/neurons/{layer}.3").json()["row"]["metrics"]
        assert feature["layer"] == str(layer)
        assert feature["frac_nonzero"] == pytest.approx(metrics["fraction_positive"])


def test_a_context_of_another_neuron_or_run_is_not_ablated(http: TestClient, tiny_atlas: TinyAtlas, at: str) -> None:
    refused = http.post(f"{at}/contexts/999999/ablate", json={"kind": "mean"})
    assert refused.status_code == 404
    assert "no context 999999" in refused.json()["detail"]
    assert http.post(f"{at}/contexts/1/ablate", json={"kind": "explode"}).status_code == 422
