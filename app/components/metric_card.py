"""One metric of a neuron as a card, with its definition."""

import dash_mantine_components as dmc
from dash import html

from app.notation.numbers import number
from backend.glossary import FORMULAS, METRIC


def metric_card(name: str, value: float | None, error: float | None, percentile: float | None) -> html.Div:
    """One metric with its error, its place among the run's neurons, and its definition a hover away."""
    metric = METRIC[name]
    definition = explained(name)
    place = [] if percentile is None else [_percentile_bar(percentile)]
    label = dmc.Tooltip(
        html.Span(metric.label, className="card-label", tabIndex=0),
        label=definition,
        multiline=True,
        w=300,
        withArrow=True,
        events={"hover": True, "focus": True, "touch": True},
    )
    return html.Div(
        [label, html.Div(number(value, metric.unit, error), className="card-value"), *place], className="card"
    )


def explained(name: str) -> str:
    """A metric in a sentence, with its formula and its place in the paper."""
    metric, formula = METRIC[name], FORMULAS.get(name)
    parts = [
        metric.sentence,
        *([f"{formula}."] if formula else []),
        *([f"({metric.equation})"] if metric.equation else []),
    ]
    return " ".join(parts)


def _percentile_bar(percentile: float) -> html.Div:
    bar = html.Div(className="percentile-fill", style={"width": f"{percentile:.1f}%"})
    return html.Div(
        [html.Div(bar, className="percentile"), html.Span(f"percentile {percentile:.1f}", className="quiet")],
        className="percentile-row",
    )
