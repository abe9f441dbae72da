"""Write a reproduction into a folder: figures, their numbers, and a page that sets claims beside what was measured."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import plotly
import plotly.graph_objects as go

from app.figures.still import kept
from app.figures.theme import GRAPH_CONFIG
from app.reproduce.checks import Finding
from app.reproduce.claim import Claim
from app.reproduce.claims import CLAIMS
from app.reproduce.drawn import Drawn, Part, Table
from app.reproduce.evidence import Evidence, gather
from app.reproduce.induction import PARTS_OF, Induction, JobKind, find
from app.reproduce.null import NullCount, count_passes
from app.reproduce.stills import NoStills, draw_stills
from backend.client import AsyncClient
from backend.schemas import ModelSummary, RunSummary

PLOTLY = "plotly.min.js"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Checked:
    """A claim and what this model shows of it."""

    claim: Claim
    finding: Finding
    is_stated: bool
    null: NullCount | None = None
    """How often the check passes on chance; None where it has not come to an answer or there is no null."""
    is_circular: bool = False
    """Whether the neurons were chosen by what is checked."""

    @classmethod
    def of(cls, claim: Claim, evidence: Evidence) -> Self:
        """Check a claim, and where it comes to an answer try the check on its null."""
        finding = claim.check(evidence)
        null = None
        if finding.holds is not None and not isinstance(claim.null, str):
            null = count_passes(claim.check, claim.null, evidence)
        return cls(claim, finding, claim.is_stated_for(evidence), null, claim.is_circular(evidence))

    @property
    def says_something(self) -> bool:
        """Whether holding means anything: it could have failed, and chance does not pass."""
        return not self.is_circular and not (self.null is not None and self.null.passes_too)

    @property
    def verdict(self) -> str:
        """In the words of the page."""
        if self.finding.holds is None:
            return "not measured" if self.is_stated else "not stated for this model; not measured"
        if self.finding.holds:
            outcome = "holds" if self.says_something else f"holds, but {self._says_nothing}"
        else:
            outcome = "does not hold"
        return outcome if self.is_stated else f"not stated for this model (here it {outcome})"

    @property
    def _says_nothing(self) -> str:
        return "the neurons were chosen by it" if self.is_circular else "chance passes too"

    @property
    def on_null(self) -> str:
        """A sentence on what holding is worth."""
        sentences = []
        if self.is_circular and self.finding.holds:
            sentences.append(
                f"The class of these neurons asks for {self.claim.selected_by}: the check could hardly fail."
            )
        if isinstance(self.claim.null, str):
            sentences.append(self.claim.null)
        elif self.null is not None:
            sentences.append(str(self.null))
        return " ".join(sentences)


@dataclass(frozen=True)
class Written:
    """A figure of the paper as it was reproduced."""

    part: Part
    name: str
    """Of its files."""
    drawn: Drawn | None
    missing: str
    """Why there is none."""
    claims: list[Checked]


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    models: list[Evidence]
    written: list[Written]
    no_stills: str
    """Why there are no SVGs, or empty."""


async def reproduce(
    client: AsyncClient, chosen: Sequence[tuple[ModelSummary, RunSummary]], parts: Sequence[Part], out: Path, say: Say
) -> Report:
    """Draw and check the parts for the first model, beside the second where there is one; write all into `out`.

    Raises:
        ApiError: a run has not measured its neurons.
        OSError: the folder cannot be written.
    """
    models = []
    for model, run in chosen:
        say(f"Reading run {run.id} of {model.name} …")
        models.append(await gather(client, model, run))
    induction, missing = await _induction(client, models[0], parts)
    beside = models[1] if len(models) > 1 else None
    models[0] = replace(models[0], beside=beside, induction=induction, no_induction=missing)
    written = [_written(part, models) for part in parts]
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(plotly.__file__).parent / "package_data" / PLOTLY, out / PLOTLY)
    stills: dict[Path, go.Figure] = {}
    for one in written:
        if one.drawn is not None:
            write_table(figures / f"{one.name}.csv", one.drawn.table)
            write_about(figures / f"{one.name}.csv.json", part=one.part, runs=[evidence.run for evidence in models])
            _write_html(figures / f"{one.name}.html", one.drawn.figure)
            stills[figures / f"{one.name}.svg"] = one.drawn.figure
    no_stills = ""
    try:
        say(f"Drawing {len(stills)} figures …")
        await draw_stills(stills)
    except NoStills as error:
        no_stills = str(error)
        say(no_stills)
    return Report(models, written, no_stills)


async def _induction(
    client: AsyncClient, evidence: Evidence, parts: Sequence[Part]
) -> tuple[dict[JobKind, Induction], dict[JobKind, str]]:
    measured: dict[JobKind, Induction] = {}
    missing: dict[JobKind, str] = {}
    for kind in jobs_of(parts):
        one = await find(client, kind, evidence.run, evidence.chosen)
        if isinstance(one, str):
            missing[kind] = one
        else:
            measured[kind] = one
    return measured, missing


def jobs_of(parts: Sequence[Part]) -> list[JobKind]:
    """The induction jobs that figures need, in the order in which they are best done."""
    return sorted({kind for part in parts for kind in part.jobs}, key=list(PARTS_OF).index)


def _written(part: Part, models: Sequence[Evidence]) -> Written:
    drawing = part.draw(models)
    claims = [Checked.of(claim, models[0]) for claim in CLAIMS if claim.figure == part.figure]
    drawn = None if isinstance(drawing, str) else replace(drawing, figure=kept(drawing.figure, drawing.height))
    return Written(part, f"figure-{part.figure}", drawn, drawing if isinstance(drawing, str) else "", claims)


def _write_html(path: Path, figure: go.Figure) -> None:
    figure.write_html(path, include_plotlyjs=f"../{PLOTLY}", config=GRAPH_CONFIG)


def write_about(path: Path, *, part: Part, runs: Sequence[RunSummary]) -> None:
    """Beside a figure's numbers: which figure it is, and the runs that it is drawn from, with their cards."""
    about = {"figure": part.figure, "title": part.title, "runs": [run.model_dump(mode="json") for run in runs]}
    path.write_text(json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def write_table(path: Path, table: Table) -> None:
    """Columns as CSV; what is not there is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
