"""`create_dashboard`: the pages, on the same port as the API."""

from pathlib import Path

import dash_mantine_components as dmc
import httpx
from dash import Dash, dcc, html, page_container
from fastapi import FastAPI

from app import errors, tour
from app.components import pins
from app.components.layout import aria
from app.pages.listed import PAGES, menu
from backend.client import Sender, in_process

# Within the page: the browser would ask for a file anew whenever the address changes.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Ccircle cx='8' cy='8' r='7' fill='%231864ab'/%3E"
    "%3Cpath d='M3 10a5 5 0 0 1 10 0M8 10l3-4' fill='none' stroke='white' stroke-width='1.6'/%3E%3C/svg%3E"
)
_INDEX = f"""<!DOCTYPE html>
<html lang="en">
    <head>{{%metas%}}<title>{{%title%}}</title><link rel="icon" href="{_ICON}">{{%css%}}</head>
    <body>{{%app_entry%}}<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer></body>
</html>"""
STATIC = Path(__file__).resolve().parent.parent / "static"


def create_dashboard(client: Sender, server: FastAPI) -> Dash:
    """The dashboard, mounted on the service's application; it sees nothing but what `client` answers."""
    errors.install(server)
    app = Dash(
        "calibroscope",
        server=server,  # type: ignore[arg-type]  # Dash 4 takes an ASGI application too; its annotation is of Flask
        use_pages=True,
        pages_folder="",
        assets_folder=str(STATIC),
        title="Calibroscope",
        update_title=None,  # type: ignore[arg-type]  # None keeps the title, as its documentation says
        index_string=_INDEX,
        suppress_callback_exceptions=True,
        serve_locally=True,
        use_async=True,
        on_error=errors.failed,
    )
    app.backend.websocket_capability = False  # no callback uses one; pages would open one all the same
    for page in PAGES.values():
        page.register(app, client)
    pins.register(app)
    app.layout = _shell
    server.state.inline_scripts = app.csp_hashes
    return app


async def warm_up(server: FastAPI) -> None:
    """Ask for the first page once, before anyone else does.

    Dash finishes its set-up when `/` is first asked for; a deep link that came first would get a page without styles.
    """
    async with httpx.AsyncClient(transport=in_process(server), base_url="http://127.0.0.1") as client:
        (await client.get("/")).raise_for_status()


def _shell() -> dmc.MantineProvider:
    """The frame around every page; Mantine keeps the choice of light or dark in the browser."""
    header = html.Header(
        [
            html.A("Skip to the content", href="#content", className="skip-link"),
            dcc.Link("Calibroscope", href="/", className="brand"),
            html.Nav(
                [*(dcc.Link(words, href=path) for words, path in menu()), html.A("API", href="/api/docs")],
                **aria(label="Pages"),
            ),
            html.Span(className="grow"),
            tour.button(),
            dmc.ColorSchemeToggle(
                lightIcon=html.Span("☀"), darkIcon=html.Span("☾"), variant="subtle", size="lg",
                **aria(label="Light or dark"),
            ),
        ],
        className="site-header",
    )  # fmt: skip
    # Shade 8 is the lightest blue on which white text can be read.
    theme = {"primaryColor": "blue", "primaryShade": 8, "defaultRadius": "sm", "fontFamily": "system-ui, sans-serif"}
    return dmc.MantineProvider(
        [header, pins.shell(), errors.shell(), html.Main(page_container, id="content", tabIndex=-1)],
        theme=theme,
        defaultColorScheme="auto",
    )
