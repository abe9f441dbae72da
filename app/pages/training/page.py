"""`/training`: a model's last layer over its training: neurons, classes and the unembedding at each checkpoint."""

import re
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, clientside_callback, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app import links
from app.asking import answer_or_refusal
from app.components.layout import aria, fetched_page, graph, panel, scrolled
from app.components.states import empty, failure
from app.figures.training import class_counts, metric_lines, spectrum_tails
from app.notation.numbers import number
from app.notation.units import is_neuron
from backend.client import ApiError, Sender, calls
from backend.glossary import METRIC, METRICS
from backend.schemas import NeuronLines, TrainingDetail, TrainingStepSummary, TrainingSummary

TRAINING, METRIC_SELECT, BESIDE = "training-training", "training-metric", "training-beside"
NEURONS, EXTREME, MOST, LOG = "training-neurons", "training-extreme", "training-most", "training-log"
BODY, POLL, SEEN = "training-body", "training-poll", "training-seen"
POLL_MS = 5_000
MOST_NEURONS = 8
_MOST_CHARS = 200
_ALONE = "none"
"""The value of "nothing beside it"."""
_USUAL = {"metric": "null_fraction", "extreme": "highest", "most": "5"}
_METRICS = [metric for metric in METRICS if metric.stage in ("weights", "effects") and metric.name != "freq_alignment"]


@dataclass(frozen=True)
class TrainingSettings:
    """What the controls say."""

    training: str | None
    metric: str | None = None
    beside: str | None = None
    neurons: str | None = None
    """Names with commas; empty for the most extreme at the last step."""
    extreme: str | None = None
    most: str | None = None
    log: bool = False
    """Whether steps are on a logarithmic axis."""

    @property
    def known_metric(self) -> str:
        """The metric; the usual one in place of one that there is not."""
        return self.metric if self.metric in {metric.name for metric in _METRICS} and self.metric else _USUAL["metric"]

    @property
    def known_extreme(self) -> str:
        """`highest` or `lowest`."""
        return self.extreme if self.extreme in ("highest", "lowest") and self.extreme else _USUAL["extreme"]

    @property
    def known_most(self) -> int:
        """How many neurons have lines."""
        asked = int(self.most) if self.most and self.most.isdecimal() and len(self.most) < 4 else int(_USUAL["most"])
        return min(max(asked, 1), MOST_NEURONS)


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("training", path="/training", title="Training · Calibroscope", layout=layout, menu="Training")

    @app.callback(
        Output(TRAINING, "data"), Output(TRAINING, "value"), Output(BESIDE, "data"), Output(BESIDE, "value"),
        Output(BODY, "children"), Output(SEEN, "data"),
        Input(POLL, "n_intervals"), Input(TRAINING, "value"), Input(METRIC_SELECT, "value"), Input(BESIDE, "value"),
        Input(NEURONS, "value"), Input(EXTREME, "value"), Input(MOST, "value"), Input(LOG, "checked"),
        State(SEEN, "data"),
    )  # fmt: skip
    async def show(
        _: int | None, training: str | None, metric: str | None, beside: str | None, neurons: str | None,
        extreme: str | None, most: str | None, log: bool | None, seen: str | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        asked = TrainingSettings(training, metric, beside, neurons, extreme, most, bool(log))
        try:
            return await shown(client, asked, seen)
        except ApiError as error:
            return (*[no_update] * 4, failure(error.problem.detail), None)

    names = '["training", "metric", "beside", "neurons", "extreme", "most", "log"]'
    usual = f'{{beside: "{_ALONE}", extreme: "{_USUAL["extreme"]}", most: "{_USUAL["most"]}"}}'
    clientside_callback(
        f'(...values) => window.calibroscopeAddress.follow("/training", {names}, values, {usual})',
        Output(BODY, "title"), Input(TRAINING, "value"), Input(METRIC_SELECT, "value"), Input(BESIDE, "value"),
        Input(NEURONS, "value"), Input(EXTREME, "value"), Input(MOST, "value"), Input(LOG, "checked"),
        prevent_initial_call=True,
    )  # fmt: skip


def layout(
    training: str | None = None, metric: str | None = None, beside: str | None = None, neurons: str | None = None,
    extreme: str | None = None, most: str | None = None, log: str | None = None, **_: str,
) -> Component:  # fmt: skip
    """The page's frame; what it shows is fetched."""
    asked = TrainingSettings(training, metric, beside, neurons, extreme, most, log == "1")
    other = beside or _ALONE
    controls = html.Aside(
        [
            dmc.Select(id=TRAINING, label="Training", value=training, data=[training] if training else [],
                       allowDeselect=False),
            dmc.Select(id=BESIDE, label="Beside it", value=other, data=[other], allowDeselect=False),
            dmc.Select(id=METRIC_SELECT, label="Metric", value=asked.known_metric, allowDeselect=False, searchable=True,
                       data=[{"value": metric.name, "label": metric.label} for metric in _METRICS]),
            dmc.Select(id=EXTREME, label="Neurons with the", value=asked.known_extreme, allowDeselect=False,
                       data=[{"value": "highest", "label": "highest at the last step"},
                             {"value": "lowest", "label": "lowest at the last step"}]),
            dmc.Select(id=MOST, label="How many", value=str(asked.known_most), allowDeselect=False,
                       data=[str(count) for count in range(1, MOST_NEURONS + 1)]),
            dmc.TextInput(id=NEURONS, label="Or these neurons", value=(neurons or "")[:_MOST_CHARS], debounce=True,
                          placeholder="11.584, 11.2378", description=f"With commas; {MOST_NEURONS} at most."),
            dmc.Switch(id=LOG, label="Steps on a logarithmic axis", checked=asked.log),
        ],
        className="controls", **aria(label="Which training, and what of it"),
    )  # fmt: skip
    unseen = (dcc.Store(id=SEEN), dcc.Interval(id=POLL, interval=POLL_MS))
    return fetched_page("Training", controls, BODY, *unseen)


async def shown(client: Sender, asked: TrainingSettings, seen: str | None) -> tuple[Any, ...]:
    """All that the page shows; an unknown training falls back to the first.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    trainings = (await client.send(calls.trainings())).trainings
    chosen = next((one for one in trainings if one.id == asked.training), trainings[0] if trainings else None)
    if chosen is None:
        return [], None, [{"value": _ALONE, "label": "nothing"}], _ALONE, _nothing_yet(), None
    others = [one for one in trainings if one.id != chosen.id]
    beside = next((one for one in others if one.id == asked.beside), None)
    selects = (
        _options(trainings), chosen.id, [{"value": _ALONE, "label": "nothing"}, *_options(others)],
        beside.id if beside else _ALONE,
    )  # fmt: skip
    state = f"{asked}|{_state(chosen)}|{beside and _state(beside)}"
    if state == seen:
        return *selects, no_update, no_update
    detail = await client.send(calls.training(chosen.id))
    other = await answer_or_refusal(client, calls.training(beside.id)) if beside else None
    names, left = neuron_names(asked.neurons or "")
    lines = await answer_or_refusal(
        client,
        calls.neuron_lines(
            chosen.id, asked.known_metric, neurons=names or None, most=asked.known_most, extreme=asked.known_extreme
        ),
    )
    notices: list[Component] = []
    if asked.training not in (None, chosen.id):
        notices.append(failure(f"The address asks for {asked.training[:80]!r}, a training that is not in the atlas."))
    if asked.beside not in (None, _ALONE, beside and beside.id):
        notices.append(failure("What should stand beside it is the training shown, or not in the atlas."))
    if isinstance(other, ApiError):
        notices.append(failure(other.problem.detail))
    named = _named(detail, other if isinstance(other, TrainingDetail) else None)
    parts = [
        _neurons(detail, lines, asked, left), _classes(named, asked), _spectrum(named, asked), _table(detail),
    ]  # fmt: skip
    return *selects, [*notices, *parts], state


def neuron_names(written: str) -> tuple[list[str], list[str]]:
    """The names that read as a neuron's, each once, and what was left out."""
    parts = list(dict.fromkeys(part for part in re.split(r"[\s,;]+", written[:_MOST_CHARS]) if part))
    names = [part for part in parts if is_neuron(part)][:MOST_NEURONS]
    return names, [part for part in parts if part not in names]


def _state(training: TrainingSummary) -> str:
    return f"{training.id} {training.steps} {training.measured_at.isoformat()}"


def _options(trainings: list[TrainingSummary]) -> list[dict[str, str]]:
    names = [one.name for one in trainings]
    return [
        {"value": one.id, "label": one.name if names.count(one.name) == 1 else f"{one.name} ({one.id})"}
        for one in trainings
    ]


def _nothing_yet() -> Component:
    return empty(
        "No training yet",
        "This page shows a model's last layer at several checkpoints of its training, from the weights alone: seconds "
        "a checkpoint. It fills by itself once some are measured:",
        "calibroscope checkpoints --model EleutherAI/pythia-160m --revisions step0,step1000,step10000,step143000",
    )


def _named(detail: TrainingDetail, other: TrainingDetail | None) -> dict[str, TrainingDetail]:
    name = detail.training.name
    if other is None:
        return {name: detail}
    same = other.training.name == name
    return {detail.training.id if same else name: detail, other.training.id if same else other.training.name: other}


def _measured(detail: TrainingDetail) -> str:
    one = detail.training
    return (
        f"{one.name} ({one.family}), layer {one.layer}: {one.n_neurons:,} neurons at {one.steps} checkpoints from step "
        f"{one.first:,} to {one.last:,}, from the weights alone; k = {one.null_dim}.{_unreachable(one)}"
    )


def _unreachable(one: TrainingSummary) -> str:
    """That no neuron can write into a null space of the mean alone, or nothing."""
    if one.reachable_null_dim:
        return ""
    return " With a LayerNorm that one direction is the mean, which no neuron writes along: measure with --null-dim 2."


def _neurons(
    detail: TrainingDetail, lines: NeuronLines | ApiError, asked: TrainingSettings, left: list[str]
) -> Component:
    metric = METRIC[asked.known_metric]
    title = f"{metric.label} over training"
    problems = [failure(f"Left out: {', '.join(left)}. Write layer.index, {MOST_NEURONS} at most.")] if left else []
    if isinstance(lines, ApiError):
        return panel(title, *problems, failure(lines.problem.detail))
    if not any(value is not None for line in lines.lines for value in line.values):
        nothing = empty(
            "No run of these checkpoints",
            f"{metric.label} is an effect: it takes text, and a run of each checkpoint. Measure them:",
            "calibroscope checkpoints --effects --model … --revisions …",
        )
        return panel(title, *problems, nothing)
    about = _measured(detail) if metric.stage == "weights" else _by_runs(detail)
    note = f"{metric.sentence} {about}{_behind_lines(metric.name)}"
    drawn = graph(metric_lines(lines, detail, log=asked.log), className="big-figure")
    return panel(title, *problems, drawn, _values(detail, lines), note=note)


def _by_runs(detail: TrainingDetail) -> str:
    with_run = sum(step.run is not None for step in detail.steps)
    return (
        f"{detail.training.name}, layer {detail.training.layer}: of the finished runs of {with_run} of its "
        f"{detail.training.steps} checkpoints, with one standard error."
    )


def _behind_lines(metric: str) -> str:
    if metric == "null_fraction":
        return " The dotted line is what the largest of as many random directions exceeds with probability 5 %."
    if metric == "logit_var":
        return " The dotted lines are what the lowest and the highest of as many random directions pass in 5 %."
    return ""


def _values(detail: TrainingDetail, lines: NeuronLines) -> Component:
    run = next((step.run for step in reversed(detail.steps) if step.run is not None), None)
    head = html.Tr([html.Th(word) for word in ("neuron", f"step {lines.steps[0]:,}", f"step {lines.steps[-1]:,}")])
    rows = []
    for line in lines.lines:
        address = None if run is None else links.neuron(run.model, line.neuron, run.run)
        name = line.neuron if address is None else dcc.Link(line.neuron, href=address)
        ends = [number(line.values[end], error=line.errors[end]) for end in (0, -1)]
        rows.append(html.Tr([html.Th(name, scope="row"), *(html.Td(value) for value in ends)]))
    return scrolled(html.Table([html.Thead(head), html.Tbody(rows)], className="totals"), "The neurons in numbers")


def _classes(named: dict[str, TrainingDetail], asked: TrainingSettings) -> Component:
    note = (
        "How many neurons pass each condition on the weights at each step. Entropy by the weights: null-space fraction "
        "above its chance line and logit variance below its own; weights alone do not show how a neuron acts, so these "
        "are candidates. Where there is a run of a checkpoint, open diamonds count its classes, effects included. "
        + " ".join(_measured(detail) for detail in named.values())
    )
    return panel("Neurons beyond chance", graph(class_counts(named, log=asked.log), className="big-figure"), note=note)


def _spectrum(named: dict[str, TrainingDetail], asked: TrainingSettings) -> Component:
    note = (
        "The smallest singular values of the centred W_U, each as a share of the middle one: the lower, the less the "
        "unembedding reads these directions. Figure 6 is the last step of two trainings beside each other."
    )
    drawn = graph(spectrum_tails(named, log=asked.log), className="big-figure")
    return panel("The unembedding's null space", drawn, note=note)


def _table(detail: TrainingDetail) -> Component:
    words = (
        "step", "revision", "largest null-space fraction", "chance line", "above it", "entropy, by weights",
        "prediction",        "smallest singular value / median", "run",
    )  # fmt: skip
    head = html.Thead(html.Tr([html.Th(word, scope="col") for word in words]))
    table = html.Table([head, html.Tbody([_row(step) for step in detail.steps])], className="totals")
    return panel("The checkpoints in numbers", scrolled(table, "The checkpoints in numbers"))


def _row(step: TrainingStepSummary) -> html.Tr:
    spread = step.spreads["null_fraction"]
    largest = f"{number(spread.highest)} ({spread.highest_neuron})" if spread.highest_neuron else "—"
    run = "—" if step.run is None else dcc.Link(f"Run {step.run.run}", href=links.atlas(step.run.model, step.run.run))
    cells = (
        step.revision, largest, number(step.chance.null_fraction), f"{step.above_line:,}",
        f"{step.by_weights.get('entropy', 0):,}", f"{step.by_weights.get('prediction', 0):,}",
        number(step.singular_tail[-1] / step.singular_median), run,
    )  # fmt: skip
    return html.Tr([html.Th(f"{step.step:,}", scope="row"), *(html.Td(cell) for cell in cells)])
