"""How pages ask the service: for a model and a run, for a run's strongest neurons, for an answer or why it refuses."""

from dataclasses import dataclass
from typing import Any

from backend.client import Answer, ApiError, Call, Sender, calls
from backend.schemas import ModelSummary, RunSummary


@dataclass(frozen=True)
class RunChoice:
    """What there is, and what was chosen of it; nothing where the atlas or the model is empty."""

    models: list[ModelSummary]
    model: ModelSummary | None
    runs: list[RunSummary]
    """Of the model."""
    run: RunSummary | None
    missing: str | None
    """The run that was asked for, where the model does not have it."""

    @property
    def selects(self) -> tuple[Any, ...]:
        """The options and value of the models' select, then of the runs'."""
        models = [{"value": model.id, "label": model.name} for model in self.models]
        runs = [{"value": str(run.id), "label": run_label(run)} for run in self.runs]
        return models, self.model and self.model.id, runs, self.run and str(self.run.id)


def run_label(run: RunSummary) -> str:
    """A run among a model's others."""
    survey = " · survey" if run.mode == "survey" else ""
    return f"{run.id} · layer {run.layer} · {run.corpus} · {run.sequences} × {run.seq_len}{survey}"


async def choose_run(client: Sender, model: str | None, run: str | None) -> RunChoice:
    """The model and run that are asked for; an unknown one falls back to the first.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    models = (await client.send(calls.models())).models
    chosen = next((m for m in models if m.id == model), models[0] if models else None)
    if chosen is None:
        return RunChoice([], None, [], None, None)
    runs = (await client.send(calls.runs(chosen.id))).runs
    asked = next((r for r in runs if str(r.id) == run), None)
    shown = asked or next((r for r in runs if r.id == chosen.latest_run), runs[0] if runs else None)
    return RunChoice(models, chosen, runs, shown, run if run and asked is None else None)


async def entropy_neurons(client: Sender, run: int, most: int) -> list[str]:
    """A run's entropy neurons by their total effect, the strongest first; empty where it has none.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    page = await client.send(calls.neurons(run, sort="-total_effect", neuron_class="entropy", limit=most, columns=[]))
    return [row.neuron for row in page.rows]


async def strongest_neurons(client: Sender, run: int, most: int) -> list[str]:
    """A run's strongest entropy neurons, else those that write most into the null space.

    Raises:
        ApiError: the service refuses, or does not answer.
    """
    entropy = await entropy_neurons(client, run, most)
    if entropy:
        return entropy
    page = await client.send(calls.neurons(run, sort="-null_fraction", limit=most, columns=[]))
    return [row.neuron for row in page.rows]


async def answer_or_refusal(client: Sender, call: Call[Answer]) -> Answer | ApiError:
    """What the service answers, or the error by which it refuses: for a part of a page that can say so itself."""
    try:
        return await client.send(call)
    except ApiError as error:
        return error
