"""Which neurons promote or suppress a token: a part of the atlas page."""

from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, clientside_callback, dcc, html
from dash.development.base_component import Component

from app import links
from app.components.layout import aria
from app.notation.numbers import signed
from app.notation.tokens import visible
from app.pages.atlas.views import MODEL, RUN
from backend.client import ApiError, Sender, calls
from backend.schemas import MAX_TOKEN_QUERY, NeuronPush, Promoters

QUERY, OPTIONS, OPTION, TOKEN = "atlas-token-query", "atlas-token-options", "atlas-token-option", "atlas-token"
MARKS, PROMOTERS = "atlas-marks", "atlas-promoters"
SUGGESTIONS, SHOWN = 8, 10
NO_MARKS: dict[str, list[str]] = {"up": [], "down": []}


def register(app: Dash, client: Sender) -> None:
    """Suggestions while a token is typed, and its neurons once it is chosen."""

    @app.callback(
        Output(OPTIONS, "children"), Output(QUERY, "error"),
        Input(QUERY, "value"), Input(RUN, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def suggest(typed: str | None, run: str | None) -> tuple[Any, Any]:
        return await suggestions(client, typed or "", run)

    @app.callback(
        Output(PROMOTERS, "children"), Output(MARKS, "data"),
        Input(TOKEN, "data"), Input(RUN, "value"), State(MODEL, "value"), prevent_initial_call=True,
    )  # fmt: skip
    async def ask(token: int | None, run: str | None, model: str | None) -> tuple[Any, Any]:
        return await who_pushes(client, token, run, model)

    clientside_callback(
        "window.calibroscopeAtlas.chooseToken", Output(TOKEN, "data"),
        Input({"type": OPTION, "token": ALL}, "n_clicks"), Input(QUERY, "n_submit"), Input(QUERY, "value"),
        Input(MODEL, "value"), State({"type": OPTION, "token": ALL}, "id"), prevent_initial_call=True,
    )  # fmt: skip
    clientside_callback(
        "window.calibroscopeAtlas.markToken", Output({"type": OPTION, "token": ALL}, "aria-pressed"),
        Input(TOKEN, "data"), Input({"type": OPTION, "token": ALL}, "id"),
    )  # fmt: skip


def section(token: int | None = None) -> Component:
    """The box, and room for what it finds; `token` is chosen from the start."""
    return html.Div(
        [
            html.H2("Who moves a token?"),
            dmc.TextInput(id=QUERY, label="Token (spaces count)", debounce=200, placeholder="type a part of it"),
            html.Div(id=OPTIONS, className="token-options", role="group", **aria(label="Tokens that match")),
            dcc.Loading(html.Div(id=PROMOTERS, role="status"), delay_show=300),
            dcc.Store(id=TOKEN, data=token),
            dcc.Store(id=MARKS, data=NO_MARKS),
        ],
    )


async def suggestions(client: Sender, typed: str, run: str | None) -> tuple[Any, Any]:
    """Tokens that match what is typed, as buttons; and what is wrong."""
    if not typed or run is None:
        return None, None
    if len(typed) > MAX_TOKEN_QUERY:
        return None, f"At most {MAX_TOKEN_QUERY} characters: no token is that long."
    try:
        matches = await client.send(calls.tokens(int(run), typed, limit=SUGGESTIONS))
    except ApiError as error:
        return None, error.problem.detail
    if not matches.tokens:
        return html.Span("No token of the vocabulary has these characters together.", className="quiet"), None
    buttons = [
        html.Button(
            visible(token.token), id={"type": OPTION, "token": token.token_id}, className="mono token-option",
            type="button", title=f"token {token.token_id}",
        )
        for token in matches.tokens
    ]  # fmt: skip
    more = matches.total - len(matches.tokens)
    return [*buttons, *([html.Span(f"and {more:,} more", className="quiet")] if more else [])], None


async def who_pushes(client: Sender, token: int | None, run: str | None, model: str | None) -> tuple[Any, Any]:
    """Links to the neurons, and the marks that the figure shows on them."""
    if token is None or run is None or model is None:
        return None, NO_MARKS
    try:
        promoters = await client.send(calls.promoters(int(run), token, limit=SHOWN))
    except ApiError as error:
        return html.P(error.problem.detail, className="quiet", role="alert"), NO_MARKS
    marks = {"up": [one.neuron for one in promoters.promote], "down": [one.neuron for one in promoters.suppress]}
    return _answer(promoters, model, run), marks


def _answer(promoters: Promoters, model: str, run: str) -> Component:
    shown = visible(promoters.token.token)
    return html.Div(
        [
            html.P(
                [
                    "What a unit of activation adds directly to the logit of ",
                    html.Span(shown, className="mono token"),
                    ", before the final norm divides.",
                ],
                className="quiet",
            ),
            html.Div(
                [
                    _list("▲ Promote", promoters.promote, model, run),
                    _list("▼ Suppress", promoters.suppress, model, run),
                ],
                className="pushes",
            ),
        ]
    )  # fmt: skip


def _list(title: str, pushes: list[NeuronPush], model: str, run: str) -> Component:
    rows = [
        html.Li(
            [
                dcc.Link(one.neuron, href=links.neuron(model, one.neuron, run)),
                html.Span(signed(one.value)),
            ]
        )
        for one in pushes
    ]
    return html.Div([html.H3(title), html.Ol(rows) if rows else html.P("None.", className="quiet")])
