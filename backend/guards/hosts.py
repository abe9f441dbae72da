"""Which names the service answers to, against pages that resolve a name of their own to this machine."""

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.routes import problems
from backend.schemas import Problem
from backend.settings import LOOPBACK, Settings

_KNOWN = "calibroscope.host_is_known"


def names_of(settings: Settings) -> list[str]:
    """Names that the service answers to; none means any name."""
    if settings.is_local:
        return [*LOOPBACK, "[::1]", "testserver", *settings.allowed_hosts]
    return settings.allowed_hosts and [*settings.allowed_hosts, settings.host]


class KnownHosts:
    """Starlette's check of the Host header, with a refusal that says what to do."""

    def __init__(self, app: ASGIApp, allowed_hosts: list[str]) -> None:
        self._app = app
        self._check = TrustedHostMiddleware(_note_known, allowed_hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {**scope, _KNOWN: False}
        await self._check(asked, receive, _say_nothing)
        if asked[_KNOWN]:
            await self._app(scope, receive, send)
            return
        detail = (
            "The service does not answer to the name in the Host header. Use http://127.0.0.1 with its port, or name "
            "the host in CALIBROSCOPE_ALLOWED_HOSTS."
        )
        await problems.answer(Problem(title="Unknown host", status=400, detail=detail))(scope, receive, send)


async def _note_known(scope: Scope, receive: Receive, send: Send) -> None:
    scope[_KNOWN] = True


async def _say_nothing(message: Message) -> None:
    """Starlette's own refusal is not sent."""
