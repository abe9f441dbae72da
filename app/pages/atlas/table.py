"""The atlas' table: every metric a column, filtered by what is picked in the figure."""

from collections.abc import Sequence
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
import numpy as np
from dash import html
from dash.development.base_component import Component

from app.components.layout import aria
from backend.glossary import CLASS_LABELS, METRIC, METRICS, PAPER_CRITERION, PAPER_CRITERION_LABEL, TERMS
from backend.schemas import NeuronColumns

TABLE, CHOOSER, EXPORT, COUNT, ABOUT = "atlas-table", "atlas-columns", "atlas-export", "atlas-count", "atlas-about"
ERRORS = "atlas-errors"
PIN_TICKED, CLEAR, PICKED_BAR = "atlas-pin-ticked", "atlas-clear", "atlas-picked-bar"
DEFAULT_METRICS = (
    "total_effect", "direct_effect_ln", "ln_mediated", "null_fraction", "logit_var", "weight_norm", "delta_entropy",
    "abs_delta_entropy", "delta_loss", "prediction_change", "mean_activation",
)  # fmt: skip
_THEME = (
    "themeQuartz.withParams({backgroundColor: 'var(--paper)', foregroundColor: 'var(--ink)', "
    "headerBackgroundColor: 'var(--panel)', borderColor: 'var(--line)', browserColorScheme: 'inherit', "
    "fontFamily: 'inherit', fontSize: 13, spacing: 5, wrapperBorderRadius: 4})"
)
_OPTIONS: dict[str, Any] = {
    "theme": {"function": _THEME},
    "tooltipShowDelay": 300,
    "animateRows": False,
    "rowSelection": {"mode": "multiRow", "checkboxes": True, "headerCheckbox": True, "enableClickSelection": False,
                     "selectAll": "filtered"},
    "isExternalFilterPresent": {"function": "calibroscopeAtlasFilters()"},
    "doesExternalFilterPass": {"function": "calibroscopeAtlasPasses(params)"},
}  # fmt: skip
_LISTENERS = {
    "cellMouseOver": ["calibroscopeAtlasPoint(params)"],
    "cellMouseOut": ["calibroscopeAtlasUnpoint(params)"],
    "cellFocused": ["calibroscopeAtlasFocus(params)"],
    "cellKeyDown": ["calibroscopeAtlasKey(params)"],
    "modelUpdated": ["calibroscopeAtlasCount(params)"],
}


def column_definitions(sort: str, shown: Sequence[str] = DEFAULT_METRICS) -> list[dict[str, Any]]:
    """Columns of the grid; `sort` is a metric, `-` first for descending, or empty. `shown`: metrics not hidden."""
    columns: list[dict[str, Any]] = [
        {"field": "neuron", "headerName": "Neuron", "pinned": "left", "width": 92, "sortable": False,
         "cellClass": "leads"},
        {"colId": "pin", "headerName": "Pin", "width": 56, "sortable": False, "cellClass": "leads",
         "valueGetter": {"function": "calibroscopeAtlasPin(params.data.neuron)"}},
        {"field": "class", "headerName": "Class", "width": 170, "filter": True},
        {"field": PAPER_CRITERION, "headerName": PAPER_CRITERION_LABEL, "headerTooltip": TERMS["paper's criterion"],
         "width": 165, "filter": True},
    ]  # fmt: skip
    leading = len(columns)
    formatter = {"function": "calibroscopeAtlasNumber(params)"}
    for metric in METRICS:
        column = {
            "field": metric.name, "headerName": metric.label, "headerTooltip": metric.sentence, "width": 150,
            "filter": "agNumberColumnFilter", "valueFormatter": formatter, "type": "rightAligned",
            "hide": metric.name not in shown,
        }  # fmt: skip
        if sort.removeprefix("-") == metric.name:
            column |= {"sort": "desc" if sort.startswith("-") else "asc", "hide": False}
        columns.append(column)
        if metric.has_se:  # never shown beside the others: the switch writes it into the metric's own cell
            columns.append(
                {"field": f"{metric.name}_se", "headerName": f"{metric.label}, standard error", "hide": True}
            )
    order = {name: place for place, name in enumerate(dict.fromkeys((*shown, *DEFAULT_METRICS)))}
    return columns[:leading] + sorted(columns[leading:], key=lambda column: order.get(column["field"], len(order)))


def section(sort: str, chosen: Sequence[str] | None = None, *, errors: bool = False) -> Component:
    """The table with its tools; `chosen` are the metrics it shows, None for the usual ones; `errors`:
    whether it writes them beside the values."""
    columns = column_definitions(sort, DEFAULT_METRICS if chosen is None else chosen)
    shown = [column["field"] for column in columns if column.get("field") in METRIC and not column["hide"]]
    return html.Section(
        [
            html.Div(
                [
                    html.H2("Neurons"),
                    html.Span(id=COUNT, className="quiet", role="status"),
                    html.Span(className="grow"),
                    dmc.Button("Pin ticked", id=PIN_TICKED, variant="default", size="compact-sm"),
                    _errors_switch(errors),
                    _chooser(shown),
                    dmc.Button("Export as CSV", id=EXPORT, variant="default", size="compact-sm"),
                    html.A("About this run, as JSON", id=ABOUT, href="", title="What the CSV's numbers are of"),
                ],
                className="tool-row",
            ),
            dag.AgGrid(
                id=TABLE, columnDefs=columns, rowData=[], getRowId="params.data.neuron", className="grid",
                defaultColDef={"sortable": True, "resizable": True},
                dashGridOptions=_OPTIONS, eventListeners=_LISTENERS, dangerously_allow_code=False,
            ),
        ],
        **aria(label="Table of neurons"),
    )  # fmt: skip


def _errors_switch(checked: bool) -> Component:
    switch = dmc.Switch(id=ERRORS, label="± errors", checked=checked, size="xs")
    explained: Component = dmc.Tooltip(
        html.Span(switch), label=TERMS["standard error"], multiline=True, w=320, withArrow=True,
        events={"hover": True, "focus": True, "touch": True},
    )  # fmt: skip
    return explained


def _chooser(shown: list[str]) -> Component:
    boxes = [dmc.Checkbox(label=metric.label, value=metric.name, size="xs", mb=4) for metric in METRICS]
    popover: Component = dmc.Popover(
        [
            dmc.PopoverTarget(
                dmc.Button("Columns", variant="default", size="compact-sm", **aria(haspopup="dialog"))
            ),
            dmc.PopoverDropdown(
                dmc.CheckboxGroup(boxes, id=CHOOSER, value=shown, label="Columns of the table"),
                className="chooser",
            ),
        ],
        # With roles, the box around the button would say that it opens, which a plain box may not.
        position="bottom-end", withArrow=True, trapFocus=True, keepMounted=True, withRoles=False,
    )  # fmt: skip
    return popover


def columns_data(data: NeuronColumns, limits: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A run's columns, from which the browser draws the figure and fills the table, to seven digits.

    Args:
        limits: the lines that a figure has at a metric.
    """
    return {
        "neuron": data.neuron,
        "class": list(data.neuron_class),
        "labels": dict(CLASS_LABELS),
        "paper": list(data.paper_criterion),
        "limits": limits,
        "columns": {name: np.array(column, dtype=np.float32) for name, column in data.columns.items()},
    }
