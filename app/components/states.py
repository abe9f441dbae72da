"""What stands where nothing can be shown: there is nothing yet, or something failed."""

from dash import html


def empty(title: str, sentence: str, command: str | None = None) -> html.Div:
    """Nothing to show, why, and what to do about it."""
    code = [] if command is None else [html.Pre(command)]
    return html.Div([html.H2(title), html.P(sentence), *code], className="state")


def failure(sentence: str) -> html.Div:
    """An error of the service, in its own words."""
    return html.Div([html.Strong("This did not work. "), sentence], className="state error", role="alert")
