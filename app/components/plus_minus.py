"""What ± means on a page: said in words where it first stands."""

from dash import dcc, html
from dash.development.base_component import Component

from app import links
from backend.glossary import anchor
from backend.schemas import InductionStart, RunSummary

_TERM = "standard error"
_INDEPENDENT = (
    "± is one standard error, taken as if the tokens of a sequence were independent. They are not: the true errors are "
    "larger, often several times. Analyse the model anew for errors over whole sequences."
)
_ONE_SEQUENCE = "There is no ±: the run has one sequence, and nothing tells how far another one would lie."
_ONE_TEXT = "There is no ±: all repeats are in one text, and nothing tells how far another one would lie."


def nothing_yet(run: RunSummary) -> bool:
    """Whether a run has not yet come to what has an error."""
    return run.error_groups is None and run.stage in ("queued", "weights", "activations")


def of_run(run: RunSummary) -> str | None:
    """What the errors of a run's metrics are; None while there are none yet."""
    if run.error_groups is None:
        return None if nothing_yet(run) else _INDEPENDENT
    if run.error_groups < 2:
        return _ONE_SEQUENCE
    return f"± is one standard error, taken over {run.error_groups} groups of whole sequences."


def of_induction(start: InductionStart) -> str:
    """What the errors of the induction lab's means are."""
    if start.error_groups is None:
        return "± and shades are one standard error, taken as if all repeats were independent."
    if start.error_groups < 2:
        return _ONE_TEXT
    return f"± and shades are one standard error, taken over {start.error_groups} groups of whole texts."


def note(sentence: str) -> Component:
    """The sentence as a quiet line, with the way to the glossary's."""
    more = dcc.Link("What that is", href=links.glossary(anchor(_TERM)))
    return html.P([f"{sentence} ", more, "."], className="quiet plus-minus")
