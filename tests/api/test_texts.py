"""A traced text over the API: asked again by its id, with as much of its predictions as is wanted."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from backend.client import ApiError, AsyncClient, Call, Client, calls
from backend.core.interventions.ablation import TextAblation, ablate_text
from backend.live import engine as live_engine
from backend.schemas import AblateRequest, InterventionRequest, SweepRequest
from tests.conftest import TinyAtlas

TEXT = "The lamp is lit, and the other lamp is not."


@pytest.fixture
def text(client: Client, tiny_atlas: TinyAtlas) -> str:
    return client.send(calls.trace_text(tiny_atlas.slug, TEXT)).id


def scaled(atlas: TinyAtlas, factor: float, at: list[int] | None = None) -> AblateRequest:
    neuron = InterventionRequest(neuron=f"{atlas.layer}.3", kind="scale", value=factor)
    return AblateRequest(interventions=[neuron], predictions_at=at)


def test_a_text_is_read_again_with_the_predictions_that_are_wanted(client: Client, text: str) -> None:
    whole, some = client.send(calls.text(text)), client.send(calls.text(text, predictions_at=[4, 0]))
    assert len(whole.predictions) == len(whole.tokens)
    assert some.predictions == [whole.predictions[4], whole.predictions[0]]
    assert some.model_copy(update={"predictions": whole.predictions}) == whole


def test_an_ablation_tells_the_predictions_that_are_wanted(client: Client, text: str, tiny_atlas: TinyAtlas) -> None:
    whole = client.send(calls.ablate(text, scaled(tiny_atlas, 3)))
    some = client.send(calls.ablate(text, scaled(tiny_atlas, 3, [2])))
    none = client.send(calls.ablate(text, scaled(tiny_atlas, 3, [])))
    assert some.total.predictions == [whole.total.predictions[2]]
    assert some.frozen.predictions == [whole.frozen.predictions[2]]
    assert none.total.predictions == []
    assert none.total.values == whole.total.values


@pytest.mark.parametrize("ask", [lambda text: calls.text(text, predictions_at=[1000]), None])
def test_a_token_that_the_text_has_not_is_said(
    ask: Callable[[str], Call[Any]] | None, client: Client, text: str, tiny_atlas: TinyAtlas
) -> None:
    call = calls.ablate(text, scaled(tiny_atlas, 3, [1000])) if ask is None else ask(text)
    with pytest.raises(ApiError, match="no position 1000") as refused:
        client.send(call)
    assert refused.value.problem.status == 422


def test_the_same_ablation_is_computed_once(
    client: Client, text: str, tiny_atlas: TinyAtlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def counting(*given: Any) -> TextAblation:
        done.append(1)
        return ablate_text(*given)

    monkeypatch.setattr(live_engine, "ablate_text", counting)
    first = client.send(calls.ablate(text, scaled(tiny_atlas, 5)))
    assert client.send(calls.ablate(text, scaled(tiny_atlas, 5))) == first
    assert len(done) == 1
    assert client.send(calls.ablate(text, scaled(tiny_atlas, 6))) != first
    assert len(done) == 2


def test_after_the_last_token_neurons_are_ranked_by_what_they_do_to_its_entropy(client: Client, text: str) -> None:
    last = len(client.send(calls.text(text)).tokens) - 1
    swept = client.send(calls.sweep(text, SweepRequest(position=last, limit=5)))
    by_entropy = client.send(calls.sweep(text, SweepRequest(position=last, sort="abs_delta_entropy", limit=5)))
    assert swept.rows == by_entropy.rows
    assert swept.rows[0].total_effect is None
    assert swept.rows[0].abs_delta_entropy > 0


def test_what_is_asked_over_a_socket_may_be_compressed(address: str, text: str) -> None:
    answer = httpx.get(f"{address}/api/v1/texts/{text}", headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"


@pytest.mark.anyio
async def test_nothing_is_compressed_within_the_process() -> None:
    asked: list[Request] = []
    service = FastAPI()

    @service.get("/api/v1/models")
    async def models(request: Request) -> dict[str, list[str]]:
        asked.append(request)
        return {"models": []}

    await AsyncClient(service=service).send(calls.models())
    assert "accept-encoding" not in asked[0].headers


@pytest.mark.parametrize(("unit", "label"), [("{layer}.3", "on_neurons"), ("L{layer}H1", "on_heads")])
def test_what_the_table_of_interventions_offers_is_taken_and_nothing_else(
    unit: str, label: str, client: Client, text: str, tiny_atlas: TinyAtlas
) -> None:
    table, unit = client.send(calls.interventions()), unit.format(layer=tiny_atlas.layer)
    assert {row.kind for row in table.interventions} >= {"mean", "scale", "bos"}
    for row in table.interventions:
        value = table.largest_value if row.needs_value else None
        asked = AblateRequest(interventions=[InterventionRequest(neuron=unit, kind=row.kind, value=value)])
        if getattr(row, label) is not None:
            assert unit in client.send(calls.ablate(text, asked)).activations_after
        else:
            with pytest.raises(ApiError, match="what can be done to it is"):
                client.send(calls.ablate(text, asked))
