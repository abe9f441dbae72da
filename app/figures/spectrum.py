"""The unembedding's singular values, and where neurons write among them (Figures 2d and 6)."""

from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go

from app.figures.theme import CLASS_COLOURS, SERIES_COLOURS, blank
from app.notation.numbers import number
from backend.schemas import Spectrum

_BEHIND = "#9aa0a6"
_JUST_BEFORE = 6
"""Times the null space that are in view when it is looked at closely."""
_DASHES = ("solid", "dash", "dot")


def cosines(spectra: Sequence[Spectrum], figure: go.Figure | None = None, *, close: bool = False) -> go.Figure:
    """Figure 2d: the singular values of W_U on a log scale, and neurons' |cosine| with each singular direction.

    Args:
        spectra: of one run, one for each neuron; at least one.
        figure: to draw on, where its size or margins are not the usual ones.
        close: whether only the null space and what lies just before it is in view.
    """
    first = spectra[0]
    places = list(range(len(first.singular_values)))
    figure = blank(margin={"l": 64, "r": 64, "t": 16, "b": 52}) if figure is None else figure
    line = {"color": _BEHIND, "width": 3 if len(spectra) > 1 else 2}
    figure.add_trace(
        go.Scatter(
            x=places, y=first.singular_values, name="singular value of W_U", line=line,
            customdata=[number(value) for value in first.singular_values],
            hovertemplate="direction %{x}: %{customdata}<extra></extra>",
        )
    )  # fmt: skip
    colours = (CLASS_COLOURS["entropy"],) if len(spectra) == 1 else SERIES_COLOURS
    for data, colour in zip(spectra, colours, strict=False):
        if data.cosines is not None:
            figure.add_trace(
                go.Scatter(
                    x=places, y=data.cosines, name=f"|cos| of {data.neuron}", yaxis="y2",
                    line={"color": colour, "width": 1.5},
                    customdata=[number(value) for value in data.cosines],
                    hovertemplate=f"{data.neuron}, direction %{{x}}: |cos| %{{customdata}}<extra></extra>",
                )
            )  # fmt: skip
    start = len(places) - first.null_dim - 0.5
    figure.add_vrect(x0=start, x1=len(places) - 0.5, fillcolor=CLASS_COLOURS["entropy"], opacity=0.12, line_width=0)
    figure.update_xaxes(title_text=f"singular direction (last {first.null_dim}: null space)", title_font_size=13)
    if close:
        figure.update_xaxes(range=[len(places) - _JUST_BEFORE * first.null_dim - 0.5, len(places) - 0.5])
    right = {
        "overlaying": "y",
        "side": "right",
        "title": {"text": "|cosine|", "font": {"size": 13}},
        "range": [0, 1],
        "tickmode": "array",
        "tickvals": [0, 0.25, 0.5, 0.75, 1],
        "showgrid": False,
    }
    left = {"title": {"text": "singular value (log)", "font": {"size": 13}}, "type": "log"}
    figure.update_layout(yaxis=left, yaxis2=right)
    return figure


def singular_values(named: Mapping[str, Spectrum]) -> go.Figure:
    """Figure 6: the singular values of W_U of one model, or of several beside each other; widths may differ."""
    figure = blank()
    for place, (name, data) in enumerate(named.items()):
        size = len(data.singular_values)
        figure.add_trace(
            go.Scatter(
                x=[100 * (rank + 0.5) / size for rank in range(size)], y=data.singular_values,
                name=escape(name, quote=False),
                line={"color": SERIES_COLOURS[place % len(SERIES_COLOURS)], "width": 2,
                      "dash": _DASHES[place % len(_DASHES)]},
                customdata=[f"{rank} of {size}: {number(value)}" for rank, value in enumerate(data.singular_values)],
                hovertemplate="%{fullData.name}<br>direction %{customdata}<extra></extra>",
            )
        )  # fmt: skip
    figure.update_xaxes(title_text="rank of the singular value (% of all)", title_font_size=13)
    figure.update_yaxes(title_text="singular value of W_U (log)", title_font_size=13, type="log")
    return figure
