"""What the compare page's controls say, and which two runs they choose."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.asking import RunChoice, choose_run
from app.figures.scales import SCALES, Scale
from app.notation.units import is_neuron
from backend.client import Sender
from backend.glossary import METRIC
from backend.schemas import ModelSummary, RunSummary

USUAL = "usual"
"""The scale on which a metric is usually read."""
DEFAULT_METRIC = "total_effect"
MOST_NEURONS = 12
MOST_CHARS = 300


@dataclass(frozen=True)
class CompareSettings:
    """What the controls say; None where nothing is asked for."""

    model: str | None = None
    run: str | None = None
    other_model: str | None = None
    other: str | None = None
    metric: str | None = None
    scale: str | None = None
    neurons: str | None = None
    """Names of chosen neurons, with commas."""
    bars: bool = False
    """Whether every neuron's errors are drawn."""

    @property
    def shown_metric(self) -> str:
        """The metric that is asked for; one that is not known gives way to the total effect."""
        return self.metric if self.metric in METRIC else DEFAULT_METRIC

    @property
    def shown_scale(self) -> Scale:
        """The scale that is asked for, else the metric's usual one."""
        known: dict[str, Scale] = {name: name for name in SCALES}
        return known.get(self.scale or USUAL, METRIC[self.shown_metric].scale)


def chosen_names(written: str | None) -> tuple[list[str], list[str]]:
    """The names that read as a neuron's, each once, and what was left out."""
    text = (written or "")[:MOST_CHARS]
    parts = list(dict.fromkeys(part for part in re.split(r"[\s,;]+", text) if part))
    names = [part for part in parts if is_neuron(part)][:MOST_NEURONS]
    return names, [part for part in parts if part not in names]


def with_clicked(written: str | None, name: object) -> str | None:
    """The names with one more, or without it where it is there already; None where nothing changes."""
    if not is_neuron(name):
        return None
    names, _ = chosen_names(written)
    kept = [one for one in names if one != name] if name in names else [*names, str(name)]
    return ", ".join(kept[-MOST_NEURONS:])


@dataclass(frozen=True)
class RunPair:
    """The two runs that the page shows, and what their controls offer."""

    first: RunChoice
    second: RunChoice

    @property
    def selects(self) -> tuple[Any, ...]:
        """Options and values of the four selects."""
        return *self.first.selects, *self.second.selects


async def choose_pair(client: Sender, asked: CompareSettings) -> RunPair:
    """The two runs that are asked for. Where no second one is, it is one of the first one's model, the newest, else of
    another model; where there is none, the second choice has no run.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    first = await choose_run(client, asked.model, asked.run)
    if first.model is None or first.run is None:
        return RunPair(first, first)
    if asked.other is not None:
        return RunPair(first, await choose_run(client, asked.other_model or first.model.id, asked.other))
    if asked.other_model is not None:
        second = await choose_run(client, asked.other_model, None)
        return RunPair(first, _elsewhere(second, first.run))
    second = _elsewhere(await choose_run(client, first.model.id, None), first.run)
    if second.run is None:
        other = next((one for one in first.models if one.id != first.model.id and one.latest_run is not None), None)
        if other is not None:
            second = await choose_run(client, other.id, None)
    return RunPair(first, second)


def _elsewhere(choice: RunChoice, run: RunSummary) -> RunChoice:
    """A choice whose run is not the given one: the newest finished one of the others, else the newest."""
    if choice.run is None or choice.run.id != run.id:
        return choice
    others = [one for one in choice.runs if one.id != run.id]
    newest = next((one for one in others if one.status == "finished"), others[0] if others else None)
    return RunChoice(choice.models, choice.model, choice.runs, newest, choice.missing)


def run_names(pair: Sequence[tuple[ModelSummary | None, RunSummary]]) -> list[str]:
    """What each run is called beside the other."""
    return [f"{run.model if model is None else model.name}, run {run.id}" for model, run in pair]
