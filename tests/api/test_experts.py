"""A whole run of a mixture of experts, and what the service answers of it: the tiny Qwen 2 MoE, which has a shared
expert, beside the original model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from backend.atlas.store import Atlas
from backend.core.models.analysis_model import AnalysisModel
from backend.core.models.sources import ModelFiles
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from precompute import pipeline
from precompute.config import RunConfig
from precompute.corpus import open_corpus, pack
from precompute.progress import Silent
from tests.reference.brute_force import Reference
from tests.reference.tiny_models import D_EXPERT, D_MLP, FAMILIES

V1, FAMILY = "/api/v1", "qwen2-moe"


@dataclass(frozen=True)
class Measured:
    http: TestClient
    run: int
    slug: str
    tokens: torch.Tensor
    """The run's sample, [sequences, length]."""


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_files: Callable[[str], ModelFiles],
    tiny_model: Callable[[str], AnalysisModel],
) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("experts")
    (folder / "text.txt").write_text("".join(f"Lamp {n} hangs by hook {n % 5} and is lit.\n" for n in range(40)))
    plan = RunConfig(str(tiny_files(FAMILY).folder), str(folder / "text.txt"), sequences=6, seq_len=24)
    with Atlas.open(folder / "a.db") as atlas:
        run = pipeline.run(plan, atlas, folder, folder / "work", Silent(), "cpu")
        slug = atlas.runs.get(run).model
    model = tiny_model(FAMILY)
    tokens = pack(open_corpus(plan.dataset, folder, print), model, 6, 24, 0, model.bos)
    engine = LiveEngine(folder / "cache", device="cpu")
    with TestClient(create_service(Settings(atlas=str(folder / "a.db")), engine=engine)) as client:
        yield Measured(client, run, slug, torch.from_numpy(tokens))
    engine.close()


def _get(measured: Measured, path: str) -> Any:
    answer = measured.http.get(f"{V1}/runs/{measured.run}{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def _routed(reference: Reference, tokens: torch.Tensor) -> np.ndarray[Any, Any]:
    """Which positions of the sample the original router sends to each expert, [positions, experts]."""
    mixture: Any = reference.mlp_out
    seen: list[torch.Tensor] = []
    handle = mixture.gate.register_forward_hook(lambda _, __, output: seen.append(output[2]))
    with torch.no_grad():
        reference.model(tokens)
    handle.remove()
    count: int = FAMILIES[FAMILY].experts
    return torch.nn.functional.one_hot(seen[0], count).sum(dim=1).bool().numpy()


def test_how_often_each_expert_is_chosen_is_what_the_original_router_says(
    measured: Measured, tiny_files: Callable[[str], ModelFiles]
) -> None:
    reference = Reference(str(tiny_files(FAMILY).folder), FAMILIES[FAMILY])
    expected = _routed(reference, measured.tokens).mean(axis=0)
    columns = _get(measured, "/columns?name=routed_share&name=routed_share_se&name=mean_activation")
    share = np.array(columns["columns"]["routed_share"])
    routed = len(expected) * D_EXPERT
    np.testing.assert_allclose(share[:routed], np.repeat(expected, D_EXPERT))
    assert (share[routed:] == 1).all()
    assert 0 < expected.min() < expected.max() < 1
    assert np.isfinite(columns["columns"]["routed_share_se"]).all()
    means = torch.cat([reference.activations(tokens) for tokens in measured.tokens]).mean(dim=0)
    np.testing.assert_allclose(columns["columns"]["mean_activation"], means.numpy(), atol=1e-5)


def test_neurons_are_named_by_layer_expert_and_index(measured: Measured) -> None:
    columns = _get(measured, "/columns?name=weight_norm")
    names = [f"1.{expert}.{place}" for expert in (0, 1, 2, "shared") for place in range(D_EXPERT)]
    assert columns["neuron"] == names
    assert len(names) == D_MLP
    detail = _get(measured, "/neurons/1.2.10")
    assert (detail["row"]["neuron"], detail["row"]["index"], detail["row"]["expert"]) == ("1.2.10", 32, 2)
    assert (detail["previous"], detail["next"]) == ("1.2.9", "1.shared.0")
    assert detail["run"]["experts"] == {"count": 3, "width": D_EXPERT, "shared": D_EXPERT}
    assert _get(measured, "/neurons/1.shared.0")["row"]["expert"] is None
    similar = _get(measured, "/neurons/1.shared.3/similar")
    assert {one["neuron"] for one in similar["by_weights"]} <= set(names)
    exported = measured.http.get(f"{V1}/runs/{measured.run}/export.csv").text.splitlines()
    assert [line.split(",")[0].strip('"') for line in exported if not line.startswith("#")][1:] == names
    (model,) = measured.http.get(f"{V1}/models").json()["models"]
    assert model["experts"] == detail["run"]["experts"]
    feature = measured.http.get(f"/api/feature/{measured.slug}/1/32").json()
    assert feature["index"] == "32"


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("1.30", 422, "write layer.expert.index"),
        ("1.3.0", 404, "no expert 3: its experts are 0 to 2, and shared"),
        ("1.2.11", 404, "Expert 2 has no neuron 11"),
        ("0.2.3", 404, "neurons 1.0.0 to 1.shared.10"),
    ],
)
def test_a_name_that_no_neuron_has_says_which_there_are(name: str, status: int, words: str, measured: Measured) -> None:
    answer = measured.http.get(f"{V1}/runs/{measured.run}/neurons/{name}")
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_contexts_peak_where_the_expert_is_chosen(measured: Measured, tiny_files: Callable[[str], ModelFiles]) -> None:
    reference = Reference(str(tiny_files(FAMILY).folder), FAMILIES[FAMILY])
    routed = _routed(reference, measured.tokens).reshape(*measured.tokens.shape, -1)
    rows = [row.tolist() for row in measured.tokens]
    seen = 0
    for expert in range(FAMILIES[FAMILY].experts):
        found = _get(measured, f"/neurons/1.{expert}.4/contexts")
        assert found["expert"] == expert
        for context in found["contexts"]:
            there = routed[rows.index(context["token_ids"]), :, expert]
            assert there[context["peak_position"]]
            assert [value != 0 for value in context["activations"]] == there.tolist()
            seen += int(not there.all())
    assert seen, "contexts in which some tokens do not pass the expert"
    assert _get(measured, "/neurons/1.shared.4/contexts")["expert"] is None


def test_the_text_lab_reads_and_intervenes_by_these_names(
    measured: Measured, tiny_files: Callable[[str], ModelFiles]
) -> None:
    reference = Reference(str(tiny_files(FAMILY).folder), FAMILIES[FAMILY])
    http = measured.http
    text = http.post(f"{V1}/models/{measured.slug}/texts", json={"text": "The lamp is lit."}).json()
    tokens = torch.tensor(text["token_ids"])
    at = f"{V1}/texts/{text['id']}"
    names = {"1.2.3": 25, "1.shared.5": 38}
    strips = http.post(f"{at}/activations", json={"neurons": list(names)}).json()["strips"]
    expected = reference.activations(tokens)
    for strip, index in zip(strips, names.values(), strict=True):
        np.testing.assert_allclose(strip["activations"], expected[:, index].numpy(), atol=1e-5)
    asked = [{"neuron": "0.1.2", "kind": "value", "value": 2.0}, {"neuron": "1.shared.5", "kind": "zero"}]
    ablation = http.post(f"{at}/ablate", json={"interventions": asked}).json()
    edits = [
        (reference.neurons_of(0), slice(13, 14), torch.tensor([2.0])),
        (reference.neurons_of(1), slice(38, 39), torch.tensor([0.0])),
    ]
    outcome = reference.edited(tokens, edits, frozen=False)
    np.testing.assert_allclose(ablation["total"]["values"]["loss"][1:], outcome.loss.numpy(), atol=5e-5)
    swept = http.post(f"{at}/sweep", json={"limit": 5}).json()
    assert all(row["neuron"].count(".") == 2 for row in swept["rows"])
    refused = http.post(f"{at}/ablate", json={"interventions": [{"neuron": "1.5"}]})
    assert refused.status_code == 422
    assert "write layer.expert.index" in refused.json()["detail"]
    found = http.get(f"{V1}/runs/{measured.run}/promoters?token_id=40").json()
    assert all(one["neuron"].count(".") == 2 for one in found["promote"])


def test_the_induction_lab_measures_neurons_by_these_names(measured: Measured) -> None:
    asked = {
        "source": "random",
        "span": 8,
        "sequences": 2,
        "neurons": ["1.2.3", "1.shared.5"],
        "parts": ["clip", "change"],
    }
    stream = measured.http.post(f"{V1}/models/{measured.slug}/induction", json=asked).text
    assert '"neuron":"1.2.3"' in stream
    assert '"neuron":"1.shared.5"' in stream
    assert f'"experts":{{"count":3,"width":{D_EXPERT},"shared":{D_EXPERT}}}' in stream
    assert '"kind":"problem"' not in stream
