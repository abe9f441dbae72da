"""Pages of other sites may not write, whatever they ask; the service's own pages and programs may."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard import create_dashboard
from backend.client import AsyncClient
from tests.guards.conftest import Made

HOST = {"host": "127.0.0.1:8050"}
OTHERS = [
    {"origin": "https://evil.example"},
    {"origin": "http://127.0.0.1:3000"},
    {"origin": "http://localhost:8050"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1:8050@evil.example"},
    {"origin": "http://[::1"},
    {"origin": "http://[not-an-address]"},
    {"origin": "http://127.0.0.1:8050", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]
OWN = [
    {},
    {"origin": "http://127.0.0.1:8050"},
    {"origin": "http://127.0.0.1:8050", "sec-fetch-site": "same-origin"},
    {"origin": "https://behind-a-proxy.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
]


@pytest.mark.parametrize("headers", OTHERS)
@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v1/jobs/1/cancel"), ("DELETE", "/"), ("PUT", "/anything")])
def test_another_sites_page_writes_nothing(method: str, path: str, headers: dict[str, str], http: TestClient) -> None:
    refused = http.request(method, path, headers=HOST | headers)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert "own pages" in refused.json()["detail"]


@pytest.mark.parametrize("headers", OTHERS)
def test_another_sites_page_starts_no_callback(headers: dict[str, str], service: Made) -> None:
    site = service()
    create_dashboard(AsyncClient(service=FastAPI()), site)
    with TestClient(site) as client:
        asked = client.post("/_dash-update-component", json={}, headers=HOST | headers)
    assert asked.status_code == 403


@pytest.mark.parametrize("headers", OWN)
def test_own_pages_and_programs_pass(headers: dict[str, str], http: TestClient) -> None:
    answered = http.post("/api/v1/jobs/1/cancel", headers=HOST | headers)
    assert answered.status_code == 404, "there is no atlas, and that is all that is wrong"


def test_usual_ports_are_the_same_place(http: TestClient) -> None:
    for host, origin in (("atlas.lan", "http://atlas.lan:80"), ("ATLAS.lan:443", "https://atlas.lan")):
        with TestClient(http.app) as client:
            answered = client.post("/api/v1/jobs/1/cancel", headers={"host": host, "origin": origin})
        assert "own pages" not in answered.json()["detail"], "the name is unknown here, the origin is its own"


def test_reading_is_not_the_guards_business(http: TestClient) -> None:
    assert http.get("/api/v1/health", headers=HOST | {"origin": "https://evil.example"}).status_code == 200
