"""A request brings so much, in so much time, whatever it declares."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from backend.guards import bodies

TEXTS = "/api/v1/models/nobody/texts"


def _chunks(size: int) -> Iterator[bytes]:
    for _ in range(size >> 16):
        yield b"x" * (1 << 16)


@pytest.mark.parametrize("brought", [lambda: b"x" * (bodies.API_BYTES + 1), lambda: _chunks(bodies.API_BYTES * 2)])
def test_a_body_that_is_too_large_is_refused(brought: Callable[[], bytes | Iterator[bytes]], http: TestClient) -> None:
    refused = http.post(TEXTS, content=brought(), headers={"content-type": "application/json"})
    assert refused.status_code == 413
    assert "larger than 1 MB" in refused.json()["detail"]
    assert refused.headers["connection"] == "close"


def test_a_callback_of_a_page_may_bring_more_but_not_anything(http: TestClient) -> None:
    assert http.post("/_dash-update-component", content=_chunks(2 * bodies.API_BYTES)).status_code != 413
    assert http.post("/_dash-update-component", content=_chunks(bodies.PAGE_BYTES + (1 << 20))).status_code == 413


def test_what_fits_arrives_whole(http: TestClient) -> None:
    body = b'{"text": "' + b"a" * 15_000 + b'"}'
    for content in (body, iter([body[:7_000], body[7_000:]])):
        answered = http.post(TEXTS, content=content, headers={"content-type": "application/json"})
        assert answered.json()["title"] == "No atlas yet", "it was read, and there is no atlas"


def test_the_largest_text_that_json_can_write_passes(http: TestClient) -> None:
    body = '{"text": "' + "\\ud83d\\ude42" * 20_000 + '"}'
    answered = http.post(TEXTS, content=body, headers={"content-type": "application/json"})
    assert answered.json()["title"] == "No atlas yet"


@pytest.mark.parametrize("length", ["-5", "1e3", "²", "9" * 5_000, "1" * 12, ""])
def test_a_declared_length_that_is_nonsense_is_no_error_of_the_service(length: str, http: TestClient) -> None:
    answered = http.post(TEXTS, content=b"{}", headers={b"content-length": length.encode()})
    assert answered.status_code in (404, 413, 422)
