"""Pinned neurons: kept in the browser, by model, and shown on every page.

`STORE` holds {model: ["29.830", ...]}, in the order of pinning. Pages read it as any store; `button` gives them a
button that pins one neuron, and `window.calibroscopePins` (static/shell_pins.js) does the same for scripts.
"""

import dash_mantine_components as dmc
from dash import ALL, MATCH, Dash, Input, Output, State, clientside_callback, dcc, html
from dash.development.base_component import Component

from app.components.layout import aria

STORE = "pins"
BAR, PIN, UNPIN, CLEAR = "pins-bar", "pins-pin", "pins-unpin", "pins-clear"
MOST = 40
"""Pins a model: more would no longer be a shortlist. static/shell_pins.js drops the oldest."""


def shell() -> Component:
    """The store and the bar that shows it, for the frame around all pages."""
    return html.Div([dcc.Store(id=STORE, storage_type="local", data={}), html.Div(id=BAR)], className="pins-frame")


def button(model: str, neuron: str) -> Component:
    """Pins a neuron, or takes the pin away."""
    name = {"type": PIN, "model": model, "neuron": neuron}
    pin: Component = dmc.Button("Pin", id=name, variant="default", size="compact-md", **aria(label=f"Pin {neuron}"))
    return pin


def register(_: Dash) -> None:
    """What the bar and the buttons do; all of it in the browser."""
    clientside_callback("window.calibroscopePins.bar", Output(BAR, "children"), Input(STORE, "data"))
    clientside_callback(
        "window.calibroscopePins.clicked",
        Output(STORE, "data"),
        Input({"type": PIN, "model": ALL, "neuron": ALL}, "n_clicks"),
        Input({"type": UNPIN, "model": ALL, "neuron": ALL}, "n_clicks"),
        Input({"type": CLEAR, "name": ALL}, "n_clicks"),
        State(STORE, "data"),
        prevent_initial_call=True,
    )
    clientside_callback(
        "window.calibroscopePins.label",
        Output({"type": PIN, "model": MATCH, "neuron": MATCH}, "children"),
        Output({"type": PIN, "model": MATCH, "neuron": MATCH}, "aria-label"),
        Input(STORE, "data"),
        State({"type": PIN, "model": MATCH, "neuron": MATCH}, "id"),
    )
