"""The application behind its guards: what comes from outside passes them before any of the application's own code."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.client import IN_PROCESS
from backend.guards.bodies import BoundedBodies
from backend.guards.headers import SafeHeaders
from backend.guards.hosts import KnownHosts, names_of
from backend.guards.origins import OwnPagesWrite
from backend.settings import Settings


class GuardedService(FastAPI):
    """A FastAPI application whose guards stand before every middleware, those that the dashboard adds included.

    The dashboard's own client asks in this process and bears a mark that no request over a socket can bear; it is not
    a guest and is let through.
    """

    def __init__(self, settings: Settings, **described: Any) -> None:
        super().__init__(**described)
        guarded: ASGIApp = OwnPagesWrite(BoundedBodies(super().__call__))
        if hosts := names_of(settings):
            guarded = KnownHosts(guarded, hosts)
        self._guarded = SafeHeaders(guarded, settings.embed_origins, self._inline_scripts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_request = scope["type"] in ("http", "websocket")
        inner = self._guarded if is_request and not scope.get(IN_PROCESS) else super().__call__
        await inner(scope, receive, send)

    def _inline_scripts(self) -> Sequence[str]:
        """Hashes of the scripts that pages hold in their own text; the dashboard, where there is one, says which."""
        hashes: Callable[[], Sequence[str]] | None = getattr(self.state, "inline_scripts", None)
        return () if hashes is None else hashes()
