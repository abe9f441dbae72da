"""The service answers to its own names; its own client, which asks in the same process, needs none."""

from anyio.from_thread import start_blocking_portal
from fastapi.testclient import TestClient

from backend.client import AsyncClient, calls
from tests.guards.conftest import Made

HEALTH = "/api/v1/health"


def test_another_sites_name_is_not_answered(http: TestClient) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", "evil@localhost", "localhost:8050.evil.example", ""):
        refused = http.get(HEALTH, headers={"host": name})
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/problem+json"
        assert "CALIBROSCOPE_ALLOWED_HOSTS" in refused.json()["detail"]
    for name in ("localhost:8050", "127.0.0.1", "[::1]:8050", "LOCALHOST"):
        assert http.get(HEALTH, headers={"host": name}).status_code == 200


def test_names_that_the_settings_allow_are_answered(service: Made) -> None:
    with TestClient(service(host="0.0.0.0", allowed_hosts=["*.lab.example"])) as client:
        for name, status in (("gpu.lab.example:80", 200), ("lab.example.evil", 400), ("localhost", 400)):
            assert client.get(HEALTH, headers={"host": name}).status_code == status, name


def test_the_client_in_this_process_is_no_guest(service: Made) -> None:
    async def ask() -> str:
        client = AsyncClient(service=service(host="0.0.0.0", allowed_hosts=["atlas.example.org"]))
        status = (await client.send(calls.health())).status
        await client.close()
        return status

    with start_blocking_portal() as portal:  # a thread of its own: browser tests leave a loop running in this one
        assert portal.call(ask) == "ok"


def test_no_header_makes_a_guest_the_client_in_this_process(service: Made) -> None:
    with TestClient(service(host="0.0.0.0", allowed_hosts=["atlas.example.org"])) as client:
        forged = {"host": "127.0.0.1", "calibroscope.in_process": "true", "calibroscope-in-process": "1"}
        assert client.get(HEALTH, headers=forged).status_code == 400
