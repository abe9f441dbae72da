"""Which neurons promote or suppress a token: a part of the atlas page."""

from dash import Dash, dcc, html
from dash.development.base_component import Component

from backend.client import AsyncClient

MARKS = "atlas-marks"


def register(app: Dash, client: AsyncClient) -> None:
    pass


def section() -> Component:
    return html.Div(dcc.Store(id=MARKS))
