"""Who may write: programs, and pages of the service itself; not the pages of other sites in somebody's browser.

A browser sends a form or a `fetch` to any address that a page names, this service's too. It also says where the page
came from: `Sec-Fetch-Site` on secure and local addresses, `Origin` on all. A program sends neither and is let through:
it could write either header as it likes, and no page can make it ask.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.routes import problems
from backend.schemas import Problem

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})
_USUAL_PORTS = (":80", ":443")
_LONGEST_SHOWN = 100


class OwnPagesWrite:
    """Refuses a request that writes where a browser says that another site's page sent it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        reads = scope["type"] == "http" and scope["method"] in _READS
        if reads or is_own(headers):
            await self._app(scope, receive, send)
            return
        whose = headers.get("origin", "another site")[:_LONGEST_SHOWN]
        detail = (
            f"A page of {whose} sent this request. Only the service's own pages, and programs, may write here: open "
            "the page from the service's own address."
        )
        await problems.answer(Problem(title="Not allowed", status=403, detail=detail))(scope, receive, send)


def is_own(headers: Headers) -> bool:
    """Whether a request comes from the service's own pages, or from a program."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in _OWN
    return origin is None or _place(_host_of(origin)) == _place(headers.get("host", ""))


def _host_of(origin: str) -> str:
    """Empty, which is no host that the service answers to, where an origin is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:  # a bracket that is not closed, a name that is none once normalised
        return ""


def _place(host: str) -> str:
    """`Atlas.example:443` as `atlas.example`: browsers leave a scheme's usual port out of an origin."""
    lowered = host.lower()
    return next((lowered.removesuffix(port) for port in _USUAL_PORTS if lowered.endswith(port)), lowered)
