"""A whole report: the runs found, the figures drawn and checked, the pages written."""

from collections.abc import Sequence
from pathlib import Path

from app.reproduce.drawn import Part
from app.reproduce.evidence import choose
from app.reproduce.induction import queue_missing
from app.reproduce.page import html_page, markdown_page
from app.reproduce.write import Say, jobs_of, reproduce
from backend.client import AsyncClient, calls
from backend.schemas import Job, ModelSummary, RunSummary


async def write_report(client: AsyncClient, runs: Sequence[int], parts: Sequence[Part], out: Path, say: Say) -> Path:
    """Reproduce figures from runs, the first of which is the model's, into a folder; its index.html.

    Raises:
        ApiError: a run is not there, or has not measured its neurons.
    """
    chosen = [await _model_and_run(client, number) for number in runs]
    report = await reproduce(client, chosen, parts, out, say)
    page = out / "index.html"
    page.write_text(html_page(report), encoding="utf-8")
    (out / "report.md").write_text(markdown_page(report), encoding="utf-8")
    return page


async def queue_induction(client: AsyncClient, run: int, parts: Sequence[Part], sequences: int) -> list[Job]:
    """Queue the induction jobs that figures need and the atlas lacks; somebody must then do them.

    Raises:
        ApiError: the run is not there, has not measured its neurons, or a job is refused.
    """
    kinds = jobs_of(parts)
    if not kinds:
        return []
    model, chosen_run = await _model_and_run(client, run)
    return await queue_missing(client, kinds, chosen_run, await choose(client, model, chosen_run), sequences)


async def _model_and_run(client: AsyncClient, number: int) -> tuple[ModelSummary, RunSummary]:
    run = await client.send(calls.run(number))
    models = (await client.send(calls.models())).models
    return next(model for model in models if model.id == run.model), run
