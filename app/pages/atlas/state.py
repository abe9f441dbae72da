"""What an atlas address asks for: model, run, view, hidden classes, picked neurons, a token, the table's columns."""

import re
from dataclasses import dataclass

from app.figures.presets import PRESET, PRESETS
from app.figures.scales import SCALES, Scale
from app.figures.scatter import View
from app.notation.units import is_neuron
from backend.glossary import CLASS_LABELS, METRIC, PAPER_CRITERION

START = PRESETS[1]
"""Weight metrics are there within seconds of a run's start; the other presets wait for effects."""
MOST_PICKED = 50
"""More neurons are not written into the address; static/page_atlas_address.js knows the number too."""
_TOKEN = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True)
class AtlasAddress:
    """The state of the page that an address stands for; what cannot be read falls back to the start."""

    model: str | None
    run: str | None
    view: View
    preset: str | None
    shown: list[str]
    """Classes that are not hidden."""
    picked: list[str]
    """Selected neurons."""
    sort: str
    """A metric, `-` first for descending; empty for none."""
    columns: list[str] | None
    """Metrics that the table shows; None for the usual ones."""
    errors: bool
    """Whether the table writes errors beside its values."""
    token: int | None
    """The token whose promoters are asked for."""


def read(**address: str | None) -> AtlasAddress:
    """From an address's parameters."""
    named = PRESET.get(address.get("preset") or "")
    view = _view(address) or (named.view if named is not None else START.view)
    if named is not None and (named.view.x, named.view.y) != (view.x, view.y):
        named = None
    hidden = (address.get("hide") or "").split(",")
    picked = [name for name in (address.get("pick") or "").split(",") if is_neuron(name)]
    sort = address.get("sort") or "-total_effect"
    columns = [name for name in (address.get("columns") or "").split(",") if name in METRIC]
    token = address.get("token") or ""
    return AtlasAddress(
        model=address.get("model"),
        run=address.get("run"),
        view=view,
        preset=named.name if named is not None else None,
        shown=[name for name in CLASS_LABELS if name not in hidden],
        picked=list(dict.fromkeys(picked))[:MOST_PICKED],
        sort=sort if sort.removeprefix("-") in METRIC else "",
        columns=list(dict.fromkeys(columns)) or None,
        errors=address.get("errors") == "on",
        token=int(token) if _TOKEN.fullmatch(token) else None,
    )


def _view(address: dict[str, str | None]) -> View | None:
    x, y, colour, size = (address.get(name) or "" for name in ("x", "y", "colour", "size"))
    if x not in METRIC or y not in METRIC:
        return None
    colour = colour if colour in METRIC or colour == PAPER_CRITERION else "class"
    size = size if size in METRIC else ""
    return View(x, y, colour, _scale(address, "x"), _scale(address, "y"), size)


def _scale(address: dict[str, str | None], axis: str) -> Scale:
    """`xscale=signed`; links of older versions name the logarithmic axes: `logs=xy`."""
    asked = address.get(f"{axis}scale") or ("log" if axis in (address.get("logs") or "") else "linear")
    return next((scale for scale in SCALES if scale == asked), "linear")
