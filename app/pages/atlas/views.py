"""The parts of the atlas page: its controls, its figure with tools, and what it says while there is nothing to see."""

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from app.components.layout import aria, graph
from app.components.states import empty
from app.figures.presets import PRESET as PRESETS_BY_NAME
from app.figures.presets import PRESETS, FigurePreset, preset_of
from app.figures.scales import SCALES, Scale
from app.figures.scatter import View
from app.figures.theme import CLASS_COLOURS, MOVING_BUTTONS, blank
from app.pages.atlas.classes import CLASSES
from app.pages.atlas.state import AtlasAddress
from app.pages.atlas.table import CLEAR, PICKED_BAR
from backend.glossary import (
    CLASS_LABELS,
    FREQUENCY_METRICS,
    METRIC,
    METRICS,
    PAPER_CRITERION,
    PAPER_CRITERION_LABEL,
    ROUTING_METRICS,
    TERMS,
)
from backend.schemas import NeuronColumns, RunSummary

MODEL, RUN, BANNER, JUMP = "atlas-model", "atlas-run", "atlas-banner", "atlas-jump"
X, Y, COLOUR, SIZE, PRESET = "atlas-x", "atlas-y", "atlas-colour", "atlas-size", "atlas-preset"
X_SCALE, Y_SCALE, UNDRAWN = "atlas-xscale", "atlas-yscale", "atlas-undrawn"
GRAPH, NOTE, SENTENCES, MAIN, STATE = "atlas-graph", "atlas-note", "atlas-sentences", "atlas-main", "atlas-state"
SHOWN, DRAG, SAVE, PYTHON = "atlas-shown", "atlas-drag", "atlas-save", "atlas-python"
PYTHON_TEXT, PYTHON_MODAL = "atlas-python-text", "atlas-python-modal"
_DRAGS = (("pan", "Move"), ("zoom", "Zoom"), ("select", "Box"), ("lasso", "Lasso"))


def controls(asked: AtlasAddress, search: Component) -> Component:
    """The column at the left: what is shown."""
    axes = [{"value": metric.name, "label": metric.label} for metric in METRICS]
    colours = [{"value": "class", "label": "Class"}, {"value": PAPER_CRITERION, "label": PAPER_CRITERION_LABEL}, *axes]
    model, run, view = asked.model, asked.run, asked.view
    return html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=RUN, label="Run", value=run, data=[run] if run else [], allowDeselect=False),
            html.Div(id=BANNER),
            dmc.TextInput(id=JUMP, label="Go to a neuron", placeholder="layer.index", debounce=True),
            html.H2("Figures of the paper"),
            html.Div([_preset_button(preset) for preset in PRESETS], className="presets"),
            html.H2("Axes"),
            dmc.Select(id=X, label="Across", value=view.x, data=axes, allowDeselect=False, searchable=True),
            _scale(X_SCALE, view.x_scale, "Scale across"),
            dmc.Select(id=Y, label="Up", value=view.y, data=axes, allowDeselect=False, searchable=True),
            _scale(Y_SCALE, view.y_scale, "Scale up"),
            dmc.Select(id=COLOUR, label="Colour", value=view.colour, data=colours, allowDeselect=False),
            dmc.Select(id=SIZE, label="Size", value=view.size or None, data=axes, clearable=True,
                       placeholder="All one size"),
            search,
        ],
        className="controls", **aria(label="What is shown"),
    )  # fmt: skip


def _scale(name: str, chosen: Scale, label: str) -> Component:
    data = [{"value": scale, "label": words} for scale, words in SCALES.items()]
    scale: Component = dmc.SegmentedControl(
        id=name, data=data, value=chosen, size="xs", fullWidth=True, **aria(label=label)
    )
    return scale


def _preset_button(preset: FigurePreset) -> Component:
    button = dmc.Button(
        preset.label, id={"type": PRESET, "name": preset.name}, variant="default", size="compact-sm",
    )  # fmt: skip
    explained: Component = dmc.Tooltip(button, label=preset.subject, withArrow=True)
    return explained


def figure_tools(asked: AtlasAddress) -> Component:
    """Above the figure: which classes, what dragging does, and how to take the figure away."""
    chips = [
        dmc.Chip([html.Span(className="dot", style={"backgroundColor": CLASS_COLOURS[name]}),
                  html.Span(f" {label}s", title=TERMS[label.lower()])],
                 value=name, size="xs", variant="outline")
        for name, label in CLASS_LABELS.items()
    ]  # fmt: skip
    return html.Div(
        [
            html.Div(
                dmc.ChipGroup(chips, id=SHOWN, multiple=True, value=asked.shown),
                className="class-chips", role="group", **aria(label="Classes that are shown"),
            ),
            dmc.SegmentedControl(
                id=DRAG, value="pan", size="xs", data=[{"value": value, "label": label} for value, label in _DRAGS],
                **aria(label="What dragging in the figure does"),
            ),
            html.Div(
                [
                    dmc.Button("PNG", id={"type": SAVE, "format": "png"}, variant="default", size="compact-sm",
                               **aria(label="Save the figure as PNG")),
                    dmc.Button("SVG", id={"type": SAVE, "format": "svg"}, variant="default", size="compact-sm",
                               **aria(label="Save the figure as SVG")),
                    dmc.Button("Copy as Python", id=PYTHON, variant="default", size="compact-sm"),
                ],
                className="take-away",
            ),
        ],
        className="tool-row",
    )  # fmt: skip


def figure_area(asked: AtlasAddress) -> list[Component]:
    """The figure with all that belongs to it."""
    return [
        html.P(id=SENTENCES, className="sentences"),
        figure_tools(asked),
        html.Div(
            [
                html.Span(id=f"{PICKED_BAR}-words"),
                dmc.Button("Clear selection", id=CLEAR, variant="default", size="compact-sm"),
            ],
            id=PICKED_BAR, className="picked-bar", hidden=True, role="status",
        ),
        html.Div(id=NOTE),
        graph(blank(), buttons=[MOVING_BUTTONS], id=GRAPH, className="big-figure"),
        html.Div(id=CLASSES, className="classes", role="status"),
        html.P(id=UNDRAWN, className="quiet", role="status"),
        dmc.Modal(
            [
                html.P("Run it where calibroscope is installed, while the service is up.", className="quiet"),
                html.Div(
                    [html.Pre(id=PYTHON_TEXT, className="code"), dcc.Clipboard(target_id=PYTHON_TEXT, title="Copy")],
                    className="code-box",
                ),
            ],
            id=PYTHON_MODAL, title="This view in Python", size="xl",
        ),
    ]  # fmt: skip


def note(data: NeuronColumns, view: View, run: RunSummary) -> Component | None:
    """Which of the view's metrics the run has no values of, and why; None when all are there."""
    if view.colour == PAPER_CRITERION and all(mark is None for mark in data.paper_criterion):
        return empty("Not marked", f"{PRESETS_BY_NAME['paper-criterion'].missing} A new run marks them.")
    unmeasured = [name for name in view.metrics() if all(value is None for value in data.columns[name])]
    if not unmeasured:
        return None
    names = ", ".join(METRIC[name].label for name in unmeasured)
    if run.experts is None and ROUTING_METRICS.intersection(unmeasured):
        return empty("Not there", f"Only mixtures of experts have: {names}. This model's layers have no experts.")
    if run.status == "running":
        progress = f"{run.tokens_counted:,} of {run.tokens_total:,} tokens so far"
        return empty("Being measured", f"{names}: not measured yet ({progress}). This view fills by itself.")
    if run.status == "finished" and FREQUENCY_METRICS.intersection(unmeasured):
        return empty("Not measured", f"{PRESETS_BY_NAME['figure-3b'].missing} A run with another --seed measures them.")
    if run.status == "finished" and "induction_change" in unmeasured:
        return empty(
            "Not measured",
            f"{PRESETS_BY_NAME['figure-11'].missing} To have it here, for every neuron of this run:",
            f"calibroscope precompute … --induction 20, or on the page Induction “Run as a job” for run {run.id}",
        )
    return empty("Not measured", f"This run is {run.status} and has no values for: {names}. Run it again to resume it.")


def sentences(view: View, preset: FigurePreset | None = None) -> str:
    """What to look for in a view, or what its axes are."""
    shown_preset = preset or preset_of(view)
    if shown_preset is not None:
        return shown_preset.sentences
    return f"{METRIC[view.x].label}: {METRIC[view.x].sentence} {METRIC[view.y].label}: {METRIC[view.y].sentence}"


def loading(run: RunSummary) -> html.Div:
    """A run without neurons."""
    return empty(
        "The run has begun", f"Measuring {run.stage} of {run.model}. The first neurons appear in a few seconds."
    )
