"""What browsers are told with every answer, refusals included."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard import create_dashboard
from backend.client import AsyncClient
from tests.guards.conftest import Made


def _policy(headers: object) -> dict[str, str]:
    parts = headers["content-security-policy"].split("; ")  # type: ignore[index]
    return dict(part.split(" ", 1) for part in parts)


def test_every_answer_bears_the_headers(http: TestClient) -> None:
    asked = [("GET", "/api/v1/health"), ("GET", "/api/docs"), ("GET", "/api/nothing"), ("POST", "/api/v1/models")]
    for method, path in asked:
        headers = http.request(method, path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert _policy(headers)["frame-ancestors"] == "'none'"
        assert _policy(headers)["default-src"] == "'none'"
    refused = http.get("/api/v1/health", headers={"host": "evil.example"})
    assert refused.status_code == 400
    assert "content-security-policy" in refused.headers


def test_a_page_runs_its_own_scripts_alone(service: Made) -> None:
    site = service()
    create_dashboard(AsyncClient(service=FastAPI()), site)
    with TestClient(site) as client:
        policy = _policy(client.get("/").headers)
    scripts = policy["script-src"].split()
    assert "'unsafe-inline'" not in scripts
    assert {word[:8] for word in scripts if word not in ("'self'", "'unsafe-eval'")} == {"'sha256-"}
    assert policy["object-src"] == policy["base-uri"] == policy["form-action"] == "'none'"


def test_named_origins_may_show_the_pages(service: Made) -> None:
    with TestClient(service(embed_origins=["https://lab.example", "https://*.org.example"])) as client:
        headers = client.get("/api/docs").headers
    assert _policy(headers)["frame-ancestors"] == "https://lab.example https://*.org.example"
    assert "x-frame-options" not in headers, "it knows no list, and would forbid what is allowed"
