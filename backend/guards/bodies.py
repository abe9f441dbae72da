"""How much a request may bring, and how long it may take over it."""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.routes import problems
from backend.schemas import Problem

API_BYTES = 1 << 20
"""A text has at most 20,000 characters, which JSON may write in twelve bytes each."""
PAGE_BYTES = 32 << 20
"""A page's callback sends back what its controls and stores hold; of the Text lab these are a text and its id."""
_MOST_DIGITS = 15
SECONDS = 30.0
"""For the whole body. A person's browser needs far less; one that sends a byte a minute holds a connection."""


class _TooLarge(Exception): ...


class _Gone(Exception): ...


class BoundedBodies:
    """Reads a request's body before anything else sees it: so much in so much time, or a refusal."""

    def __init__(self, app: ASGIApp, *, seconds: float = SECONDS) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["type"] != "http" or not ("content-length" in headers or "transfer-encoding" in headers):
            await self._app(scope, receive, send)
            return
        limit = API_BYTES if scope["path"].startswith("/api/") else PAGE_BYTES
        try:
            declared = headers.get("content-length", "0")
            if len(declared) > _MOST_DIGITS or (declared.isdecimal() and int(declared) > limit):
                raise _TooLarge
            with anyio.fail_after(self._seconds):
                body = await _whole(receive, limit)
        except _Gone:
            return
        except _TooLarge:
            detail = f"The request's body is larger than {limit >> 20} MB, which is more than anything here needs."
            await _refused(413, "Too large", detail)(scope, receive, send)
        except TimeoutError:
            detail = f"The request's body did not arrive within {self._seconds:g} seconds. Send it again in one go."
            await _refused(408, "Too slow", detail)(scope, receive, send)
        else:
            await self._app(scope, _replayed(body, receive), send)


async def _whole(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > limit:
            raise _TooLarge
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message; what comes after it (that the asker has gone) as the connection says it."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return pending.pop() if pending else await receive()

    return next_message


def _refused(status: int, title: str, detail: str) -> ASGIApp:
    # What is still on its way of the body must not be taken for a next request.
    return problems.answer(Problem(title=title, status=status, detail=detail), {"Connection": "close"})
