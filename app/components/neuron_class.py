"""A neuron's class as a chip."""

from dash import html

from app.figures.theme import CLASS_COLOURS
from backend.glossary import CLASS_LABELS, TERMS, NeuronClass


def class_chip(neuron_class: NeuronClass) -> html.Span:
    """A neuron's class, in its colour."""
    dot = html.Span(className="dot", style={"backgroundColor": CLASS_COLOURS[neuron_class]})
    label = CLASS_LABELS[neuron_class]
    return html.Span([dot, label], className="chip", title=TERMS[label.lower()])
