"""What stands where nothing can be shown: there is nothing yet, or something failed."""

from dash import html

from backend.schemas import RunSummary


def empty(title: str, sentence: str, command: str | None = None) -> html.Div:
    """Nothing to show, why, and what to do about it."""
    code = [] if command is None else [html.Pre(command)]
    return html.Div([html.H2(title), html.P(sentence), *code], className="state")


def failure(sentence: str) -> html.Div:
    """An error of the service, in its own words."""
    return html.Div([html.Strong("This did not work. "), sentence], className="state error", role="alert")


def empty_atlas(notice: str | None = None) -> html.Div:
    """No run at all; notice: why there may never be one, if the service knows."""
    if notice is not None:
        return empty("No neurons", notice)
    return empty(
        "No neurons yet",
        "The atlas is empty: the first run is loading its model, or none was started. This page fills by itself as "
        "soon as there is something to show. To start a run:",
        "calibroscope precompute --model smollm2-135m",
    )


def missing_run_notice(asked: str, shown: RunSummary) -> html.P:
    """An address may ask for a run that is no longer there; what is shown instead must not pass for it."""
    sentence = f"The address asks for run {asked[:20]}, which this model does not have: this is run {shown.id}."
    return html.P(sentence, className="state error", role="status")
