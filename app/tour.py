"""The tour for first-time users: its words and what they point at; `static/shell_tour.js` walks through them."""

import json
from dataclasses import asdict, dataclass

from dash import html

from app.components.layout import dataset


@dataclass(frozen=True)
class TourStep:
    """One stop: a page, an element on it, and what to say."""

    path: str
    target: str
    """A CSS selector."""
    title: str
    text: str


STEPS = (
    TourStep(
        "/",
        "#atlas-graph",
        "Every point is a neuron",
        "All neurons of a layer, mostly the model's last. Vermilion ones are entropy neurons: they hardly touch any "
        "logit, and still change how sure the model is, through the final norm. A model can have none; the lines below "
        "the figure say how many this one has, and whether their weights are heavy as in the paper. Click a point to "
        "see why.",
    ),
    TourStep(
        "/",
        ".presets",
        "The figures of the paper",
        "Each button sets the axes of one of its figures and says what to look for. Any two metrics do as well.",
    ),
    TourStep(
        "/",
        "#atlas-table",
        "The same neurons in a table",
        "Sort and filter by any metric. A neuron's page shows its total effect against its direct one: what only the "
        "total shows went through the final norm.",
    ),
    TourStep(
        "/lab",
        "#lab-text",
        "Your own words",
        "Paste a text or pick an example, then Analyse: loss, entropy and rank of every token.",
    ),
    TourStep(
        "/lab",
        "#lab-neuron",
        "Take a neuron away",
        "Add a neuron by its name and watch losses, entropies and predictions move, in total and with the norm held. "
        "Click a token to see who matters there. The glossary has every word.",
    ),
)


def button() -> html.Button:
    """Starts the tour; carries its words to the browser."""
    steps = json.dumps([asdict(step) for step in STEPS])
    return html.Button("Tour", id="tour-start", className="plain", type="button", **dataset(steps=steps))
