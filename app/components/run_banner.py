"""How far a run is."""

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from app import links
from app.notation.numbers import bound, number
from backend.schemas import RunSummary


def run_banner(run: RunSummary) -> html.Div:
    """How far a run is, in words and as a bar."""
    words = {
        "running": f"Measuring {run.stage}: {run.tokens_counted:,} of {run.tokens_total:,} tokens",
        "finished": f"Finished: {run.tokens_counted:,} tokens",
        "failed": f"Failed: {run.message}",
        "interrupted": "Interrupted. Run the same command again to resume it.",
    }[run.status]
    parts: list[Component] = [html.Div(words, className="quiet", role="status")]
    if run.status == "running":
        parts.append(dmc.Progress(value=100 * run.progress, size="sm", striped=True, animated=True))
    if run.mean_loss is not None:
        means = f"mean loss {number(run.mean_loss, 'nats')}, entropy {number(run.mean_entropy, 'nats')}"
        parts.append(html.Div(means, className="quiet"))
    if isinstance(source := run.config.get("frequency_source"), str):
        link = dcc.Link("Token frequencies", href=links.frequency(run.model, run.id))
        parts.append(html.Div([link, f": {source}"], className="quiet"))
    if run.mode == "survey":
        within = bound(run.tolerance_nats, "nats")
        survey = f"A survey: each token's change of loss and entropy is within {within} of exact."
        parts.append(html.Div(survey, className="quiet"))
    return html.Div(parts, className="banner")
