"""The figures of the induction lab: what a model does on repeated text (Figures 5a, 5b, 9, 10 and 11)."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures.neuron import token_scatter
from app.figures.repeats import (
    BEHIND,
    MARGIN,
    RepeatPositions,
    add_curve,
    add_position_titles,
    average,
    compact,
    joined,
    over_both,
)
from app.figures.theme import CLASS_COLOURS, ENTROPY_COLOUR, LOSS_COLOUR, SERIES_COLOURS
from app.notation.numbers import number, signed
from app.notation.tokens import label
from app.notation.units import neuron_name
from backend.glossary import CLASS_LABELS, NeuronClass
from backend.schemas import ClipTotals, Curve, Estimate, InductionChange, InductionClip, InductionCurves, NeuronColumns

LEAST_ENTROPY = 1e-3
"""Nats: a percentage of less says nothing."""
_DASHES = ("dot", "dashdot")
_ORDER: tuple[NeuronClass, ...] = ("plain", "prediction", "token_frequency", "entropy")
_LABELLED = 6


def series(place: int) -> dict[str, Any]:
    """How the line of one neuron among several is drawn: dotted, as the paper draws activations."""
    dash = _DASHES[place // len(SERIES_COLOURS) % len(_DASHES)]
    return {"color": SERIES_COLOURS[place % len(SERIES_COLOURS)], "width": 2, "dash": dash}


def through(event: InductionCurves) -> dict[str, Curve]:
    """Loss, entropy and the neurons' activations along the repeat, with what follows where that was measured."""
    after = event.after
    lines = {
        "loss": joined(event.loss, None if after is None else after.loss),
        "entropy": joined(event.entropy, None if after is None else after.entropy),
    }
    ends = {} if after is None else after.activations
    return lines | {name: joined(curve, ends.get(name)) for name, curve in event.activations.items()}


def curves(event: InductionCurves, *, apart: bool = False) -> go.Figure:
    """Figures 5a, 9a, 10a: loss and entropy (solid) and activations (dotted, axis at the right) along the repeat.

    Args:
        apart: whether text lies between the two occurrences, as in natural text.
    """
    positions = RepeatPositions(len(event.loss.mean) // 2, apart, event.after is not None)
    figure = compact(height=440, hovermode="x unified", margin={**MARGIN, "r": 56, "t": 28})
    lines = through(event)
    add_position_titles(figure, positions, lines["entropy"], positions.titles)
    for name, colour in (("loss", LOSS_COLOUR), ("entropy", ENTROPY_COLOUR)):
        line: dict[str, Any] = {
            "name": name,
            "line": {"color": colour, "width": 3},
            "hovertemplate": "%{customdata} nats",
        }
        add_curve(figure, positions, lines[name], **line)
    for place, neuron in enumerate(event.activations):
        add_curve(
            figure, positions, lines[neuron], name=neuron, line=series(place), yaxis="y2", hovertemplate="%{customdata}"
        )
    figure.update_yaxes(title_text="nats", rangemode="tozero")
    figure.update_layout(
        legend={"y": 1.1},
        yaxis2={
            "overlaying": "y", "side": "right", "showgrid": False, "zeroline": False, "automargin": True,
            "tickmode": "auto",
            "title": {"text": "activation", "font": {"size": 13}},
        },
    )  # fmt: skip
    return over_both(figure, positions)


def percent_change(before: float | None, after: float | None) -> float | None:
    """In percent of what it was; None where it was next to nothing."""
    if before is None or after is None or before < LEAST_ENTROPY:
        return None
    return 100 * (after - before) / before


def clip_totals(clip: InductionClip) -> ClipTotals:
    """What clipping does to the second occurrence; from the curves, without errors, in results from before errors were
    taken over whole texts."""
    if clip.totals is not None:
        least = clip.totals.entropy_before.value
        nothing = Estimate(value=None, se=None)
        enough = least is not None and least >= LEAST_ENTROPY
        return clip.totals if enough else clip.totals.model_copy(update={"percent_entropy": nothing})
    values = {
        "entropy_before": average(_before(clip.entropy, clip.delta_entropy)), "entropy": average(clip.entropy.mean),
        "delta_entropy": average(clip.delta_entropy.mean), "loss": average(clip.loss.mean),
        "loss_before": average(_before(clip.loss, clip.delta_loss)), "delta_loss": average(clip.delta_loss.mean),
    }  # fmt: skip
    values |= {
        f"percent_{name}": percent_change(values[f"{name}_before"], values[name]) for name in ("entropy", "loss")
    }
    return ClipTotals(**{name: Estimate(value=value, se=None) for name, value in values.items()})


def largest_change(clip: InductionClip) -> Estimate:
    """The change of entropy, in percent, at the position where it is largest."""
    shares = [(share, error) for share, error in zip(*percent_of_entropy(clip), strict=True) if share is not None]
    share, error = max(shares, key=lambda one: abs(one[0]), default=(None, None))
    return Estimate(value=share, se=error)


def clipped_through(clip: InductionClip) -> InductionClip:
    """With what follows the second occurrence as its last position, where that was measured."""
    after = clip.after
    if after is None:
        return clip
    names = ("loss", "entropy", "delta_loss", "delta_entropy")
    percent = clip.percent and after.percent and joined(clip.percent, after.percent)
    both = {name: joined(getattr(clip, name), getattr(after, name)) for name in names}
    return clip.model_copy(update=both | {"percent": percent})


def percent_of_entropy(clip: InductionClip) -> tuple[list[float | None], list[float | None]]:
    """The change of entropy by position, in percent of the entropy before, and its standard error."""
    before = _before(clip.entropy, clip.delta_entropy)
    shares = [percent_change(was, now) for was, now in zip(before, clip.entropy.mean, strict=True)]
    if clip.percent is not None:
        return shares, [None if share is None else se for share, se in zip(shares, clip.percent.se, strict=True)]
    errors = [
        None if share is None or was is None or se is None else 100 * se / was
        for share, was, se in zip(shares, before, clip.delta_entropy.se, strict=True)
    ]
    return shares, errors


def _before(after: Curve, change: Curve) -> list[float | None]:
    pairs = zip(after.mean, change.mean, strict=True)
    return [None if now is None or then is None else now - then for now, then in pairs]


def clip_overview(clips: Sequence[InductionClip]) -> go.Figure:
    """Figures 5b, 9b, 10b: by how much clipping each neuron changes the entropy of the second occurrence."""
    figure = compact(height=360, hovermode="x unified")
    for place, clip in enumerate(clips):
        shares, errors = percent_of_entropy(clipped_through(clip))
        line = {**series(place), "dash": "solid" if place < len(SERIES_COLOURS) else "dash"}
        curve, positions = Curve(mean=shares, se=errors), _second(clip)
        if not place:
            add_position_titles(figure, positions, curve, positions.titles[positions.reach :])
        add_curve(figure, positions, curve, signed, name=clip.neuron, line=line, hovertemplate="%{customdata} %")
    figure.add_hline(y=0, line={"color": BEHIND, "width": 1})
    figure.update_yaxes(title_text="Δ entropy (% of before)", ticksuffix=" %")
    figure.update_layout(showlegend=True)
    return _over_second(figure, _second(clips[0]) if clips else RepeatPositions(0))


def clip_curves(clip: InductionClip) -> go.Figure:
    """Figure 5b for one neuron: entropy and loss on the second occurrence, before (dashed) and after (solid)."""
    figure = compact(height=220, hovermode="x unified", showlegend=False)
    whole, positions = clipped_through(clip), _second(clip)
    add_position_titles(figure, positions, whole.entropy, positions.titles[positions.reach :])
    pairs = (
        ("loss", whole.loss, whole.delta_loss, LOSS_COLOUR),
        ("entropy", whole.entropy, whole.delta_entropy, ENTROPY_COLOUR),
    )
    for name, after, change, colour in pairs:
        before = Curve(mean=_before(after, change), se=[None] * len(after.mean))
        for when, curve, dash in (("before", before, "dash"), ("clipped", after, "solid")):
            add_curve(
                figure, positions, curve, name=f"{name} {when}", hovertemplate="%{customdata} nats",
                line={"color": colour, "width": 2, "dash": dash},
            )  # fmt: skip
    figure.update_yaxes(title_text="nats", rangemode="tozero")
    return _over_second(figure, positions)


def _second(clip: InductionClip) -> RepeatPositions:
    return RepeatPositions(len(clip.entropy.mean), beyond=clip.after is not None)


def _over_second(figure: go.Figure, positions: RepeatPositions) -> go.Figure:
    values, texts = positions.ticks()
    half = len(values) // 2
    title = f"position in the second occurrence{'; X after it' if positions.beyond else ''}"
    figure.update_xaxes(title_text=title, tickvals=values[:half], ticktext=texts[half:])
    return figure


def clip_scatter(clip: InductionClip) -> go.Figure:
    """Figures 9c, 10c: a token's loss on the second occurrence against how clipping the neuron changes it."""
    texts = [
        f"{label(point.token)} → {label(point.target)}<br>1/rank {number(point.reciprocal_rank)}<br>"
        f"Δ entropy {signed(point.delta_entropy, 'nats')}<br>"
        f"loss {number(point.loss, 'nats')}, change {signed(point.delta_loss, 'nats')}"
        for point in clip.points
    ]
    figure = token_scatter(
        [point.loss for point in clip.points], [point.delta_loss for point in clip.points], texts,
        [point.reciprocal_rank for point in clip.points],
    )  # fmt: skip
    figure.update_xaxes(title_text="loss before (nats)", rangemode="tozero")
    figure.update_yaxes(title_text=f"Δ loss, {clip.neuron} clipped (nats)")
    figure.update_layout(height=380)
    return figure


def change_scatter(
    event: InductionChange, columns: NeuronColumns | None = None, *, against: str = "index"
) -> go.Figure:
    """Figure 11: how much more each last-layer neuron fires on the second occurrence than on the first.

    Args:
        columns: the run's neurons of the same layer: their classes, and `null_fraction` where it is the other axis.
        against: `index` or `null_fraction`.
    """
    count = len(event.change)
    classes: list[NeuronClass] = ["plain"] * count
    across: list[float | None] = [float(index) for index in range(count)]
    if columns is not None:
        classes = list(columns.neuron_class)
        if against != "index":
            across = list(columns.columns[against])
    figure = compact(height=440, hovermode="closest")
    for name in _ORDER:
        rows = [row for row in range(count) if classes[row] == name and across[row] is not None]
        if rows:
            figure.add_trace(_change_points(event, name, rows, across))
    for row in _worth_a_label(event, classes):
        figure.add_annotation(
            x=across[row], y=event.change[row], text=neuron_name(event.layer, row, event.experts), showarrow=False,
            xanchor="left", xshift=6, font={"size": 11},
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": BEHIND, "width": 1})
    figure.update_xaxes(title_text="neuron" if against == "index" else "null-space fraction ρ")
    figure.update_yaxes(title_text="change of mean activation")
    figure.update_layout(showlegend=columns is not None)
    return figure


def _change_points(
    event: InductionChange, name: NeuronClass, rows: list[int], across: list[float | None]
) -> go.Scattergl:
    plain = name == "plain"
    names = [neuron_name(event.layer, row, event.experts) for row in rows]
    texts = [f"{name}: {number(event.change[row], error=event.se[row])}" for name, row in zip(names, rows, strict=True)]
    return go.Scattergl(
        x=[across[row] for row in rows], y=[event.change[row] for row in rows], mode="markers",
        name=f"{CLASS_LABELS[name]}s", text=texts, customdata=names,
        hovertemplate="%{text}<extra></extra>",
        marker={"color": CLASS_COLOURS[name], "size": 5 if plain else 9, "opacity": 0.6 if plain else 0.9},
    )  # fmt: skip


def _worth_a_label(event: InductionChange, classes: Sequence[NeuronClass]) -> list[int]:
    """The neurons that change most, among the entropy neurons and among all."""
    by_size = sorted(range(len(event.change)), key=lambda row: -abs(event.change[row]))
    entropy = [row for row in by_size if classes[row] == "entropy"][:_LABELLED]
    return list(dict.fromkeys([*entropy, *by_size[: _LABELLED // 2]]))
