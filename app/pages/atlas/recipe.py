"""A view of the atlas as Python that draws it again, with nothing but the service's client and Plotly."""

from dataclasses import dataclass, field

from app.figures.scatter import UNSCALED, View
from app.figures.theme import CLASS_COLOURS, MARK_COLOUR, axis_title
from backend.glossary import CLASS_LABELS

_TEMPLATE = '''\
"""{title}

{about}
"""

import math

import plotly.graph_objects as go

from backend.client import Client, calls

X, Y, COLOUR, SIZE = {x!r}, {y!r}, {colour!r}, {size!r}
X_SCALE, Y_SCALE = {x_scale!r}, {y_scale!r}  # "linear", "log" or "signed"
COLOURS = {colours}
PICKED = {picked!r}  # empty: all neurons alike

names = [name for name in dict.fromkeys((X, Y, COLOUR, SIZE)) if name not in ("class", "paper_criterion", None)]
with Client({address!r}) as client:
    data = client.send(calls.columns({run}, names))


def usable(row):
    x, y = data.columns[X][row], data.columns[Y][row]
    coloured = COLOUR in ("class", "paper_criterion") or data.columns[COLOUR][row] is not None
    return x is not None and y is not None and coloured and (x > 0 or X_SCALE != "log") and (y > 0 or Y_SCALE != "log")


def scaled(values, scale):  # signed log: linear within ±t, logarithmic beyond; t is taken from the data
    if scale != "signed":
        return values, {{"type": scale}}
    sizes = sorted(abs(value) for value in values if value)
    t = 10.0 ** math.floor(math.log10(sizes[int(0.1 * (len(sizes) - 1))])) if sizes else 1.0
    powers = [t * 10**power for power in range(20) if t * 10**power <= max(sizes, default=0)]
    ticks = [-power for power in reversed(powers) if min(values, default=0) <= -power] + [0]
    ticks += [power for power in powers if power <= max(values, default=0)]

    def place(value):
        return math.copysign(math.log10(1 + abs(value) / t), value)

    axis = {{"tickvals": [place(tick) for tick in ticks], "ticktext": [f"{{tick:.0e}}" for tick in ticks]}}
    return [place(value) for value in values], axis


def ends(values):  # the 1st and 99th percentile: a few extremes would leave all others one colour or size
    ordered = sorted(values)
    last = len(ordered) - 1
    return (ordered[int(0.01 * last)], ordered[int(0.99 * last)]) if ordered else (0, 1)


figure = go.Figure()
every = [row for row in range(len(data.neuron)) if usable(row)]
xs, x_axis = scaled([data.columns[X][row] for row in every], X_SCALE)
ys, y_axis = scaled([data.columns[Y][row] for row in every], Y_SCALE)
place = dict(zip(every, zip(xs, ys)))
most = ends(abs(data.columns[SIZE][row] or 0) for row in every)[1] if SIZE else 0
for name, (label, colour) in COLOURS.items():
    rows = [row for row in range(len(data.neuron)) if data.neuron_class[row] == name and usable(row)]
    marker = {{"size": 7, "color": colour}}
    if COLOUR == "paper_criterion":
        marker |= {{"color": [{mark!r} if data.paper_criterion[row] else {plain!r} for row in rows]}}
    elif COLOUR != "class":
        marker |= {{"color": [data.columns[COLOUR][row] for row in rows], "coloraxis": "coloraxis"}}
    if SIZE:
        marker["size"] = [3 + 17 * min(1, abs(data.columns[SIZE][row] or 0) / (most or 1)) ** 0.5 for row in rows]
    if PICKED:
        marker["opacity"] = [1.0 if data.neuron[row] in PICKED else 0.12 for row in rows]
    figure.add_trace(
        go.Scattergl(
            x=[place[row][0] for row in rows],
            y=[place[row][1] for row in rows],
            text=[data.neuron[row] for row in rows],
            mode="markers",
            marker=marker,
            name=label,
        )
    )
figure.update_xaxes(title={x_title!r}, **x_axis)
figure.update_yaxes(title={y_title!r}, **y_axis)
figure.update_layout(template="plotly_white", coloraxis={{"colorscale": "Cividis", "colorbar": {{"title": {bar!r}}}}})
if COLOUR not in ("class", "paper_criterion"):  # the legend goes above, out of the colour bar's way
    low, high = ends(data.columns[COLOUR][row] for row in every)
    figure.update_layout(legend={{"orientation": "h", "y": 1.08}}, coloraxis={{"cmin": low, "cmax": high}})

if __name__ == "__main__":
    left = len(data.neuron) - len(every)
    print(f"{{left}} of {{len(data.neuron)}} are not drawn: they have no value, or none above 0 on a log axis.")
    figure.show()
'''


@dataclass(frozen=True)
class Scene:
    """All that decides what is drawn."""

    model: str
    run: int
    view: View
    shown: list[str]
    """Classes that are not hidden."""
    picked: list[str] = field(default_factory=list)
    measured: str = ""
    """What the run measured, in a line."""


def recipe(scene: Scene, address: str) -> str:
    """Python that fetches a view's numbers from the service at `address` and draws it as `figure`."""
    view = scene.view
    colours = {name: (f"{label}s", CLASS_COLOURS[name]) for name, label in CLASS_LABELS.items() if name in scene.shown}
    lines = "".join(f"    {name!r}: {pair!r},\n" for name, pair in colours.items())
    return _TEMPLATE.format(
        title=_plain(f"{scene.model}, run {scene.run}: {axis_title(view.y)} by {axis_title(view.x)}."),
        about=_plain(f"{scene.measured}\nThe run's card: {address}/api/v1/runs/{int(scene.run)}".strip()),
        x=view.x, y=view.y, colour=view.colour, size=view.size or None, run=int(scene.run),
        colours="{\n" + lines + "}" if lines else "{}", picked=list(scene.picked), address=address,
        x_scale=view.x_scale, y_scale=view.y_scale, x_title=axis_title(view.x), y_title=axis_title(view.y),
        bar="" if view.colour in UNSCALED else axis_title(view.colour), mark=MARK_COLOUR, plain=CLASS_COLOURS["plain"],
    )  # fmt: skip


def _plain(words: str) -> str:
    """Words that can stand between triple quotes: a model's name is not ours."""
    return words.replace("\\", "/").replace('"', "'")
