"""Which model and run a page is about: those that its address asks for, else those that pages show first."""

from dataclasses import dataclass
from typing import Any

from app.pages.atlas.views import options, run_label
from backend.client import AsyncClient, calls
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
        runs = [{"value": str(run.id), "label": run_label(run)} for run in self.runs]
        own = self.model.id if self.model else None, str(self.run.id) if self.run else None
        return options(self.models), own[0], runs, own[1]


async def choose_run(client: AsyncClient, model: str | None, run: str | None) -> RunChoice:
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
