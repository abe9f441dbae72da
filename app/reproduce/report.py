"""A whole report: the runs found, the figures drawn and checked, the pages written."""

from collections.abc import Sequence
from pathlib import Path

from app.reproduce.page import html_page, markdown_page
from app.reproduce.parts import Part
from app.reproduce.write import Say, reproduce
from backend.client import AsyncClient, calls


async def write_report(client: AsyncClient, runs: Sequence[int], parts: Sequence[Part], out: Path, say: Say) -> Path:
    """Reproduce figures from runs, the first of which is the model's, into a folder; its index.html.

    Raises:
        ApiError: a run is not there, or has not measured its neurons.
    """
    chosen = []
    models = {model.id: model for model in (await client.send(calls.models())).models}
    for number in runs:
        run = await client.send(calls.run(number))
        chosen.append((models[run.model], run))
    report = await reproduce(client, chosen, parts, out, say)
    page = out / "index.html"
    page.write_text(html_page(report), encoding="utf-8")
    (out / "report.md").write_text(markdown_page(report), encoding="utf-8")
    return page
