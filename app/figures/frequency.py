"""The figure of a run's predictions against token frequencies."""

from collections.abc import Sequence

import plotly.graph_objects as go

from app.figures.theme import MAGNITUDE_SCALE, blank
from app.notation.numbers import number
from app.notation.tokens import label
from backend.schemas import RunPositions


def divergence_scatter(positions: RunPositions) -> go.Figure:
    """Figure 3a: a token's entropy against D_KL(P_freq‖P), before any ablation.

    The colour is the reciprocal rank of the correct token. The run must have measured token frequencies.
    """
    kl: Sequence[float | None] = positions.kl or [None] * len(positions.tokens)
    columns = (positions.tokens, positions.targets, positions.rank, positions.loss, positions.entropy, kl)
    texts = [
        f"{label(token)} → {label(target)}<br>loss {number(loss, 'nats')}, rank {rank:,}<br>"
        f"entropy {number(entropy, 'nats')}, KL {number(distance, 'nats')}"
        for token, target, rank, loss, entropy, distance in zip(*columns, strict=True)
    ]
    figure = blank(showlegend=False, hovermode="closest")
    figure.add_trace(
        go.Scatter(
            x=positions.entropy,
            y=positions.kl,
            mode="markers",
            text=texts,
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": [1 / rank for rank in positions.rank],
                "colorscale": MAGNITUDE_SCALE,
                "cmin": 0,
                "cmax": 1,
                "size": 7,
                "opacity": 0.85,
                "line": {"color": "#9aa0a6", "width": 0.5},
                "colorbar": {"title": {"text": "1/rank"}, "thickness": 12, "outlinewidth": 0},
            },
        )
    )
    figure.update_xaxes(title_text="entropy (nats)", rangemode="tozero")
    figure.update_yaxes(title_text="KL from token frequencies (nats)", rangemode="tozero")
    return figure
