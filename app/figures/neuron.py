"""The figures of one neuron's page."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.figures.spectrum import cosines
from app.figures.theme import CLASS_COLOURS, DIRECT_COLOUR, MAGNITUDE_SCALE, TOTAL_COLOUR, blank
from app.notation.numbers import number, signed
from app.notation.tokens import label
from backend.schemas import Histogram, NeuronLogits, Spectrum, TokenEffects

_SMALL = {"l": 56, "r": 12, "t": 12, "b": 44}
_BEHIND = "#9aa0a6"


def _small(**layout: Any) -> go.Figure:
    """A figure for half a page's width, whose titles also fit a telephone's."""
    figure = blank(**layout)
    figure.update_xaxes(title_font_size=13)
    figure.update_yaxes(title_font_size=13)
    return figure


def effect_boxes(effects: TokenEffects) -> go.Figure:
    """Figure 2c: per-token |change of loss|, total against direct, for this neuron and for 100 random ones."""
    direct = effects.delta_loss_frozen, effects.background_frozen
    return _effect_boxes(effects, "Direct effect (norm frozen)", DIRECT_COLOUR, *direct)


def frequency_boxes(effects: TokenEffects) -> go.Figure:
    """Figure 3c: the same, total against direct with the token-frequency direction held.

    The run must have measured token frequencies.
    """
    direct = effects.delta_loss_freq or [], effects.background_freq or []
    return _effect_boxes(effects, "Direct effect (frequency held)", CLASS_COLOURS["token_frequency"], *direct)


def _effect_boxes(
    effects: TokenEffects, name: str, colour: str, direct: Sequence[float], background: Sequence[float]
) -> go.Figure:
    groups = (
        ("Total effect", TOTAL_COLOUR, effects.delta_loss, effects.background_total),
        (name, colour, direct, background),
    )
    figure = _small(boxmode="group", margin=_SMALL, height=300)
    for name, colour, direct_effects, others in groups:
        boxes = [_box([abs(value) for value in direct_effects]), _box(others)]
        figure.add_trace(
            go.Box(
                x=["this neuron", "100 random neurons"],
                **{part: [box[part] for box in boxes] for part in boxes[0]},
                name=name,
                marker={"color": colour},
                line={"width": 1.5},
            )
        )
    figure.update_yaxes(title_text="|change of loss| (nats)", rangemode="tozero")
    return figure


def _box(values: Sequence[float]) -> dict[str, float]:
    """Quartiles, mean, and whiskers to the last values within 1.5 interquartile ranges; no outliers."""
    data = np.asarray(values)
    q1, median, q3 = np.quantile(data, (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    low, high = data[data >= q1 - reach].min(), data[data <= q3 + reach].max()
    box = {"q1": q1, "median": median, "q3": q3, "lowerfence": low, "upperfence": high, "mean": data.mean()}
    return {part: float(value) for part, value in box.items()}


def loss_scatter(effects: TokenEffects) -> go.Figure:
    """Figure 4a: a token's loss against how clip ablation changes it; mean ablation where clip is not known.

    The colour is the reciprocal rank of the correct token before.
    """
    kind, changes = "clip", effects.clip_delta_loss
    if changes is None:
        kind, changes = "mean", effects.delta_loss
    figure = _token_scatter(effects, effects.loss_before, changes, ("loss", "change"))
    figure.update_xaxes(title_text="loss before (nats)", rangemode="tozero")
    figure.update_yaxes(title_text=f"Δ loss, {kind} ablation (nats)")
    return figure


def frequency_scatter(effects: TokenEffects) -> go.Figure:
    """Figure 4c: how mean ablation changes a token's entropy, against how it changes D_KL(P_freq‖P).

    The colour is the reciprocal rank of the correct token before. The run must have measured token frequencies.
    """
    figure = _token_scatter(effects, effects.delta_entropy, effects.delta_kl or [], ("Δ entropy", "Δ KL"))
    figure.add_vline(x=0, line={"color": _BEHIND, "width": 1})
    figure.update_xaxes(title_text="Δ entropy (nats)")
    figure.update_yaxes(title_text="Δ KL from token frequencies (nats)")
    return figure


def _token_scatter(effects: TokenEffects, x: list[float], y: list[float], names: tuple[str, str]) -> go.Figure:
    tokens = zip(effects.tokens, effects.targets, effects.activation, effects.rank_before, strict=True)
    writes = [signed if name.startswith("Δ") or name == "change" else number for name in names]
    texts = [
        f"{label(token)} → {label(target)}<br>activation {number(activation)}<br>rank {rank:,}<br>"
        f"{names[0]} {writes[0](across, 'nats')}, {names[1]} {writes[1](up, 'nats')}"
        for (token, target, activation, rank), across, up in zip(tokens, x, y, strict=bool(y))
    ]
    return token_scatter(x, y, texts, [1 / rank for rank in effects.rank_before])


def token_scatter(
    x: Sequence[float], y: Sequence[float], texts: Sequence[str], reciprocal_rank: Sequence[float]
) -> go.Figure:
    """Tokens as points, each with a text, coloured by the reciprocal rank of the correct token before."""
    figure = _small(margin=_SMALL, height=300, showlegend=False)
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=list(y),
            mode="markers",
            text=list(texts),
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": list(reciprocal_rank),
                "colorscale": MAGNITUDE_SCALE,
                "cmin": 0,
                "cmax": 1,
                "size": 6,
                "opacity": 0.85,
                "line": {"color": _BEHIND, "width": 0.5},
                "colorbar": {"title": {"text": "1/rank", "font": {"size": 13}}, "thickness": 10, "outlinewidth": 0},
            },
        )
    )
    figure.add_hline(y=0, line={"color": _BEHIND, "width": 1})
    return figure


def histogram(data: Histogram, threshold: int | None = None) -> go.Figure:
    """How often the neuron had which activation; the line is the mean that ablation sets.

    Args:
        threshold: the edge at which a second line stands, which the page moves.
    """
    centres = [(low + high) / 2 for low, high in zip(data.edges[:-1], data.edges[1:], strict=True)]
    widths = [high - low for low, high in zip(data.edges[:-1], data.edges[1:], strict=True)]
    figure = _small(margin={**_SMALL, "t": 28}, height=300, bargap=0, showlegend=False)
    written = [f"activation {number(x)}<br>{count:,} positions" for x, count in zip(centres, data.counts, strict=True)]
    figure.add_trace(
        go.Bar(
            x=centres, y=data.counts, width=widths, marker={"color": "#0072B2"}, customdata=written,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    if data.mean is not None:
        line = {"color": TOTAL_COLOUR, "width": 2}
        figure.add_vline(x=data.mean, line=line, annotation_text="mean", annotation_position="top")
    if threshold is not None:
        # By hand: add_vline would not let the page find it by name.
        figure.add_shape(
            name="threshold", type="line", xref="x", yref="paper", y0=0, y1=1, x0=data.edges[threshold],
            x1=data.edges[threshold], line={"color": DIRECT_COLOUR, "width": 2, "dash": "dash"},
        )  # fmt: skip
    figure.update_xaxes(title_text="activation")
    figure.update_yaxes(title_text="positions (log)", type="log")
    return figure


def spectrum(data: Spectrum) -> go.Figure:
    """Figure 2d for this neuron."""
    return cosines([data], _small(margin={**_SMALL, "r": 56}, height=300))


def token_bars(data: NeuronLogits, count: int = 10) -> go.Figure:
    """The tokens that the neuron's direct path raises and lowers most."""
    shown = [*data.top[:count], *reversed(data.bottom[:count])][::-1]
    figure = _small(margin={**_SMALL, "l": 12}, height=60 + 19 * len(shown), showlegend=False, bargap=0.25)
    colours = [CLASS_COLOURS["entropy"] if token.value > 0 else CLASS_COLOURS["prediction"] for token in shown]
    figure.add_trace(
        go.Bar(
            x=[token.value for token in shown],
            y=list(range(len(shown))),
            orientation="h",
            marker={"color": colours},
            hovertemplate="%{customdata}<extra></extra>",
            customdata=[f"{label(token.token)}: {signed(token.value)}" for token in shown],
        )
    )
    labels = [label(token.token) for token in shown]
    figure.update_yaxes(tickvals=list(range(len(shown))), ticktext=labels, ticks="", showline=False)
    figure.update_xaxes(title_text="logit per unit of activation")
    return figure
