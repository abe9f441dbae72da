"""What fails in a page's callback is in the log under a number, and the page is told the number."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.dashboard import create_dashboard
from app.pages.jobs import page as jobs
from backend.client import AsyncClient

SECRET = "a person's own words"
REFRESH = {
    "output": "..jobs-body.children...jobs-seen.data...jobs-poll.interval..",
    "outputs": [
        {"id": "jobs-body", "property": "children"},
        {"id": "jobs-seen", "property": "data"},
        {"id": "jobs-poll", "property": "interval"},
    ],
    "inputs": [
        {"id": "jobs-poll", "property": "n_intervals", "value": 1},
        {"id": "jobs-changed", "property": "data", "value": SECRET},
    ],
    "changedPropIds": ["jobs-poll.n_intervals"],
    "state": [{"id": "jobs-seen", "property": "data", "value": None}],
}
CALLBACK = "/_dash-update-component"


@pytest.fixture
def http() -> Iterator[TestClient]:
    service = FastAPI()
    create_dashboard(AsyncClient(service=FastAPI()), service)
    with TestClient(service, raise_server_exceptions=False) as client:
        client.get("/")  # Dash finishes its set-up then
        yield client


def _incident(told: str) -> str:
    found = re.search(r"incident ([0-9a-f]{8})", told)
    assert found, told
    return found[1]


def test_an_error_in_a_callback_is_logged_under_the_number_that_the_page_shows(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(jobs, "shown", broken)
    answered = http.post(CALLBACK, json=REFRESH)
    assert answered.status_code == 200
    changed = answered.json()
    incident = _incident(changed["sideUpdate"]["incidents"]["children"]["props"]["title"])
    assert changed.get("response", {}) == {}, "what the page shows stays"
    log = capsys.readouterr().out
    assert incident in log
    assert "ZeroDivisionError: nobody foresaw this" in log
    assert "jobs-poll.n_intervals" in log
    assert SECRET not in log, "the log must not hold what people sent"
    assert "nobody foresaw" not in answered.text, "the inside stays inside"


def test_an_error_around_a_callback_is_logged_too(http: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    answered = http.post(CALLBACK, json=REFRESH | {"output": "..older.page.."})
    assert answered.status_code == 500
    assert answered.headers["content-type"] == "application/problem+json"
    assert _incident(answered.json()["detail"]) in capsys.readouterr().out


def test_an_answer_that_cannot_be_written_is_logged(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def unwritable(*_: Any) -> tuple[Any, ...]:
        return object(), None, 1000

    monkeypatch.setattr(jobs, "shown", unwritable)
    answered = http.post(CALLBACK, json=REFRESH)
    assert answered.status_code == 500
    assert _incident(answered.json()["detail"]) in capsys.readouterr().out


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        "5",
        "null",
        "[" * 100_000,
        '"\\ud83d"',
        "{}",
        '{"output": 5, "inputs": []}',
        '{"output": "jobs-body.children"}',
        '{"output": "jobs-body.children", "inputs": 5}',
    ],
)
def test_a_body_that_is_no_callback_is_refused_and_fills_no_log(
    body: str, http: TestClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = http.post(CALLBACK, content=body, headers={"content-type": "application/json"})
    assert answered.status_code == 400
    assert "JSON object" in answered.json()["detail"]
    assert capsys.readouterr().out == ""


def test_what_a_callback_leaves_unchanged_is_no_error(
    http: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dash.exceptions import PreventUpdate

    async def nothing(*_: Any) -> None:
        raise PreventUpdate

    monkeypatch.setattr(jobs, "shown", nothing)
    assert http.post(CALLBACK, json=REFRESH).status_code == 204
    assert capsys.readouterr().out == ""
