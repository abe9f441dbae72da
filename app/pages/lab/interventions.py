"""The interventions of the Text lab: read from an address, added, edited, and shown as rows with their controls."""

import math
from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html, no_update

from app.components.layout import aria
from app.notation.units import is_neuron, is_unit, refusal
from app.pages.lab import ids
from backend.glossary import INTERVENTIONS, LARGEST_INTERVENTION_VALUE
from backend.schemas import MAX_INTERVENTIONS, ModelSummary

_STARTING_VALUE = {row.kind: row.starting_value for row in INTERVENTIONS if row.starting_value is not None}

Rows = list[dict[str, Any]]


def read_interventions(written: str) -> Rows:
    """Interventions from an address, `29.830:mean,29.1022:scale:2`; what cannot be read is left out."""
    rows: Rows = []
    for part in written.split(",")[:MAX_INTERVENTIONS]:
        name, _, rest = part.partition(":")
        kind, _, value = rest.partition(":")
        kind = kind or "mean"
        if is_unit(name) and kind in _kinds(name) and all(row["neuron"] != name for row in rows):
            rows.append({"neuron": name, "kind": kind, "value": _read_value(kind, value)})
    return rows


def _kinds(name: str) -> dict[str, str]:
    """What can be done to a neuron, or to a head."""
    labels = {row.kind: row.on_neurons if is_neuron(name) else row.on_heads for row in INTERVENTIONS}
    return {kind: label for kind, label in labels.items() if label is not None}


def _read_value(kind: str, written: str) -> float | None:
    if kind not in _STARTING_VALUE:
        return None
    try:
        value = float(written)
    except ValueError:
        return _STARTING_VALUE[kind]
    return value if abs(value) <= LARGEST_INTERVENTION_VALUE else _STARTING_VALUE[kind]


def added(chosen: Rows, typed: str | None, model: ModelSummary | None = None) -> tuple[Any, str | None]:
    """The interventions with one more, and what is wrong with the name if it cannot be added.

    Args:
        model: whose unit it must be; None where that is not known.
    """
    name = (typed or "").strip()
    if not is_unit(name):
        return no_update, "Write layer.index, as in 29.830, or a head, as in L5H1."
    if any(row["neuron"] == name for row in chosen):
        return no_update, f"{name} is in the list already."
    if len(chosen) >= MAX_INTERVENTIONS:
        return no_update, f"At most {MAX_INTERVENTIONS} interventions at once."
    missing = None if model is None else refusal(name, model.n_layers, model.d_mlp, model.experts)
    if missing is not None:
        return no_update, missing
    return [*chosen, {"neuron": name, "kind": "mean", "value": None}], None


def edited(chosen: Rows, places: list[dict[str, str]], kinds: list[str], values: list[float | None]) -> Rows:
    """The interventions as their controls stand; a kind that needs a number starts with a sensible one."""
    controls = {place["neuron"]: (kind, value) for place, kind, value in zip(places, kinds, values, strict=False)}
    rows = []
    for row in chosen:
        kind, value = controls.get(row["neuron"], (row["kind"], row["value"]))
        if kind not in _STARTING_VALUE:
            value = None
        elif kind != row["kind"] or not isinstance(value, int | float):
            value = _STARTING_VALUE[kind]
        else:
            value = min(LARGEST_INTERVENTION_VALUE, max(-LARGEST_INTERVENTION_VALUE, value))
        rows.append({"neuron": row["neuron"], "kind": kind, "value": value})
    return rows


def intervention_row(row: dict[str, Any], activations: Sequence[float] = ()) -> html.Div:
    """One intervention: the unit, what happens to it, how strongly, and how to take it out again.

    Args:
        activations: the unit's on this text, which tell how far a slider for a set value must reach.
    """
    name, kind, value = row["neuron"], row["kind"], row["value"]
    place = {"neuron": name}
    options = [{"value": option, "label": label} for option, label in _kinds(name).items()]
    number_input = dmc.NumberInput(
        id={"type": ids.VALUE, **place}, value=value if value is not None else "",
        step=0.5, size="xs", w=68, debounce=300, min=-LARGEST_INTERVENTION_VALUE, max=LARGEST_INTERVENTION_VALUE,
        **aria(label=f"Number for {name}"),
        style={} if kind in _STARTING_VALUE else {"display": "none"},
    )  # fmt: skip
    controls = html.Div(
        [
            html.Strong(name, className="mono"),
            dmc.Select(
                id={"type": ids.KIND, **place}, value=kind, data=options, size="xs", allowDeselect=False,
                className="grow", **aria(label=f"What happens to {name}"),
            ),
            dmc.ActionIcon("×", id={"type": ids.REMOVE, **place}, variant="subtle", size="sm",
                           **aria(label=f"Remove {name}")),
        ],
        className="intervention",
    )  # fmt: skip
    slider = [] if value is None else [_slider(name, kind, float(value), activations)]
    strength = html.Div([*slider, number_input], className="strength")
    return html.Div([controls, strength])


def _slider(name: str, kind: str, value: float, activations: Sequence[float]) -> dmc.Slider:
    low, high, step = slider_range(kind, value, activations)
    marks = [{"value": 0}, {"value": 1}] if kind == "scale" else [{"value": 0}]
    return dmc.Slider(
        id={"type": ids.SLIDER, "neuron": name}, value=value, min=low, max=high, step=step, marks=marks,
        size="sm", updatemode="drag", className="intervention-slider",
        thumbLabel=f"{_kinds(name)[kind]}, {name}",
    )  # fmt: skip


def slider_range(kind: str, value: float, activations: Sequence[float]) -> tuple[float, float, float]:
    """Lowest and highest value and step of a slider: wide enough for the unit's activations and for what is set."""
    if kind == "scale":
        low, high, step = -2.0, 5.0, 0.1
    else:
        reach = float(max(10, 5 * math.ceil(1.5 * max(map(abs, activations), default=0) / 5)))
        low, high, step = -reach, reach, reach / 100
    return min(low, math.floor(value)), max(high, math.ceil(value)), step
