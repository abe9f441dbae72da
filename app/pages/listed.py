"""The pages that there are; those with a `menu` are linked in the header, in this order.

A page is a folder here whose `page` has `register`: it registers its layout and title with Dash, and its callbacks. Its
scripts and stylesheets are found in static/ by themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from dash import Dash, page_registry

from app.pages.atlas import page as atlas
from app.pages.compare import page as compare
from app.pages.frequency import page as frequency
from app.pages.glossary import page as glossary
from app.pages.induction import page as induction
from app.pages.jobs import page as jobs
from app.pages.lab import page as lab
from app.pages.missing import page as missing
from app.pages.neuron import page as neuron
from app.pages.runs import page as runs
from app.pages.spectrum import page as spectrum
from app.pages.training import page as training
from backend.client import Sender


class PageModule(Protocol):
    """What the dashboard needs of a page."""

    def register(self, app: Dash, client: Sender, /) -> None:
        """Register the page with Dash, with its callbacks."""


PAGES: Mapping[str, PageModule] = {
    "atlas": atlas,
    "neuron": neuron,
    "lab": lab,
    "induction": induction,
    "jobs": jobs,
    "runs": runs,
    "compare": compare,
    "frequency": frequency,
    "spectrum": spectrum,
    "training": training,
    "glossary": glossary,
    "not_found_404": missing,
}
"""By the name under which Dash knows each."""


def menu() -> Iterator[tuple[str, str]]:
    """The words and the address of each link in the header."""
    registered: Mapping[str, Mapping[str, Any]] = page_registry
    for name in PAGES:
        if words := registered[name].get("menu"):
            yield words, registered[name]["path"]
