"""The API over a real run of a tiny model."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backend.client import ApiError, AsyncClient, calls
from backend.glossary import METRIC_COLUMNS
from backend.live.engine import LiveEngine
from backend.schemas import AblateRequest, InterventionRequest, SweepRequest
from backend.service import announce, create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

V1 = "/api/v1"


@pytest.fixture(scope="module")
def http(tiny_service: FastAPI) -> Iterator[TestClient]:
    with TestClient(tiny_service) as client:
        yield client


@pytest.fixture
def text(http: TestClient, tiny_atlas: TinyAtlas) -> dict[str, Any]:
    answered = http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is lit. The lamp is"})
    trace: dict[str, Any] = answered.json()
    return trace


@pytest.mark.anyio
async def test_the_client_reads_every_answer(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    client, run, name = AsyncClient(service=tiny_service), tiny_atlas.run, f"{tiny_atlas.layer}.3"
    models = (await client.send(calls.models())).models
    assert (models[0].id, models[0].latest_run) == (tiny_atlas.slug, run)
    assert (await client.send(calls.runs(tiny_atlas.slug))).runs[0].status == "finished"
    assert (await client.send(calls.health())).status == "ok"
    assert {m.name for m in (await client.send(calls.glossary())).metrics} >= {"total_effect", "null_fraction"}
    page = await client.send(calls.neurons(run, sort="-total_effect", limit=5, columns=["total_effect"]))
    effects = [row.metrics["total_effect"] for row in page.rows]
    assert effects == sorted((effect for effect in effects if effect is not None), reverse=True)
    assert page.total == tiny_atlas.neurons
    everything = await client.send(calls.columns(run, list(METRIC_COLUMNS)))
    assert list(everything.columns) == list(METRIC_COLUMNS), "all that is measured is one answer"
    columns = await client.send(calls.columns(run, ["total_effect", "ln_mediated"]))
    assert len(columns.neuron) == len(columns.columns["ln_mediated"]) == tiny_atlas.neurons
    detail = await client.send(calls.neuron(run, name))
    assert detail.row.metrics["total_effect"] == columns.columns["total_effect"][3]
    effects = columns.columns["total_effect"]
    own = effects[3]
    assert own is not None
    below = sum(effect is not None and effect <= own for effect in effects)
    assert detail.percentiles["total_effect"] == pytest.approx(100 * below / tiny_atlas.neurons)
    assert (detail.previous, detail.next) == (f"{tiny_atlas.layer}.2", f"{tiny_atlas.layer}.4")
    histogram = await client.send(calls.histogram(run, name))
    assert sum(histogram.counts) == 12 * 32
    contexts = (await client.send(calls.contexts(run, name))).contexts
    assert all(len(c.tokens) == len(c.activations) == len(c.loss) == len(c.rank) for c in contexts)
    assert all(c.activations[c.peak_position] == pytest.approx(c.peak) for c in contexts)
    effects_of = await client.send(calls.effects(run, name))
    assert len(effects_of.delta_loss) == len(effects_of.targets)
    for column in (effects_of.kl_before, effects_of.delta_kl, effects_of.delta_loss_freq):
        assert len(column or []) == len(effects_of.targets)
    assert len(effects_of.background_total) == len(effects_of.background_frozen) > 100
    logits = await client.send(calls.logits(run, name))
    assert logits.top[0].value >= logits.top[-1].value >= logits.bottom[-1].value >= logits.bottom[0].value
    spectrum = await client.send(calls.spectrum(run, name))
    assert sum(c * c for c in spectrum.cosines or []) == pytest.approx(1, abs=5e-3)
    await client.close()


@pytest.mark.anyio
async def test_live_effects_agree_with_the_atlas_of_the_same_model(
    tiny_service: FastAPI, tiny_atlas: TinyAtlas
) -> None:
    client, name = AsyncClient(service=tiny_service), f"{tiny_atlas.layer}.5"
    trace = await client.send(calls.trace_text(tiny_atlas.slug, "The lamp is lit."))
    again = await client.send(calls.trace_text(tiny_atlas.slug, "The lamp is lit."))
    assert again.id == trace.id
    assert (await client.send(calls.text(trace.id))).tokens == trace.tokens
    ablation = await client.send(
        calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron=name)]))
    )
    mean = (await client.send(calls.neuron(tiny_atlas.run, name))).row.metrics["mean_activation"]
    assert ablation.activations_after[name] == pytest.approx([mean] * len(trace.tokens), rel=1e-5)
    assert f"run {tiny_atlas.run}" in ablation.reference
    strips = (await client.send(calls.activations(trace.id, [name]))).strips
    assert strips[0].activations == ablation.activations_before[name]
    assert strips[0].reference_mean == pytest.approx(mean)
    assert ablation.before == trace.values
    assert ablation.total.values.loss[0] is ablation.total.values.rank[0] is None, "nothing predicts the first token"
    assert None not in ablation.total.values.loss[1:]
    assert ablation.total.totals.mean_loss != ablation.before_totals.mean_loss
    counted = slice(2, None)  # BOS is predicted by nothing, and what it predicts does not count
    before = np.array(trace.values.loss[counted], dtype=float)
    states = (ablation.total, ablation.frozen)
    sizes = [np.abs(np.array(state.values.loss[counted]) - before).mean() for state in states]
    found = [state.mean_abs_delta_loss for state in states]
    assert found == pytest.approx(sizes, rel=1e-3)
    assert ablation.ln_mediated == pytest.approx(1 - sizes[1] / sizes[0], abs=2e-3)
    assert ablation.tokens == len(before)
    scale = await client.send(
        calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron=name, kind="scale", value=1)]))
    )
    assert scale.total.values.entropy == pytest.approx(trace.values.entropy, abs=1e-5)
    earlier = await client.send(calls.activations(trace.id, ["0.1"]))
    assert earlier.strips[0].reference_mean is None
    head = await client.send(
        calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron="L0H1", kind="zero")]))
    )
    assert "over this text" in head.reference
    assert head.activations_after["L0H1"] == [0.0] * len(trace.tokens)
    assert head.total.totals.mean_loss != head.before_totals.mean_loss
    bos = await client.send(
        calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron="L0H1", kind="bos")]))
    )
    (size,) = set(bos.activations_after["L0H1"])
    assert size == bos.activations_before["L0H1"][0], "what it wrote at the first token, everywhere"
    with pytest.raises(ApiError, match=r"0\.1 is a neuron: what can be done to it is mean, zero, clip, scale, value"):
        await client.send(
            calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron="0.1", kind="bos")]))
        )
    with pytest.raises(ApiError, match="does not exist"):
        await client.send(calls.activations(trace.id, ["7.1"]))
    await client.close()


@pytest.mark.anyio
async def test_a_sweep_ranks_what_single_ablations_do(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    client = AsyncClient(service=tiny_service)
    trace = await client.send(calls.trace_text(tiny_atlas.slug, "The lamp is lit."))
    position = 4
    swept = await client.send(calls.sweep(trace.id, SweepRequest(position=position, limit=5, run=tiny_atlas.run)))
    effects = [row.total_effect for row in swept.rows]
    assert len(effects) == 5
    assert effects == sorted((effect for effect in effects if effect is not None), reverse=True)
    for row in swept.rows[:2]:
        single = await client.send(
            calls.ablate(trace.id, AblateRequest(interventions=[InterventionRequest(neuron=row.neuron)]))
        )
        assert row.activation == pytest.approx(single.activations_before[row.neuron][position], abs=1e-6)
        changes = [
            getattr(single.total.values, name)[at] - getattr(trace.values, name)[at]
            for name, at in (("loss", position + 1), ("entropy", position))
        ]
        assert [row.delta_loss, row.delta_entropy] == pytest.approx(changes, abs=2e-5)
    whole = await client.send(calls.sweep(trace.id, SweepRequest(sort="abs_delta_entropy", limit=1000)))
    assert len(whole.rows) == tiny_atlas.neurons
    assert whole.positions == len(trace.tokens) - 2, "not BOS, not the last"
    last = await client.send(calls.sweep(trace.id, SweepRequest(position=len(trace.tokens) - 1, target="zero")))
    assert last.rows[0].total_effect is None
    assert last.reference == "zero"
    with pytest.raises(ApiError, match="no position 500"):
        await client.send(calls.sweep(trace.id, SweepRequest(position=500)))
    await client.close()


@pytest.mark.anyio
async def test_promoters_agree_with_the_neurons_own_tokens(tiny_service: FastAPI, tiny_atlas: TinyAtlas) -> None:
    client, run = AsyncClient(service=tiny_service), tiny_atlas.run
    own = (await client.send(calls.logits(run, f"{tiny_atlas.layer}.3"))).top[0]
    found = await client.send(calls.promoters(run, own.token_id, limit=1000))
    assert (found.token.token_id, found.token.token, found.layer) == (own.token_id, own.token, tiny_atlas.layer)
    pushes = {push.neuron: push.value for push in (*found.promote, *found.suppress)}
    assert len(pushes) == tiny_atlas.neurons
    assert pushes[f"{tiny_atlas.layer}.3"] == pytest.approx(own.value, rel=1e-4)
    up, down = ([push.value for push in part] for part in (found.promote, found.suppress))
    assert up == sorted(up, reverse=True)
    assert down == sorted(down)
    assert min(up) > 0 > max(down)
    assert len((await client.send(calls.promoters(run, own.token_id, limit=3))).promote) == 3
    matches = await client.send(calls.tokens(run, own.token, limit=5))
    assert own.token in [token.token for token in matches.tokens]
    assert len(matches.tokens) <= 5
    assert (await client.send(calls.tokens(run, "no token has this in it"))).total == 0
    await client.close()


PROBLEMS = [
    ("GET", "/runs/999", None, 404, "no run 999"),
    ("GET", "/runs/0", None, 422, "run in the address"),
    ("GET", "/runs/abc", None, 422, "run in the address"),
    ("GET", "/runs/{run}/neurons/99.5", None, 404, "measures layer"),
    ("GET", "/runs/{run}/neurons/{layer}.99999", None, 404, "does not exist"),
    ("GET", "/runs/{run}/neurons/abc", None, 422, "layer.index"),
    ("GET", "/runs/{run}/neurons?sort=colour", None, 422, "cannot be sorted"),
    ("GET", "/runs/{run}/neurons?where=x", None, 422, "cannot be read"),
    ("GET", "/runs/{run}/neurons?limit=0", None, 422, "limit"),
    ("GET", "/runs/{run}/neurons?cursor=%00", None, 422, "cursor"),
    ("GET", "/runs/{run}/columns", None, 422, "name"),
    ("GET", "/runs/{run}/columns?name=nothing", None, 422, "not a metric"),
    ("GET", "/runs/{run}/spectrum?neuron=99.5", None, 404, "no neuron 99.5"),
    ("GET", "/runs/{run}/export.xlsx", None, 422, "format"),
    ("GET", "/runs/{run}/tokens", None, 422, "query"),
    ("GET", "/runs/{run}/tokens?query=", None, 422, "query"),
    ("GET", "/runs/{run}/tokens?query=a&limit=0", None, 422, "limit"),
    ("GET", "/runs/999/tokens?query=a", None, 404, "no run 999"),
    ("GET", "/runs/{run}/promoters", None, 422, "token_id"),
    ("GET", "/runs/{run}/promoters?token_id=9999999", None, 404, "its tokens are 0 to"),
    ("GET", "/runs/{run}/promoters?token_id=-1", None, 422, "token_id"),
    ("GET", "/models/nobody/runs", None, 404, "no model"),
    ("GET", "/nothing", None, 404, "nothing at"),
    ("DELETE", "/runs/{run}", None, 405, "not understood"),
    ("POST", "/models/nobody/texts", '{"text": "hello"}', 404, "no model"),
    ("POST", "/models/{slug}/texts", '{"text": ""}', 422, "text"),
    ("POST", "/models/{slug}/texts", '{"text": 5}', 422, "text"),
    ("POST", "/models/{slug}/texts", '{"text": NaN}', 422, "text"),
    ("POST", "/models/{slug}/texts", '{"txt": "a"}', 422, "text"),
    ("POST", "/models/{slug}/texts", "not json", 422, "JSON"),
    ("POST", "/models/{slug}/texts", json.dumps({"text": "a" * 100_000}), 422, "20000 characters"),
    ("POST", "/texts/unknown/ablate", '{"interventions": [{"neuron": "1.3"}]}', 404, "send the text again"),
    ("POST", "/texts/{text}/ablate", '{"interventions": []}', 422, "interventions"),
    ("POST", "/texts/{text}/ablate", '{"interventions": [{"neuron": "99.5"}]}', 422, "does not exist"),
    ("POST", "/texts/{text}/ablate", '{"interventions": [{"neuron": "9.3"}]}', 422, "layers are 0 to 1"),
    ("POST", "/texts/{text}/ablate", '{"interventions": [{"neuron": "{layer}.3", "kind": "value"}]}', 422, "needs"),
    ("POST", "/texts/{text}/ablate", '{"interventions": [{"neuron": "{layer}.3", "value": 1}]}', 422, "takes no"),
    ("POST", "/texts/{text}/ablate",
     '{"interventions": [{"neuron": "{layer}.3", "kind": "value", "value": NaN}]}', 422, "finite"),
    ("POST", "/texts/{text}/ablate",
     '{"interventions": [{"neuron": "{layer}.3"}, {"neuron": "{layer}.3"}]}', 422, "named twice"),
    ("POST", "/texts/{text}/ablate", '{"interventions": [{"neuron": "{layer}.3"}], "run": 999}', 404, "no run 999"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), PROBLEMS)
def test_every_error_is_a_problem_document_with_a_sentence(
    method: str, path: str, body: str | None, status: int, words: str,
    http: TestClient, tiny_atlas: TinyAtlas, text: dict[str, Any],
) -> None:  # fmt: skip
    known = {"{run}": tiny_atlas.run, "{layer}": tiny_atlas.layer, "{slug}": tiny_atlas.slug, "{text}": text["id"]}
    for name, value in known.items():
        path, body = path.replace(name, str(value)), body and body.replace(name, str(value))
    response = http.request(method, V1 + path, content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "field"}
    assert words in problem["detail"]
    assert len(response.content) < 1_500, "a huge request is not echoed"


@pytest.mark.parametrize(
    "odd", ["a", "\u0000\u0007", "🙂👩‍👩‍👧", "<script>alert(1)</script>", "\u202eabc", "\n\n\t", "ﷺ" * 50, "\ud83d"]
)
def test_odd_texts_are_traced(odd: str, http: TestClient, tiny_atlas: TinyAtlas) -> None:
    body = json.dumps({"text": odd})
    response = http.post(
        f"{V1}/models/{tiny_atlas.slug}/texts", content=body, headers={"content-type": "application/json"}
    )
    if odd == "\ud83d":  # half of a character is not text
        assert response.status_code == 422
        return
    assert response.status_code == 200
    entropies = response.json()["values"]["entropy"]
    assert all(math.isfinite(value) for value in entropies)


def test_a_busy_model_says_when_to_come_back(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path, device="cpu", queue_limit=0)
    with TestClient(create_service(Settings(atlas=str(tiny_atlas.path)), engine=engine)) as client:
        response = client.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "hello"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "wait for the model" in response.json()["detail"]


def test_before_there_is_an_atlas_the_service_answers_and_finds_it_later(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    later = tmp_path / "later.db"
    later.touch()  # as the writer leaves it for a moment, before the schema is there
    with TestClient(create_service(Settings(atlas=str(later)), engine=LiveEngine(tmp_path))) as client:
        assert client.get(f"{V1}/models").json() == {"models": []}
        missing = client.get(f"{V1}/runs/1")
        assert missing.status_code == 404
        assert "calibroscope precompute" in missing.json()["detail"]
        later.write_bytes(tiny_atlas.path.read_bytes())
        assert client.get(f"{V1}/runs/{tiny_atlas.run}").status_code == 200


def test_an_unexpected_error_tells_nothing_of_the_inside(
    tiny_atlas: TinyAtlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = create_service(Settings(atlas=str(tiny_atlas.path)), engine=LiveEngine(tmp_path))
    monkeypatch.setattr("backend.answers.glossary.glossary", lambda: 1 / 0)
    with TestClient(service, raise_server_exceptions=False) as client:
        response = client.get(f"{V1}/glossary")
    assert response.status_code == 500
    assert "ZeroDivision" not in response.text
    assert "Traceback" not in response.text
    told = capsys.readouterr().out
    assert "ZeroDivisionError: division by zero" in told
    assert "locals" not in told, "the log must not hold what people sent"


def test_a_run_can_be_downloaded(http: TestClient, tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    for format in ("csv", "json", "parquet"):
        response = http.get(f"{V1}/runs/{tiny_atlas.run}/export.{format}")
        assert response.status_code == 200
        assert f"run-{tiny_atlas.run}.{format}" in response.headers["content-disposition"]
    (tmp_path / "run.parquet").write_bytes(response.content)
    assert pq.read_table(tmp_path / "run.parquet").num_rows == tiny_atlas.neurons


def test_the_documentation_lists_every_endpoint_and_loads_nothing_from_elsewhere(http: TestClient) -> None:
    page = http.get("/api/docs").text
    for path in http.get("/api/openapi.json").json()["paths"]:
        assert path in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_service_keeps_its_own_contract(tiny_service: FastAPI) -> None:
    """Generated requests to every operation, valid and not: never a server error, always an answer as documented."""
    checks = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
    found = list(schemathesis.openapi.from_asgi("/api/openapi.json", tiny_service).get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found), "every operation can be read"
    assert len(operations) > 15
    checked = dict.fromkeys(GenerationMode, 0)
    for operation in operations:
        for mode in GenerationMode:

            @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(operation.as_strategy(generation_mode=mode))
            def keeps(case: Any) -> None:
                case.call_and_validate(checks=checks)

            # What takes no parameter, or any text, has no invalid request.
            with contextlib.suppress(Unsatisfiable):
                keeps()
                checked[mode] += 1
    assert checked[GenerationMode.POSITIVE] == len(operations)
    assert checked[GenerationMode.NEGATIVE] > 8


@pytest.mark.anyio
async def test_health_passes_on_what_no_run_can_tell(tiny_atlas: TinyAtlas, tmp_path: Path) -> None:
    engine = LiveEngine(tmp_path, device="cpu")
    service = create_service(Settings(atlas=str(tiny_atlas.path)), engine=engine)
    client = AsyncClient(service=service)
    assert (await client.send(calls.health())).notice is None
    announce(service, "The analysis ended with an error.")
    assert (await client.send(calls.health())).notice == "The analysis ended with an error."
    await client.close()
    engine.close()
