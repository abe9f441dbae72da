"""The figures of the paper's case study on induction (5 and 9 to 14), each with its numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures import induction as figures
from app.figures import induction_heads as head_figures
from app.figures.panels import panels
from app.figures.repeats import BEHIND, RepeatPositions
from app.reproduce.drawn import Drawn, Part, Table
from app.reproduce.evidence import Evidence
from app.reproduce.induction import Induction, JobKind
from backend.schemas import Curve, InductionClip, InductionKnockout

_READS = {"in": "", "gate": ", its gate", "up": ", what its gate lets through"}
_KINDS: dict[JobKind, str] = {"doubled": "text written twice", "natural": "text that repeats of itself"}
BASELINES = "baseline heads"
RANDOM = "random neurons (mean)"

DrawOne = Callable[[Evidence, Induction], Drawn | str]


def _from(kind: JobKind, draw_one: DrawOne) -> Callable[[Sequence[Evidence]], Drawn | str]:
    def draw(models: Sequence[Evidence]) -> Drawn | str:
        induction = models[0].induction.get(kind)
        if induction is None:
            return models[0].no_induction.get(kind, "The figure's induction job was not asked for.")
        return draw_one(models[0], induction)

    return draw


def shown(e: Evidence, induction: Induction) -> list[str]:
    """The neurons that a job measured, without the random ones: the strongest first, then in the job's order."""
    named = e.frequency if set(e.frequency) & set(induction.start.neurons) else e.entropy
    measured = [name for name in named if name in induction.start.neurons]
    return measured or induction.start.neurons


def _curves(e: Evidence, induction: Induction) -> Drawn | str:
    if induction.curves is None:
        return "The job has no curves."
    activations = {name: induction.curves.activations[name] for name in shown(e, induction)}
    event = induction.curves.model_copy(update={"activations": activations})
    positions = RepeatPositions(len(event.loss.mean) // 2, beyond=event.after is not None)
    table: dict[str, Sequence[Any]] = {
        "occurrence": [1] * positions.reach + [2] * positions.reach,
        "position": [*range(positions.reach)] * 2,
    }
    if positions.beyond:
        table["place"] = positions.names
    for name, curve in figures.through(induction.curves).items():
        table |= {name: curve.mean, f"{name}_se": curve.se}
    return Drawn(figures.curves(event, apart=induction.apart), table)


def _clips(e: Evidence, induction: Induction) -> Drawn | str:
    clips = [induction.clips[name] for name in shown(e, induction) if name in induction.clips]
    if not clips:
        return "The job has clipped no neuron."
    figure = figures.clip_overview(clips)
    others = [clip for name, clip in induction.clips.items() if name not in {one.neuron for one in clips}]
    if others:
        shares = [figures.percent_of_entropy(figures.clipped_through(clip))[0] for clip in others]
        line = {"color": BEHIND, "width": 3}
        mean = [_mean(values) for values in zip(*shares, strict=True)]
        name = f"{len(others)} {RANDOM}"
        figure.add_trace(go.Scatter(x=list(range(len(mean))), y=mean, mode="lines", name=name, line=line))
    return Drawn(figure, _clip_table(induction.clips.values()))


def _clip_table(clips: Iterable[InductionClip]) -> Table:
    names = ("entropy", "delta_entropy", "loss", "delta_loss")
    table: dict[str, list[Any]] = {name: [] for name in ("neuron", "clipped_at", "position", "entropy_percent")}
    table |= {column: [] for name in names for column in (name, f"{name}_se")}
    places: list[str] = []
    for clip in map(figures.clipped_through, clips):
        shares, _ = figures.percent_of_entropy(clip)
        table["neuron"] += [clip.neuron] * len(shares)
        table["clipped_at"] += [clip.reference] * len(shares)
        table["position"] += range(len(shares))
        table["entropy_percent"] += shares
        for name in names:
            table[name] += getattr(clip, name).mean
            table[f"{name}_se"] += getattr(clip, name).se
        if clip.after is not None:
            places += RepeatPositions(len(shares) - 1, beyond=True).names[len(shares) :]
    return table | {"place": places} if places else table


def _tokens(e: Evidence, induction: Induction) -> Drawn | str:
    clip = next((induction.clips[name] for name in shown(e, induction) if name in induction.clips), None)
    if clip is None:
        return "The job has clipped no neuron."
    names = ("token", "target", "loss", "delta_loss", "delta_entropy", "reciprocal_rank")
    return Drawn(figures.clip_scatter(clip), {name: [getattr(point, name) for point in clip.points] for name in names})


def _knockouts(how: str, *, only_first: bool = False) -> DrawOne:
    def draw(e: Evidence, induction: Induction) -> Drawn | str:
        out = [one for one in induction.knockouts if one.how == how]
        if induction.curves is None or not out:
            return "The job has knocked no head out."
        neurons = shown(e, induction)[: 1 if only_first else None]
        drawn = {}
        for name in neurons:
            unchanged = induction.curves.activations[name]
            drawn[name] = _named(head_figures.knockout_curves(name, out, unchanged, apart=induction.apart))
        table = _knockout_table(neurons, induction.curves.activations, out)
        return _sheet(drawn, table, across=1 if only_first else 2, height=330 if only_first else 250)

    return draw


def _named(figure: go.Figure) -> go.Figure:
    """The grey lines under one name: in a legend, each baseline would take a place."""
    for trace in figure.data:
        if trace.line.color == BEHIND and trace.name:
            trace.name = BASELINES
    return figure


def _knockout_table(neurons: Sequence[str], unchanged: Mapping[str, Curve], out: Sequence[InductionKnockout]) -> Table:
    columns = ("neuron", "heads", "changed_at", "role", "occurrence", "position", "activation", "activation_se")
    rows: list[tuple[Any, ...]] = []
    for name in neurons:
        lines = [("", "", "all heads in place", unchanged[name])]
        lines += [("+".join(one.heads), one.knocked_out_at, one.role, one.activations[name]) for one in out]
        for heads, changed_at, role, curve in lines:
            span = len(curve.mean) // 2
            for place, (mean, se) in enumerate(zip(curve.mean, curve.se, strict=True)):
                rows.append((name, heads, changed_at, role, 1 + place // span, place % span, mean, se))
    return dict(zip(columns, (list(column) for column in zip(*rows, strict=True)), strict=True))


def _changes(models: Sequence[Evidence]) -> Drawn | str:
    e = models[0]
    columns, drawn = e.columns, {}
    table: dict[str, Sequence[Any]] = {"neuron": columns.neuron, "class": columns.neuron_class}
    table["null_fraction"] = columns.columns["null_fraction"]
    for kind, title in _KINDS.items():
        induction = e.induction.get(kind)
        if (
            induction is not None
            and induction.change is not None
            and len(induction.change.change) == len(columns.neuron)
        ):
            drawn[title] = figures.change_scatter(induction.change, columns, against="null_fraction")
            table |= {f"change_{kind}": induction.change.change, f"change_{kind}_se": induction.change.se}
    if not drawn:
        return e.no_induction.get("doubled", "The figure's induction job was not asked for.")
    return _sheet(drawn, table, height=360)


def _attributions(e: Evidence, induction: Induction) -> Drawn | str:
    if not induction.attributions:
        return "The job has attributed nothing to components."
    drawn = {}
    table: dict[str, list[Any]] = {
        name: [] for name in ("neuron", "reads", "component", "prefix_matching", "repeated", "other_first_half")
    }
    for name in shown(e, induction):
        for event in sorted(induction.attributions, key=lambda one: one.reads):
            size = len(event.components)
            drawn[f"{name}{_READS[event.reads]}"] = head_figures.attribution(event, name)
            table["neuron"] += [name] * size
            table["reads"] += [event.reads] * size
            table["component"] += event.components
            table["prefix_matching"] += event.prefix_matching
            table["repeated"] += event.induction[name]
            table["other_first_half"] += event.corrupted[name]
    return _sheet(drawn, table)


def _sheet(drawn: Mapping[str, go.Figure], table: Table, *, across: int = 2, height: int = 250) -> Drawn:
    figure = panels(drawn, across=across, height=height)
    return Drawn(figure, table, figure.layout.height)


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


CASE_STUDY: tuple[Part, ...] = (
    Part("5a", "Text written twice: loss, entropy, activations", "", _from("doubled", _curves), ("doubled",)),
    Part("5b", "Text written twice: entropy neurons clipped", "", _from("doubled", _clips), ("doubled",)),
    Part("5c", "The strongest entropy neuron without induction heads", "",
         _from("doubled", _knockouts("bos", only_first=True)), ("doubled",)),
)  # fmt: skip
MORE_INDUCTION: tuple[Part, ...] = (
    Part("9a", "Text that repeats of itself: loss, entropy, activations", "", _from("natural", _curves),
         ("natural", "doubled")),
    Part("9b", "Text that repeats of itself: entropy neurons clipped", "", _from("natural", _clips), ("natural",)),
    Part("9c", "Text that repeats of itself: tokens, the strongest entropy neuron clipped", "",
         _from("natural", _tokens), ("natural",)),
    Part("10a", "Text written twice: activations of token-frequency neurons", "", _from("frequency", _curves),
         ("frequency",)),
    Part("10b", "Text written twice: token-frequency neurons clipped", "", _from("frequency", _clips), ("frequency",)),
    Part("10c", "Text written twice: tokens, the strongest token-frequency neuron clipped", "",
         _from("frequency", _tokens), ("frequency",)),
    Part("11", "Change of activation of every last-layer neuron", "", _changes, ("doubled", "natural")),
    Part("12", "Entropy neurons, heads looking at the first token only", "", _from("doubled", _knockouts("bos")),
         ("doubled",)),
    Part("13", "Entropy neurons, heads writing their mean output", "", _from("doubled", _knockouts("mean_output")),
         ("doubled",)),
    Part("14", "What writes onto an entropy neuron's input", "", _from("doubled", _attributions), ("doubled",)),
)  # fmt: skip
