"""Connections that only hold on are closed, over a real socket; those that ask are answered meanwhile."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from backend.guards import bodies, connections
from backend.guards.connections import PatientProtocol, server_config
from tests.guards.conftest import Made


@pytest.fixture
def port(service: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A service whose patience is short."""
    monkeypatch.setattr(PatientProtocol, "head_seconds", 0.5)
    monkeypatch.setattr(PatientProtocol, "stalled_seconds", 0.5)
    monkeypatch.setattr(bodies.BoundedBodies.__init__, "__kwdefaults__", {"seconds": 0.5})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        chosen = int(probe.getsockname()[1])
    site = service()

    @site.get("/large")
    def large() -> dict[str, str]:
        return {"x": "x" * 50_000_000}

    server = uvicorn.Server(server_config(site, "127.0.0.1", chosen))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield chosen
    server.should_exit = True
    thread.join(10)


def _until_closed(held: socket.socket, every: bytes) -> tuple[float, bytes]:
    """Send a byte now and then until the service hangs up; how long it took, and what it said."""
    began, said = time.monotonic(), b""
    held.settimeout(0.1)
    while time.monotonic() - began < 10:
        try:
            if every:
                held.send(every)
            if not (heard := held.recv(4096)):
                break
            said += heard
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began, said


HEAD = b"POST /api/v1/models/m/texts HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("first", "every"),
    [
        (b"", b""),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"x"),
        (b"GET /api/v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"G"),
        (HEAD + b"Content-Length: 500\r\n\r\n{", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b""),
    ],
    ids=["silent", "headers by the byte", "a second request by the byte", "body by the byte", "chunks", "no body"],
)
def test_a_connection_that_only_holds_on_is_closed(first: bytes, every: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as held:
        held.sendall(first)
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/health").status_code == 200
        seconds, said = _until_closed(held, every)
    assert seconds < 6
    if first.startswith(HEAD):
        assert b" 408 " in said
        assert b"did not arrive" in said


def test_a_reader_that_stops_reading_is_hung_up_on(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as held:
        held.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(2.5)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while block := held.recv(1 << 20):
                got += len(block)
    assert got < 50_000_000, "everything was kept for a reader who did not read"


def test_headers_without_end_are_refused(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as held:
        held.sendall(b"GET / HTTP/1.1\r\n")
        said = b""
        try:
            for _ in range(2 * connections.MOST_HEAD_BYTES // 1024):
                held.sendall(b"X-A: " + b"a" * 1017 + b"\r\n")
            said = held.recv(4096)
        except OSError:
            return  # it was hung up on in the middle of a header
    assert b" 400 " in said or b" 431 " in said
