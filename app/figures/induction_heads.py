"""The figures of the induction lab about attention heads: who they are, and what they do to neurons
(Figures 5c, 12, 13 and 14)."""

from collections.abc import Sequence

import plotly.graph_objects as go

from app.figures.repeats import (
    BEHIND,
    FEW_POSITIONS,
    MARGIN,
    RepeatPositions,
    add_curve,
    compact,
    over_both,
    running_mean,
)
from app.figures.theme import CLASS_COLOURS, MAGNITUDE_SCALE, SERIES_COLOURS
from app.notation.numbers import number, signed
from app.notation.units import is_head, layer_and_number
from backend.schemas import Curve, InductionAttribution, InductionHeads, InductionKnockout

_LABELLED = 5
_STANDS_OUT = 0.2
"""Of the largest difference: less gets no label."""
UNCHANGED_COLOUR = "#b98500"
_BASELINE_DASHES = ("solid", "dash", "dot")


def head_map(event: InductionHeads, picked: Sequence[str] = ()) -> go.Figure:
    """Prefix-matching scores by layer and head; those knocked out, the baselines and the picked ones are marked.

    Args:
        picked: heads that a person has chosen for the next run.
    """
    scores = event.prefix_matching
    width = len(scores[0]) if scores else 0
    figure = compact(height=max(300, 90 + 15 * len(scores)), showlegend=True, dragmode=False)
    figure.add_trace(
        go.Heatmap(
            z=scores, text=_written(event), colorscale=MAGNITUDE_SCALE, zmin=0, xgap=1, ygap=1,
            hovertemplate="L%{y}H%{x}: %{text}<extra></extra>",
            colorbar={"title": {"text": "prefix matching", "side": "right", "font": {"size": 13}}, "thickness": 10,
                      "outlinewidth": 0},
        )
    )  # fmt: skip
    marks = (
        ("knocked out", event.chosen, {"symbol": "square-open", "color": CLASS_COLOURS["entropy"]}),
        ("baseline", event.baselines, {"symbol": "circle-open", "color": "#e6e8eb"}),
        ("chosen for the next run", picked, {"symbol": "x-thin", "color": "#e0218a"}),
    )
    for name, heads, mark in marks:
        places = [place for place in map(layer_and_number, heads) if place[0] < len(scores) and place[1] < width]
        figure.add_trace(
            go.Scatter(
                x=[head for _, head in places], y=[layer for layer, _ in places], mode="markers", name=name,
                hoverinfo="skip", showlegend=bool(places),
                marker={**mark, "size": 13, "line": {"width": 3, "color": mark["color"]}},
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="head", range=[-0.5, width - 0.5], dtick=max(1, width // 12))
    figure.update_yaxes(title_text="layer", range=[-0.5, len(scores) - 0.5], dtick=max(1, len(scores) // 10))
    return figure


def _written(event: InductionHeads) -> list[list[str]]:
    """Both scores of every head, by layer."""
    return [
        [
            f"prefix matching {number(score)}, attention to the first token {number(bos)}"
            for score, bos in zip(*layer, strict=True)
        ]
        for layer in zip(event.prefix_matching, event.bos_attention, strict=True)
    ]


def smoothing(span: int) -> int:
    """Over how many positions the curves of knockouts are averaged: one token's chance hides what many lines say."""
    return 1 if span <= FEW_POSITIONS else max(3, span // 10 | 1)


def knockout_style(knockouts: Sequence[InductionKnockout]) -> list[dict[str, str | float]]:
    """The line of every knockout: induction heads in colours, baselines grey."""
    styles: list[dict[str, str | float]] = []
    seen = {"induction": 0, "baseline": 0}
    for knockout in knockouts:
        place = seen[knockout.role]
        seen[knockout.role] += 1
        dash = _BASELINE_DASHES[(len(knockout.heads) - 1) % len(_BASELINE_DASHES)]
        if knockout.role == "baseline":
            styles.append({"color": BEHIND, "width": 1, "dash": dash})
        else:
            colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
            styles.append({"color": colour, "width": 1.5 + 0.5 * min(len(knockout.heads), 3), "dash": "solid"})
    return styles


def knockout_curves(
    neuron: str, knockouts: Sequence[InductionKnockout], unchanged: Curve | None = None, *, apart: bool = False
) -> go.Figure:
    """Figures 5c, 12, 13 for one neuron: its activation with heads knocked out, alone or together.

    Curves are running means over `smoothing(span)` positions.

    Args:
        unchanged: its activation with every head in place.
        apart: whether text lies between the two occurrences.
    """
    figure = compact(height=280, showlegend=False, hovermode="closest", margin={**MARGIN, "t": 28})
    known = [(one, style) for one, style in zip(knockouts, knockout_style(knockouts), strict=True)
             if neuron in one.activations]  # fmt: skip
    curves = [one.activations[neuron] for one, _ in known] + ([] if unchanged is None else [unchanged])
    if not curves:
        return figure
    positions = RepeatPositions(len(curves[0].mean) // 2, apart)
    window = smoothing(positions.span)
    for one, style in sorted(known, key=lambda pair: pair[0].role):  # the grey ones first, under the others
        name = " + ".join(one.heads)
        add_curve(
            figure, positions, running_mean(one.activations[neuron], window), name=name, line=style,
            hovertemplate=f"{name} out: %{{customdata}}<extra></extra>",
        )  # fmt: skip
    if unchanged is not None:
        add_curve(
            figure, positions, running_mean(unchanged, window), name="all heads in place",
            hovertemplate="all heads: %{customdata}<extra></extra>",
            line={"color": UNCHANGED_COLOUR, "width": 3, "dash": "dot"},
        )  # fmt: skip
    figure.update_yaxes(title_text="activation")
    return over_both(figure, positions)


def second_mean(curve: Curve) -> float | None:
    """A curve's mean over the second occurrence."""
    present = [value for value in curve.mean[len(curve.mean) // 2 :] if value is not None]
    return sum(present) / len(present) if present else None


def attribution(event: InductionAttribution, neuron: str) -> go.Figure:
    """Figure 14: how much more each component writes onto a neuron's input when the text before is a repeat.

    Heads, coloured by their prefix-matching score, stand left of the dotted line; MLPs and the rest right of it.
    """
    change = [
        induction - other for induction, other in zip(event.induction[neuron], event.corrupted[neuron], strict=True)
    ]
    heads = [place for place, name in enumerate(event.components) if is_head(name)]
    others = [place for place in range(len(change)) if place not in set(heads)]
    figure = compact(height=320, showlegend=False, hovermode="closest")
    scores = [event.prefix_matching[place] or 0.0 for place in heads]
    groups = (
        (heads, {"color": scores, "colorscale": MAGNITUDE_SCALE, "cmin": 0, "size": 8, "symbol": "circle",
                 "line": {"color": BEHIND, "width": 0.5},
                 "colorbar": {"title": {"text": "prefix matching", "side": "right", "font": {"size": 13}},
                              "thickness": 10, "outlinewidth": 0}}),
        (others, {"color": BEHIND, "size": 10, "symbol": "diamond"}),
    )  # fmt: skip
    for places, marker in groups:
        texts = [
            f"{event.components[place]}<br>repeated {signed(event.induction[neuron][place])}, "
            f"other first half {signed(event.corrupted[neuron][place])}<br>difference {signed(change[place])}"
            for place in places
        ]
        figure.add_trace(
            go.Scatter(x=places, y=[change[place] for place in places], mode="markers", marker=marker, text=texts,
                       hovertemplate="%{text}<extra></extra>")
        )  # fmt: skip
    if others:
        figure.add_vline(x=min(others) - 0.5, line={"color": BEHIND, "width": 1.5, "dash": "dot"})
    most = max(map(abs, change), default=0)
    standing_out = [place for place in range(len(change)) if abs(change[place]) > _STANDS_OUT * most]
    for place in sorted(standing_out, key=lambda one: -abs(change[one]))[:_LABELLED]:
        figure.add_annotation(
            x=place, y=change[place], text=event.components[place], showarrow=False, font={"size": 11},
            xanchor="right", xshift=-7,
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": BEHIND, "width": 1})
    middles = [(heads, "heads by layer"), (others, "MLPs, rest")]
    figure.update_xaxes(
        title_text="component", ticks="", ticktext=[words for places, words in middles if places],
        tickvals=[sum(places) / len(places) for places, _ in middles if places],
    )  # fmt: skip
    figure.update_yaxes(title_text="Δ contribution to the input")
    return figure
