"""The figure of a clicked token in the Text lab."""

import plotly.graph_objects as go

from app.figures.theme import DIRECT_COLOUR, TOTAL_COLOUR, blank
from app.notation.numbers import number, percent
from app.notation.tokens import label
from backend.schemas import Prediction

_BEFORE_COLOUR = "#9aa0a6"


def prediction_bars(states: dict[str, list[Prediction]], following: str | None) -> go.Figure:
    """The most probable next tokens, before and after an intervention, as bars side by side.

    Args:
        states: by name (`before`, `after`, `direct part only`); the first one's order is kept.
        following: the token that really came next, marked in the list.
    """
    order: list[str] = []
    for predictions in states.values():
        order += [p.token for p in predictions if p.token not in order]
    order = order[:12][::-1]
    colours = dict(zip(states, (_BEFORE_COLOUR, TOTAL_COLOUR, DIRECT_COLOUR), strict=False))
    height = 90 + len(order) * (12 + 9 * len(states))
    figure = blank(barmode="group", height=height, margin={"l": 12, "r": 12, "t": 30, "b": 44}, bargap=0.3)
    for name, predictions in reversed(states.items()):
        known = {p.token: p.probability for p in predictions}
        figure.add_trace(
            go.Bar(
                x=[known.get(token) for token in order],
                y=list(range(len(order))),
                name=name,
                orientation="h",
                marker={"color": colours[name]},
                # The most probable token leaves no length to the others: their numbers tell them apart.
                text=[percent(known.get(token)) if token in known else "" for token in order],
                textposition="outside",
                textfont={"size": 10},
                cliponaxis=False,
                customdata=[number(known.get(token)) for token in order],
                hovertemplate="%{customdata}<extra>" + name + "</extra>",
            )
        )
    labels = [label(token) + (" ← came next" if token == following else "") for token in order]
    figure.update_yaxes(tickvals=list(range(len(order))), ticktext=labels, ticks="", showline=False)
    figure.update_xaxes(title="probability", rangemode="tozero")
    figure.update_layout(legend={"traceorder": "reversed"})
    return figure
