"""Any address that is not a page."""

from dash import Dash, dcc, html, register_page
from dash.development.base_component import Component

from backend.client import Sender


def register(_: Dash, __: Sender) -> None:
    """The page that Dash shows where no other matches."""
    register_page("not_found_404", title="Not found · Calibroscope", layout=layout)


def layout(**_: str) -> Component:
    """Says so, and leads back."""
    return html.Div(
        [
            html.H1("There is no such page"),
            html.P("The address may be mistyped, or belong to a newer version."),
            dcc.Link("To the atlas", href="/"),
        ],
        className="state",
    )
