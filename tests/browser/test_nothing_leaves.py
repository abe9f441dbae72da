"""Nothing offers to leave the machine: no toolbar, link or request of a page or a report leads elsewhere.

The pages themselves are read where all of them are opened, in test_accessible.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, expect

from app.reproduce import write
from app.reproduce.parts import PARTS
from app.reproduce.report import write_report
from app.reproduce.stills import NoStills
from backend.client import AsyncClient
from tests.browser.conftest import Site, Visit, open_context
from tests.browser.leaving import leads_nowhere
from tests.browser.pages import open_filled
from tests.conftest import TinyAtlas

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_documentation_of_the_api_leads_nowhere(visit: Visit, site: Site) -> None:
    visit.page.goto(f"{site.address}/api/docs")
    expect(visit.page.locator("h1")).to_have_text("Calibroscope API")
    assert leads_nowhere(visit.page, site.address) == 0


@pytest.fixture(scope="module")
def report(tiny_service: FastAPI, tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    async def refuse(_: object) -> None:
        raise NoStills("No SVGs were drawn: there is nothing to draw them with.")

    folder = tmp_path_factory.mktemp("report")
    parts = [part for part in PARTS if not part.jobs]

    async def write_all() -> Path:
        return await write_report(AsyncClient(service=tiny_service), [tiny_atlas.run], parts, folder, lambda _: None)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as apart:  # Playwright has this thread's loop
        patch.setattr(write, "draw_stills", refuse)
        yield apart.submit(lambda: anyio.run(write_all)).result()


def test_no_figure_or_link_of_a_report_leads_elsewhere(report: Path, chromium: Browser) -> None:
    context = open_context(chromium)
    page, elsewhere, found = context.new_page(), list[str](), list[int]()
    page.on("request", lambda asked: elsewhere.append(asked.url) if not asked.url.startswith("file://") else None)
    apart = sorted((report.parent / "figures").glob("*.html"))
    assert len(apart) > 5
    for one in (report, *apart):
        page.goto(one.as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        found.append(leads_nowhere(page, "file://"))
    context.close()
    assert found == [len(apart), *[1] * len(apart)]
    assert elsewhere == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("Plotly.newPlot(document.querySelector('h1'), [{y: [1, 2]}])", "Share chart"),
        ("document.querySelector('main').innerHTML += '<a href=\"https://example.org/x\">more</a>'", "example.org"),
    ],
)
def test_it_would_notice(spoil: str, words: str, visit: Visit, site: Site) -> None:
    """Plotly's own configuration has what must not be there."""
    page = visit.page
    open_filled(page, site, "/frequency")
    page.evaluate(f"() => {{ {spoil}; }}")
    page.wait_for_timeout(300)
    with pytest.raises(AssertionError, match=words):
        leads_nowhere(page, site.address)
