"""`/spectrum`: the unembedding's singular values, of one run or of two beside each other, and who writes where."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, clientside_callback, ctx, dcc, html, no_update, register_page
from dash.development.base_component import Component

from app import links
from app.asking import RunChoice, answer_or_refusal, choose_run, run_label, strongest_neurons
from app.components import run_card
from app.components.layout import aria, fetched_page, graph, panel, scrolled
from app.components.neuron_class import class_chip
from app.components.states import empty, empty_atlas, failure, missing_run_notice
from app.figures.scales import zero_values
from app.figures.spectrum import cosines, singular_values
from app.notation.numbers import number
from app.notation.units import is_neuron, neuron_name
from backend.client import ApiError, Sender, calls
from backend.schemas import ModelSummary, NeuronDetail, RunSummary, Spectrum

MODEL, RUN, BESIDE, NEURONS = "spectrum-model", "spectrum-run", "spectrum-beside", "spectrum-neurons"
CLOSE = "spectrum-close"
BODY, POLL, SEEN = "spectrum-body", "spectrum-poll", "spectrum-seen"
POLL_MS = 5_000
MOST_NEURONS = 6
_STRONGEST = 2
_MOST_CHARS = 200
_ALONE = "none"
"""The value of "nothing beside it"."""


Place = tuple[ModelSummary, RunSummary]
"""A run, and whose it is."""


@dataclass(frozen=True)
class SpectrumSettings:
    """What the controls say."""

    model: str | None
    run: str | None
    beside: str | None
    neurons: str | None
    """Names with commas; None for the run's strongest entropy neurons."""
    close: bool = False
    """Whether the null space is looked at closely."""


@dataclass(frozen=True)
class WritingNeuron:
    """A neuron, and where it writes."""

    detail: NeuronDetail
    spectrum: Spectrum


def register(app: Dash, client: Sender) -> None:
    """The page and its callbacks."""
    register_page("spectrum", path="/spectrum", title="Spectrum · Calibroscope", layout=layout, menu="Spectrum")

    @app.callback(
        Output(MODEL, "data"), Output(MODEL, "value"), Output(RUN, "data"), Output(RUN, "value"),
        Output(BESIDE, "data"), Output(BESIDE, "value"), Output(NEURONS, "value"),
        Output(BODY, "children"), Output(SEEN, "data"), Output(POLL, "disabled"),
        Input(POLL, "n_intervals"), Input(MODEL, "value"), Input(RUN, "value"), Input(BESIDE, "value"),
        Input(NEURONS, "value"), Input(CLOSE, "checked"), State(SEEN, "data"),
    )  # fmt: skip
    async def show(
        _: int | None, model: str | None, run: str | None, beside: str | None, neurons: str | None,
        close: bool | None, seen: str | None,
    ) -> tuple[Any, ...]:  # fmt: skip
        other = ctx.triggered_id == MODEL
        asked = SpectrumSettings(model, None if other else run, beside, None if other else neurons, bool(close))
        try:
            return await shown(client, asked, seen)
        except ApiError as error:
            return (*[no_update] * 7, failure(error.problem.detail), None, False)

    run_card.register(app, client, "spectrum", RUN, POLL)
    run_card.register(app, client, "spectrum-beside", BESIDE, POLL, what="Beside it")
    clientside_callback(
        '(...values) => window.calibroscopeAddress.follow("/spectrum", ["model", "run", "beside", "neurons", "close"], '
        f'values, {{beside: "{_ALONE}"}})',
        Output(BODY, "title"), Input(MODEL, "value"), Input(RUN, "value"), Input(BESIDE, "value"),
        Input(NEURONS, "value"), Input(CLOSE, "checked"), prevent_initial_call=True,
    )  # fmt: skip


def layout(
    model: str | None = None, run: str | None = None, beside: str | None = None, neurons: str | None = None,
    close: str | None = None, **_: str,
) -> Component:  # fmt: skip
    """The page's frame; what it shows is fetched."""
    chosen = run if run and run.isdecimal() else None
    other = beside if beside and beside.isdecimal() else _ALONE
    controls = html.Aside(
        [
            dmc.Select(id=MODEL, label="Model", value=model, data=[model] if model else [], allowDeselect=False),
            dmc.Select(id=RUN, label="Run", value=chosen, data=[chosen] if chosen else [], allowDeselect=False),
            dmc.Select(id=BESIDE, label="Beside it", value=other, data=[other], allowDeselect=False),
            dmc.TextInput(
                id=NEURONS, label="Neurons", value=None if neurons is None else neurons[:_MOST_CHARS], debounce=True,
                placeholder="layer.index, …", description=f"Of the run's layer, with commas; {MOST_NEURONS} at most.",
            ),
            dmc.Switch(id=CLOSE, label="The null space from close by", checked=close == "1"),
        ],
        className="controls", **aria(label="Which runs and neurons"),
    )  # fmt: skip
    unseen = (dcc.Store(id=SEEN), dcc.Interval(id=POLL, interval=POLL_MS))
    cards = (run_card.place("spectrum"), run_card.place("spectrum-beside"))
    return fetched_page("Spectrum of the unembedding", controls, BODY, *unseen, *cards)


async def shown(client: Sender, asked: SpectrumSettings, seen: str | None) -> tuple[Any, ...]:
    """All that the page shows; an unknown model or run falls back to the one that pages show first."""
    chosen = await choose_run(client, asked.model, asked.run)
    run = chosen.run
    if run is None:
        return *chosen.selects, [], _ALONE, no_update, empty_atlas(), None, False
    others = await _others(client, chosen, run)
    beside = asked.beside if asked.beside in others else _ALONE
    names, left = (
        neuron_names(asked.neurons)
        if asked.neurons is not None
        else (await strongest_neurons(client, run.id, _STRONGEST), [])
    )
    written = asked.neurons if asked.neurons is not None else ", ".join(names)
    state = f"{run.id}:{run.status}:{beside}:{written}:{asked.close}"
    choices = [{"value": place, "label": f"{model.name} · {run_label(one)}"} for place, (model, one) in others.items()]
    controls = (*chosen.selects, [{"value": _ALONE, "label": "nothing"}, *choices], beside, written)
    if state == seen:
        return *controls, no_update, no_update, run.status != "running"
    spectrum = await client.send(calls.spectrum(run.id))
    other = await answer_or_refusal(client, calls.spectrum(int(beside))) if beside != _ALONE else None
    writers = await asyncio.gather(*(_writer(client, run.id, name) for name in names))
    notices: list[Component] = [] if chosen.missing is None else [missing_run_notice(chosen.missing, run)]
    if asked.beside not in (None, beside):
        notices.append(failure(f"Run {asked.beside} cannot stand beside: it is the run shown, or not in the atlas."))
    if isinstance(other, ApiError):
        notices.append(failure(other.problem.detail))
    spectra = _named(chosen, run, spectrum, others.get(beside), other if isinstance(other, Spectrum) else None)
    parts = [_who_writes(run, spectrum, list(writers), left, asked.close), _side_by_side(spectra)]
    return *controls, [*notices, *parts], state, run.status != "running"


async def _others(client: Sender, chosen: RunChoice, run: RunSummary) -> dict[str, Place]:
    """All runs of the atlas but the one that is shown, by their numbers."""
    lists = await asyncio.gather(*(client.send(calls.runs(model.id)) for model in chosen.models))
    every = [(model, one) for model, listed in zip(chosen.models, lists, strict=True) for one in listed.runs]
    return {str(one.id): (model, one) for model, one in every if one.id != run.id}


def neuron_names(written: str) -> tuple[list[str], list[str]]:
    """The names that read as a neuron's, each once, and what was left out."""
    parts = list(dict.fromkeys(part for part in re.split(r"[\s,;]+", written[:_MOST_CHARS]) if part))
    names = [part for part in parts if is_neuron(part)][:MOST_NEURONS]
    cut = [f"all after {_MOST_CHARS} characters"] if len(written) > _MOST_CHARS else []
    return names, [part for part in parts if part not in names] + cut


async def _writer(client: Sender, run: int, name: str) -> WritingNeuron | ApiError:
    try:
        answers = await asyncio.gather(client.send(calls.neuron(run, name)), client.send(calls.spectrum(run, name)))
    except ApiError as error:
        return error
    return WritingNeuron(*answers)


def _named(
    chosen: RunChoice, run: RunSummary, spectrum: Spectrum, beside: Place | None, other: Spectrum | None
) -> dict[str, Spectrum]:  # fmt: skip
    """The spectra by their models' names; with their runs' where both are of one model."""
    name = chosen.model.name if chosen.model else run.model
    if beside is None or other is None:
        return {name: spectrum}
    model, one = beside
    return {name: spectrum, model.name: other} if model.name != name else {
        f"{name}, run {run.id}": spectrum, f"{name}, run {one.id}": other,
    }  # fmt: skip


def _who_writes(
    run: RunSummary, plain: Spectrum, writers: list[WritingNeuron | ApiError], left: list[str], close: bool
) -> Component:
    known = [writer for writer in writers if isinstance(writer, WritingNeuron)]
    problems = [failure(writer.problem.detail) for writer in writers if isinstance(writer, ApiError)]
    if left:
        refusal = (
            f"Left out: {', '.join(left)}. Write the name, as {neuron_name(run.layer, 0, run.experts)}; {MOST_NEURONS} "
            "neurons at most."
        )
        problems.append(failure(refusal))
    note = (
        f"Figure 2d: the singular values of the centred W_U of run {run.id}, and each neuron's |cosine| with every "
        f"direction. The shaded null space are the {plain.null_dim} directions that the unembedding reads least: what "
        f"is written there moves the final norm's scale, and hardly a logit.{zero_values(plain.singular_values)}"
    )
    drawn = graph(cosines([writer.spectrum for writer in known] or [plain], close=close), className="big-figure")
    table = _table(run, known) if known else empty("No neuron is chosen", "Write some to see where they write.")
    return panel("Who writes where", *problems, drawn, table, note=note)


def _table(run: RunSummary, writers: list[WritingNeuron]) -> Component:
    head = html.Tr([html.Th(word) for word in ("neuron", "class", "null-space fraction", "writes most along", "|cos|")])
    rows = []
    for writer in writers:
        row, values = writer.detail.row, writer.spectrum.cosines or [0.0]
        most = max(range(len(values)), key=values.__getitem__)
        rows.append(
            html.Tr(
                [
                    html.Th(dcc.Link(row.neuron, href=links.neuron(run.model, row.neuron, run.id)), scope="row"),
                    html.Td(class_chip(row.neuron_class)),
                    html.Td(number(row.metrics["null_fraction"])),
                    html.Td(f"direction {most:,} of 0 to {len(values) - 1:,}"),
                    html.Td(number(values[most])),
                ]
            )
        )
    return scrolled(html.Table([html.Thead(head), html.Tbody(rows)], className="totals"), "Where the neurons write")


def _side_by_side(spectra: dict[str, Spectrum]) -> Component:
    head = ("", "directions", "largest", "last before the null space", "first in it", "smallest")
    rows = []
    for name, data in spectra.items():
        values, start = data.singular_values, len(data.singular_values) - data.null_dim
        ends = (values[0], values[max(start - 1, 0)], values[min(start, len(values) - 1)], values[-1])
        cells = [html.Td(f"{len(values):,}"), *(html.Td(number(value)) for value in ends)]
        rows.append(html.Tr([html.Th(name, scope="row"), *cells]))
    table = html.Table([html.Thead(html.Tr([html.Th(word) for word in head])), html.Tbody(rows)], className="totals")
    note = (
        "Figure 6: two models beside each other, so across the whole of their widths. The paper's pair is Pythia 160M "
        "trained with and without dropout; any two runs of the atlas can be put here."
        + "".join(zero_values(data.singular_values) for data in spectra.values())
    )
    parts = (graph(singular_values(spectra), className="big-figure"), scrolled(table, "Singular values in numbers"))
    return panel("Singular values", *parts, note=note)
