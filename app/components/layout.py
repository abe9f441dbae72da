"""What a page is laid out of: its frame, titled panels, tables that scroll, and figures."""

from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from app.figures.theme import GRAPH_CONFIG


def panel(title: str, *children: Component | str, note: str | None = None) -> html.Section:
    """A titled part of a page."""
    quiet = [] if note is None else [html.P(note, className="quiet")]
    return html.Section([html.H2(title), *quiet, *children], className="panel")


def fetched_page(title: str, controls: Component, body: str, *above: Component) -> html.Div:
    """A page of controls, and of one part with the id `body` that a callback fills.

    Args:
        above: its stores and intervals, and the cards of the runs that it shows.
    """
    main = dcc.Loading(html.Div(id=body, className="page-main"), delay_show=400)
    columns = html.Div([controls, main], className="columns")
    return html.Div([html.H1(title, className="visually-hidden"), *above, columns])


def aria(**attributes: str) -> dict[str, Any]:
    """`aria-` attributes of a component, as keywords: `html.Nav(menu, **aria(label="Pages"))`."""
    return {f"aria-{name}": value for name, value in attributes.items()}


def dataset(**attributes: str) -> dict[str, Any]:
    """`data-` attributes of a component, for scripts: `dataset(cancel_job="3")` is what they read as `cancelJob`."""
    return {f"data-{name.replace('_', '-')}": value for name, value in attributes.items()}


def scrolled(table: html.Table, label: str) -> html.Div:
    """A table that may be wider than the page; keys scroll it, so it has a name."""
    return html.Div(table, className="scrolled", tabIndex=0, role="region", **aria(label=label))


def graph(figure: Any, *, buttons: Sequence[Sequence[str]] | None = None, **options: Any) -> dcc.Graph:
    """A figure in the house configuration; as tall as its layout says, else as its class does.

    Args:
        buttons: of its toolbar, by group, in place of the usual ones.
    """
    if figure.layout.height is not None:
        options.setdefault("style", {"height": figure.layout.height})
    config: Any = GRAPH_CONFIG if buttons is None else {**GRAPH_CONFIG, "modeBarButtons": buttons}
    return dcc.Graph(figure=figure, config=config, **options)
