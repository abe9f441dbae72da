"""Every page that shows a number of a run has the run's card, which opens by key, fits, and tells nothing private."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dash import page_registry
from playwright.sync_api import Browser, Page, expect

from backend.atlas.store import Atlas
from tests.browser.conftest import Site, open_context, serving
from tests.conftest import TinyAtlas

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WITH_NUMBERS = {
    "atlas": "/",
    "neuron": "/m/{model}/n/{layer}/3",
    "lab": "/lab",
    "induction": "/induction",
    "jobs": "/jobs",
    "frequency": "/frequency",
    "spectrum": "/spectrum",
    "compare": "/compare?model={model}&run={run}&other_model={model}&other={run}",
}
WITHOUT = {"glossary", "not_found_404", "runs", "training"}
"""Pages without any number that a run measured: the list of runs tells their sizes and leads to each, and what the page
of a training shows is of the weights alone, with its own facts beside it."""


@pytest.fixture(scope="module")
def own_site(tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a job, which the page of jobs then lists."""
    folder = tmp_path_factory.mktemp("carded")
    copy = folder / "atlas.db"
    with Atlas.open(tiny_atlas.path, read_only=True) as atlas:
        assert atlas.runs.get(tiny_atlas.run).status == "finished"
    copy.write_bytes(tiny_atlas.path.read_bytes())
    with serving(TinyAtlas(copy, *list(vars(tiny_atlas).values())[1:]), folder / "cache") as site:
        body = {
            "model": tiny_atlas.slug,
            "induction": {"source": "random", "span": 8, "sequences": 1, "neurons": ["1.3"]},
        }
        httpx.post(f"{site.address}/api/v1/jobs", json=body).raise_for_status()
        yield site


def _address(site: Site, page: str) -> str:
    return site.address + WITH_NUMBERS[page].format(model=site.atlas.slug, layer=site.atlas.layer, run=site.atlas.run)


def _opened(page: Page) -> str:
    """The card's whole text, after opening it by key."""
    summary = page.locator(".run-card summary").first
    expect(summary).to_be_visible()
    expect(summary).to_contain_text("llama · layer 1 · text.txt, 12 × 32 tokens")
    expect(summary).to_contain_text(re.compile(r"k = 1 · exact within \de−\d nats in \d+ checks · run 1$"))
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Which model").first).to_be_visible()
    return page.locator(".run-card").first.inner_text()


def test_every_page_is_known_to_have_numbers_of_a_run_or_none(own_site: Site) -> None:
    """A page that is added must be put into one of the lists."""
    assert set(page_registry) == set(WITH_NUMBERS) | WITHOUT


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_the_card_is_on_the_page_and_opens(name: str, chromium: Browser, own_site: Site) -> None:
    context = open_context(chromium, width=380, dark=name == "atlas")
    page = context.new_page()
    page.goto(_address(own_site, name))
    text = _opened(page)
    for words in (
        "SHA-256 of the weights as loaded",
        "effects are of these",
        "What the check on loading found",
        "torch ",
    ):
        assert words in text
    private = (str(own_site.atlas.path.parent), str(Path.home()), "/tmp/")
    assert not [words for words in private if words in text]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing sticks out"
    assert page.locator(".run-card").first.get_by_role("link", name="This card as JSON").get_attribute("href") == (
        f"/api/v1/runs/{own_site.atlas.run}"
    )
    context.close()


def test_the_tables_export_has_the_run_beside_it(chromium: Browser, own_site: Site) -> None:
    context = open_context(chromium)
    page = context.new_page()
    page.goto(own_site.address)
    page.wait_for_selector(".ag-row")
    link = page.get_by_role("link", name="About this run, as JSON")
    expect(link).to_have_attribute("href", f"/api/v1/runs/{own_site.atlas.run}")
    with page.expect_download() as waited:
        link.click()
    told = waited.value.path().read_text()
    assert '"checkpoint"' in told
    context.close()
