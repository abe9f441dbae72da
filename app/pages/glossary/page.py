"""`/glossary`: every word and metric of the instrument, with its formula."""

from dash import Dash, html, register_page
from dash.development.base_component import Component

from app.components.layout import panel
from backend.client import Sender
from backend.glossary import FORMULAS, METRICS, PAPER, TERMS, Metric, Stage, anchor

_STAGES: dict[Stage, str] = {
    "weights": "Weights",
    "activations": "Activations",
    "effects": "Effects of ablating",
    "induction": "On repeated text",
}


def register(_: Dash, __: Sender) -> None:
    """The page; it asks nobody."""
    register_page("glossary", path="/glossary", title="Glossary · Calibroscope", layout=layout, menu="Glossary")


def layout(**_: str) -> Component:
    """Terms first, then the metrics by stage."""
    terms = html.Dl(
        [part for word, meaning in TERMS.items() for part in (html.Dt(word, id=anchor(word)), html.Dd(meaning))]
    )
    metrics = [
        panel(title, html.Dl([part for m in METRICS if m.stage == stage for part in _entry(m)]))
        for stage, title in _STAGES.items()
    ]
    paper = html.A("arXiv 2406.16254", href=PAPER, target="_blank", rel="noopener noreferrer")
    source = html.P(
        [
            "Equations, sections and figures are those of “Confidence Regulation Neurons in Language Models”, ",
            paper,
            ".",
        ],
        className="sentences",
    )
    return html.Div([html.H1("Glossary"), source, panel("Words", terms), *metrics], className="glossary")


def _entry(metric: Metric) -> list[Component]:
    """A metric's anchor is its name: `/glossary#total_effect`."""
    formula = FORMULAS.get(metric.name)
    where = f" {metric.equation}" if metric.equation else ""
    unit = f", in {metric.unit}" if metric.unit else ""
    described: list[Component | str] = [metric.sentence]
    if formula is not None:
        described.append(html.Div(formula, className="formula"))
    return [
        html.Dt([metric.label, html.Span(f" {metric.name}{unit}{where}", className="quiet mono")], id=metric.name),
        html.Dd(described),
    ]
