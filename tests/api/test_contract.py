"""The API's own description: whatever a request may hold is bounded, and what a stream brings is told."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.conftest import TinyAtlas

V1 = "/api/v1"
Schema = dict[str, Any]


@pytest.fixture(scope="module")
def document(tiny_service: FastAPI) -> Schema:
    return tiny_service.openapi()


def parts(schema: Schema, place: str, document: Schema) -> Iterator[tuple[str, Schema]]:
    """Every schema within one, and where it stands."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        assert place.count(name) < 2, "a request that holds itself has no bound"
        yield from parts(document["components"]["schemas"][name], f"{place} {name}", document)
        return
    yield place, schema
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{place}.{name}", document)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{place}[]", document)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in schema.get(key, []):
            yield from parts(inner, place, document)


def asked(document: Schema) -> Iterator[tuple[str, Schema]]:
    """Every schema that a request may hold, in its address, its headers or its body."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            place = f"{method.upper()} {path}"
            for parameter in operation.get("parameters", []):
                yield from parts(parameter["schema"], f"{place} {parameter['name']}", document)
            for body in operation.get("requestBody", {}).get("content", {}).values():
                yield from parts(body["schema"], f"{place} body", document)


def unbounded(schema: Schema) -> bool:
    match schema.get("type"):
        case "integer" | "number":
            return not (
                {"minimum", "exclusiveMinimum"} & schema.keys() and {"maximum", "exclusiveMaximum"} & schema.keys()
            )
        case "string":
            return not {"maxLength", "enum", "const"} & schema.keys()
        case "array":
            return "maxItems" not in schema
        case "object":
            return schema.get("additionalProperties") is not False and "maxProperties" not in schema
        case None:
            return not {"anyOf", "oneOf", "allOf", "enum", "const"} & schema.keys()
        case _:
            return False


def test_whatever_a_request_may_hold_is_bounded(document: Schema) -> None:
    found = list(asked(document))
    kinds = {schema.get("type") for _, schema in found}
    assert {"integer", "number", "string", "array", "object"} <= kinds
    assert sorted({place for place, schema in found if unbounded(schema)}) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1}, {"type": "integer", "maximum": 1}, {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "null"}}, {"type": "object"}, {},
    ],
)  # fmt: skip
def test_what_has_no_bound_is_noticed(schema: Schema) -> None:
    assert unbounded(schema)


@pytest.mark.parametrize(
    ("operation", "event", "kinds"),
    [
        ("/texts/{text_id}/generate", "GenerationEvent", {"start", "step", "end", "problem"}),
        ("/models/{model}/induction", "InductionEvent", {"start", "progress", "curves", "heads", "end", "problem"}),
        ("/jobs/{job}/events", "InductionEvent", {"start", "progress", "curves", "heads", "end", "problem"}),
    ],
)
def test_what_a_stream_brings_is_described(operation: str, event: str, kinds: set[str], document: Schema) -> None:
    (described,) = document["paths"][V1 + operation].values()
    item = described["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    assert item["properties"]["data"]["contentSchema"] == {"$ref": f"#/components/schemas/{event}"}
    assert kinds <= document["components"]["schemas"][event]["discriminator"]["mapping"].keys()


HUGE = [2**31, 2**63, 2**64, 10**400, -(2**63), -1]


@pytest.mark.parametrize("number", HUGE, ids=lambda number: f"{number:.0e}" if abs(number) < 1e300 else "1e400")
def test_a_number_that_no_atlas_holds_is_refused_wherever_it_stands(
    number: int, tiny_service: FastAPI, tiny_atlas: TinyAtlas
) -> None:
    with TestClient(tiny_service) as http:
        text = http.post(f"{V1}/models/{tiny_atlas.slug}/texts", json={"text": "The lamp is lit."}).json()["id"]
        neuron, slug = f"{tiny_atlas.layer}.3", tiny_atlas.slug
        job = {"kind": "induction", "model": slug}
        sent: list[tuple[str, str, Schema | None]] = [
            ("POST", f"/texts/{text}/ablate", {"interventions": [{"neuron": neuron}], "run": number}),
            ("POST", f"/texts/{text}/sweep", {"run": number}),
            ("POST", f"/texts/{text}/sweep", {"position": number}),
            ("POST", f"/texts/{text}/generate", {"run": number}),
            ("POST", f"/texts/{text}/generate", {"seed": number}),
            ("POST", f"/models/{slug}/induction", {"run": number}),
            ("POST", f"/models/{slug}/induction", {"source": "random", "seed": number}),
            ("POST", "/jobs", job | {"induction": {"run": number}}),
            ("POST", f"/jobs/{number}/cancel", None),
            ("GET", f"/jobs/{number}", None),
            ("GET", f"/jobs/{number}/events", None),
            ("GET", f"/runs/{number}", None),
            ("GET", f"/runs/{number}/neurons/{neuron}", None),
            ("GET", f"/runs/{tiny_atlas.run}/promoters?token_id={number}", None),
            ("GET", f"/runs/{tiny_atlas.run}/neurons?limit={number}", None),
        ]
        for method, path, body in sent:
            answer = http.request(method, V1 + path, json=body)
            assert answer.status_code == 422, f"{method} {path[:60]}"
            assert answer.headers["content-type"] == "application/problem+json"
        for name in (f"{number}.3", f"{tiny_atlas.layer}.{number}"):
            answer = http.get(f"{V1}/runs/{tiny_atlas.run}/neurons/{name[:300]}")
            assert answer.status_code in (404, 422)
        page = http.get(f"{V1}/runs/{tiny_atlas.run}/neurons", params={"cursor": str(number)[:100]})
        assert page.status_code in (200, 422)
