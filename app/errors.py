"""Errors in the pages' callbacks: each is in the service's log under a number, and the page shows the number."""

import dash_mantine_components as dmc
from dash import ctx, html, set_props
from dash.exceptions import MissingCallbackContextException, PreventUpdate
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.components.layout import aria
from backend import incidents
from backend.schemas import Problem

INCIDENTS = "incidents"


def shell() -> html.Div:
    """Where pages show what failed; no alert itself, since it is on every page and mostly empty."""
    return html.Div(id=INCIDENTS, className="incidents", **aria(live="assertive"))


def failed(error: Exception) -> None:
    """Log an error that a callback met, and show its number on the page; everything else on it stays as it is."""
    incident = incidents.record(error, place="a page's callback", triggered_by=_trigger())
    alert = dmc.Alert(
        sentence(incident), title=f"Something failed here (incident {incident})", color="red", withCloseButton=True,
        closeButtonLabel="Close",
    )  # fmt: skip
    set_props(INCIDENTS, {"children": alert})


def sentence(incident: str) -> str:
    """What a person should know and do."""
    return (
        "What you see may be incomplete or out of date: try again, or reload the page. If it fails again, look for "
        f"{incident} in the service's log (the terminal in which it runs), which has the details."
    )


def _trigger() -> str:
    try:
        return ", ".join(ctx.triggered_prop_ids) or "the page's opening"
    except MissingCallbackContextException:
        return "nothing known"


class LoggedErrors:
    """What fails around a callback (an answer that cannot be written, a request of an older page) is logged too.

    Dash answers such an error with a bare status and writes nothing anywhere.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/_dash-"):
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] == "POST" and not _is_callback(Request(scope).state.json_body):
                detail = "The body must be a JSON object with an output and inputs, as the pages send it."
                await _answer(400, "Bad request", detail)(scope, receive, send)
                return
            await self._app(scope, receive, send)
        except PreventUpdate:
            raise
        except Exception as error:
            incident = incidents.record(error, path=scope["path"])
            detail = f"Something failed here (incident {incident}). {sentence(incident)}"
            await _answer(500, "Internal error", detail)(scope, receive, send)


def _is_callback(body: object) -> bool:
    """Whether Dash can look for a callback: it would fail over another shape without an answer."""
    return isinstance(body, dict) and isinstance(body.get("output"), str) and isinstance(body.get("inputs"), list)


def _answer(status: int, title: str, detail: str) -> JSONResponse:
    problem = Problem(title=title, status=status, detail=detail)
    return JSONResponse(problem.model_dump(), status, media_type="application/problem+json")


def install(server: FastAPI) -> None:
    """Log what fails around callbacks; called before the dashboard is made, so that its own handling lies outside."""
    server.add_middleware(LoggedErrors)
