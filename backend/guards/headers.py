"""What every answer tells a browser about itself: run no foreign script, guess no types, show in no foreign frame."""

from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGES = {
    "default-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # Plotly, AG Grid and Mantine write style elements of their own
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
_SCRIPTS = ("'self'", "'unsafe-eval'")
"""Plotly compiles its WebGL programs with `new Function`; without it the atlas's figure stays grey. A script that got
into a page's text is not run all the same: of those, only the ones whose hashes are named."""
_API = {"default-src": "'none'", "style-src": "'unsafe-inline'", "base-uri": "'none'", "form-action": "'none'"}


class SafeHeaders:
    """Adds the headers; an answer that has set one of them keeps its own."""

    def __init__(self, app: ASGIApp, embed_origins: Sequence[str], scripts: Callable[[], Sequence[str]]) -> None:
        """scripts: hashes of the scripts that pages hold in their own text, asked for after a page was made."""
        self._app, self._scripts = app, scripts
        self._frames = " ".join(embed_origins) or "'none'"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers(scope["path"]).items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _headers(self, path: str) -> dict[str, str]:
        policy = _API if path.startswith("/api/") else _PAGES | {"script-src": " ".join([*_SCRIPTS, *self._scripts()])}
        policy = policy | {"frame-ancestors": self._frames}
        headers = {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        return headers | ({"X-Frame-Options": "DENY"} if self._frames == "'none'" else {})
