"""The Text lab's panel that generates on: the controls are here, the two continuations grow in the browser."""

import dash_mantine_components as dmc
from dash import Input, Output, State, clientside_callback, html

from app.components.layout import panel
from app.pages.lab import ids
from backend.schemas import MAX_GENERATED_TOKENS

_NOTE = (
    "Both continuations draw on the same chance, so they part only where the interventions change what is chosen. "
    "Temperature 0 takes the most probable token each time."
)


def generate_panel() -> html.Div:
    """Hidden until there is a text to go on from."""
    controls = html.Div(
        [
            dmc.NumberInput(
                id=ids.TEMPERATURE, label="Temperature", value=0.8, min=0, max=2, step=0.1, size="xs", w=104
            ),
            dmc.NumberInput(
                id=ids.SEED, label="Seed", value=1, min=0, max=2**31 - 1, allowDecimal=False, size="xs", w=104
            ),
            dmc.NumberInput(
                id=ids.LENGTH, label="Tokens", value=60, min=1, max=MAX_GENERATED_TOKENS, allowDecimal=False,
                size="xs", w=104,
            ),
            dmc.Button("Generate", id=ids.GENERATE, size="xs"),
            dmc.Button("Stop", id=ids.STOP, size="xs", variant="default", disabled=True),
        ],
        className="generate-controls",
    )  # fmt: skip
    return html.Div(
        panel("Generate on", controls, html.Div(id=ids.GENERATED), note=_NOTE), id=ids.GO_ON, style={"display": "none"}
    )


def register() -> None:
    """The buttons; the browser reads the stream itself (page_lab_generation.js)."""
    clientside_callback(
        "window.calibroscopeLabGeneration.begin", Output(ids.GENERATED, "title"), Input(ids.GENERATE, "n_clicks"),
        State(ids.TRACED, "data"), State(ids.STRIPS, "data"), State(ids.CHOSEN, "data"),
        State(ids.TEMPERATURE, "value"), State(ids.SEED, "value"), State(ids.LENGTH, "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLabGeneration.stop", Output(ids.STOP, "title"), Input(ids.STOP, "n_clicks"),
        prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeLabGeneration.forget", Output(ids.GO_ON, "title"), Input(ids.TRACED, "data"),
        prevent_initial_call=True,
    )  # fmt: skip
