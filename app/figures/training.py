"""A model's last layer over its training: lines over steps of a metric, of how many neurons are beyond chance, and of
the smallest singular values of the unembedding (Figure 6 over time)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from app.figures.scales import placed, tick_label, ticks
from app.figures.theme import CLASS_COLOURS, LIMIT_COLOUR, MARK_COLOUR, SERIES_COLOURS, axis_title, blank
from app.notation.numbers import number
from backend.glossary import CLASS_LABELS, NeuronClass
from backend.schemas import NeuronLines, TrainingDetail, TrainingStepSummary

_DASHES = ("solid", "dash")
_QUIET = "#9aa0a6"
_SHADE = "rgba(154, 160, 166, 0.2)"
_CHANCE: Mapping[str, Sequence[str]] = {
    "null_fraction": ("null_fraction",),
    "logit_var": ("logit_var_low", "logit_var_high"),
}
"""The chance lines of a metric, by their names among a step's."""
_LOG_METRICS = ("logit_var",)
_LONGEST_NAME = 24


def metric_lines(lines: NeuronLines, training: TrainingDetail, *, log: bool) -> go.Figure:
    """A metric of some neurons over the steps, between how all neurons are spread and beside chance.

    Args:
        log: whether steps are on a logarithmic axis, on which step 0 has a place too.
    """
    figure, steps = blank(), training.steps
    places = _places(lines.steps, log)
    if lines.metric in steps[0].spreads:
        _add_spread(figure, places, lines.metric, steps)
    for name in _CHANCE.get(lines.metric, ()):
        values = [getattr(step.chance, name) for step in steps]
        _add_line(
            figure, places, lines.steps, values, "chance line" if name == _CHANCE[lines.metric][0] else "",
            line={"color": LIMIT_COLOUR, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
    for line, colour in zip(lines.lines, _repeated(SERIES_COLOURS), strict=False):
        errors = None if all(error is None for error in line.errors) else line.errors
        _add_line(
            figure, places, lines.steps, line.values, line.neuron, line={"color": colour, "width": 2}, errors=errors,
            mode="lines+markers",
        )  # fmt: skip
    _name_steps(figure, lines.steps, log)
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_yaxes(title_text=axis_title(lines.metric), title_font_size=13, title_standoff=12)
    if lines.metric in _LOG_METRICS:
        figure.update_yaxes(type="log")
    return figure


def class_counts(named: Mapping[str, TrainingDetail], *, log: bool) -> go.Figure:
    """How many neurons are beyond chance at each step, by the weights alone, and of runs how many have each class."""
    figure = blank()
    for (name, training), dash in zip(named.items(), _DASHES, strict=False):
        steps, behind = training.steps, _behind(name, named)
        numbers = [step.step for step in steps]
        places = _places(numbers, log)
        weighed = {kind: [step.by_weights.get(kind, 0) for step in steps] for kind in CLASS_LABELS}
        counted: list[tuple[str, str, list[int]]] = [
            ("null-space fraction above chance", LIMIT_COLOUR, [step.above_line for step in steps]),
            ("entropy neurons, by the weights alone", CLASS_COLOURS["entropy"], weighed["entropy"]),
            ("prediction neurons", CLASS_COLOURS["prediction"], weighed["prediction"]),
            ("the paper's own criterion", MARK_COLOUR, [step.paper_criterion for step in steps]),
        ]
        for label, colour, values in counted:
            line = {"color": colour, "width": 2, "dash": dash}
            _add_line(figure, places, numbers, values, label + behind, line=line, mode="lines+markers")
        for kind in ("entropy", "token_frequency"):
            _add_class(figure, places, numbers, steps, kind, behind)
    _name_steps(figure, _all_steps(named), log)
    figure.update_yaxes(title_text="neurons", title_font_size=13, rangemode="tozero")
    return figure


def spectrum_tails(named: Mapping[str, TrainingDetail], *, log: bool) -> go.Figure:
    """The smallest singular values of W_U over the steps, as shares of the middle one: whether a null space forms."""
    figure = blank()
    for (name, training), dash in zip(named.items(), _DASHES, strict=False):
        steps, behind = training.steps, _behind(name, named)
        numbers, k = [step.step for step in steps], training.training.reachable_null_dim
        places = _places(numbers, log)
        for (label, rank), colour in zip(tail_ranks(k, len(steps[0].singular_tail)), SERIES_COLOURS, strict=False):
            values = [step.singular_tail[-rank] / step.singular_median for step in steps]
            line = {"color": colour, "width": 2, "dash": dash}
            _add_line(figure, places, numbers, values, label + behind, line=line, mode="lines+markers")
    _name_steps(figure, _all_steps(named), log)
    figure.update_yaxes(title_text="singular value / median (log)", title_font_size=13, type="log", title_standoff=12)
    return figure


def tail_ranks(null_dim: int, known: int) -> list[tuple[str, int]]:
    """Which of the smallest singular values are shown, each with its rank from the smallest, 1.

    Args:
        known: how many of the smallest are known.
    """
    ranks = {"smallest": 1, "largest in the null space": null_dim, "next before it": null_dim + 1}
    ranks |= {f"{known}th from the smallest": known}
    shown: dict[int, str] = {}
    for label, rank in ranks.items():
        if 1 <= rank <= known:
            shown.setdefault(rank, label)
    return [(label, rank) for rank, label in shown.items()]


def _add_class(
    figure: go.Figure, places: list[float], numbers: list[int], steps: list[TrainingStepSummary], kind: NeuronClass,
    behind: str,
) -> None:  # fmt: skip
    values = [None if step.run is None else step.run.counts.get(kind, 0) for step in steps]
    if any(value is not None for value in values):
        marker = {"color": CLASS_COLOURS[kind], "size": 10, "symbol": "diamond-open", "line": {"width": 2}}
        label = f"{CLASS_LABELS[kind].lower()}s, effects included{behind}"
        _add_line(figure, places, numbers, values, label, mode="markers", marker=marker)


def _add_spread(figure: go.Figure, places: list[float], metric: str, steps: list[TrainingStepSummary]) -> None:
    spreads = [step.spreads[metric] for step in steps]
    shade = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_trace(go.Scatter(x=places, y=[spread.q05 for spread in spreads], showlegend=False, **shade))
    figure.add_trace(
        go.Scatter(
            x=places, y=[spread.q95 for spread in spreads], fill="tonexty", fillcolor=_SHADE,
            name="5 to 95 % of all neurons", **shade,
        )
    )  # fmt: skip
    _add_line(
        figure, places, [step.step for step in steps], [spread.median for spread in spreads], "median of all neurons",
        line={"color": _QUIET, "width": 1.5},
    )  # fmt: skip


def _add_line(
    figure: go.Figure, places: list[float], numbers: Sequence[int], values: Sequence[float | None], name: str,
    errors: Sequence[float | None] | None = None, **options: Any,
) -> None:  # fmt: skip
    options.setdefault("mode", "lines")
    options.setdefault("connectgaps", True)  # a run of some checkpoints alone
    if errors is not None:
        options["error_y"] = {"type": "data", "array": list(errors), "thickness": 1}
    figure.add_trace(
        go.Scatter(
            x=places, y=list(values), name=name, showlegend=bool(name), customdata=_written(numbers, values, errors),
            hovertemplate=f"{name or 'chance line'}<br>%{{customdata}}<extra></extra>", **options,
        )
    )  # fmt: skip


def _written(steps: Sequence[int], values: Sequence[float | None], errors: Sequence[float | None] | None) -> list[str]:
    besides = [None] * len(steps) if errors is None else errors
    return [
        f"step {step:,}: {number(value, error=error)}"
        for step, value, error in zip(steps, values, besides, strict=True)
    ]


def _places(steps: Sequence[int], log: bool) -> list[float]:
    return [placed(step, 1.0) if log else float(step) for step in steps]


def _name_steps(figure: go.Figure, steps: Sequence[int], log: bool) -> None:
    figure.update_xaxes(title_text="training step (log)" if log else "training step", title_font_size=13)
    if log:
        named = ticks(list(steps), 1.0)
        figure.update_xaxes(
            tickmode="array", tickvals=[placed(value, 1.0) for value in named],
            ticktext=["1" if value == 1 else tick_label(value) for value in named],
        )  # fmt: skip


def _all_steps(named: Mapping[str, TrainingDetail]) -> list[int]:
    return sorted({step.step for training in named.values() for step in training.steps})


def _behind(name: str, named: Mapping[str, TrainingDetail]) -> str:
    """What tells two trainings' lines apart; nothing where there is one."""
    return "" if len(named) == 1 else f" · {name[:_LONGEST_NAME]}"


def _repeated(colours: Sequence[str]) -> list[str]:
    return [*colours] * 3
