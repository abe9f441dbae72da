"""The documentation: what it names exists, links lead somewhere, and every metric is defined as the code has it."""

import re
from pathlib import Path

import pytest

from backend.glossary import METRIC, METRICS

ROOT = Path(__file__).parent.parent
SCIENCE = ROOT / "docs" / "science.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Pages that speak of the project as it is; a changelog speaks of files that were."""

_SUFFIXES = r"py|js|css|md|sh|toml|ya?ml|txt"
_ROOMS = r"app|backend|precompute|static|tests|docs|\.ci"
_PATH = re.compile(rf"(?:{_ROOMS})/[\w./*-]*|[\w.-]+(?:/[\w.*-]+)*\.(?:{_SUFFIXES})")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _missing_paths(text: str) -> list[str]:
    """Paths of the repository, in backticks, that are not there."""
    spans = re.findall(r"`([^`\n]+)`", text)
    return [span for span in spans if _PATH.fullmatch(span) and not any(ROOT.glob(span.rstrip("/")))]


def _anchors(page: Path) -> set[str]:
    """What a link into a page may name, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken_links(page: Path, text: str) -> list[str]:
    """Relative links that lead nowhere, to no file or to no heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", _NOW, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    assert not _missing_paths(_prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert not _broken_links(page, _prose(page))


def test_what_is_wrong_is_noticed() -> None:
    wrong = "`backend/core/no_such.py`, `test_docs.py`, `tests/nowhere/`, [a](docs/none.md), [b](science.md#no-heading)"
    assert _missing_paths(wrong) == ["backend/core/no_such.py", "test_docs.py", "tests/nowhere/"]
    assert _broken_links(SCIENCE, wrong) == ["docs/none.md", "science.md#no-heading"]
    right = "`tests/test_docs.py`, `backend/core/`, `docs/*.md`, [a](science.md#symbols), [b](https://example.org)"
    assert not _missing_paths(right)
    assert not _broken_links(SCIENCE, right)


def _defined() -> dict[str, list[str]]:
    """The rows of the table of metrics by name, without it."""
    table = SCIENCE.read_text(encoding="utf-8").split("## Metrics of a neuron")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_every_metric_is_defined_in_the_order_of_the_glossary() -> None:
    assert list(_defined()) == [metric.name for metric in METRICS]


@pytest.mark.parametrize("name", METRIC)
def test_a_metric_is_as_the_glossary_has_it(name: str) -> None:
    unit, stage, error, equation, definition = _defined()[name]
    metric = METRIC[name]
    expected = (metric.unit or "–", metric.stage, "±" if metric.has_se else "", metric.equation)
    assert (unit, stage, error, equation) == expected
    assert definition
