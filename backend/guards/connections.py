"""Connections that are held open without asking or reading anything: closed, so that they keep nobody else out."""

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For a request's first line and headers, from the connection's beginning or the request's first byte."""
STALLED_SECONDS = 300.0
"""For a peer that has stopped reading what it asked for."""
MOST_HEAD_BYTES = 64 << 10
MOST_CONNECTIONS = 800
"""A process may have 1,024 files open on most systems. More connections are answered with 503."""


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, with an end to its patience: it waits for headers, and for a reader, for ever."""

    head_seconds, stalled_seconds = HEAD_SECONDS, STALLED_SECONDS
    _head: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        elif self._head is not None:
            self._head.cancel()
            self._head = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _expect_head(self) -> None:
        # Armed once for a head, not anew with each byte of it: a byte a second would never end.
        if self._head is None:
            self._head = self.loop.call_later(self.head_seconds, self.transport.close)


def server_config(service: ASGIApp, host: str, port: int, **options: Any) -> uvicorn.Config:
    """How the service listens. Nothing of it uses WebSockets, so none is answered."""
    return uvicorn.Config(
        service,
        host=host,
        port=port,
        http=PatientProtocol,
        ws="none",
        log_level="warning",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        **options,
    )
