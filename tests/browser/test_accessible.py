"""axe-core finds no serious violation on any page, in light or dark."""

from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Site, open_context

pytestmark = [pytest.mark.browser, pytest.mark.slow]

INDUCTION = (
    "/induction?go=1&span=8&sequences=3&neurons=1.3,1.5&parts=curves,clip,change,heads,bos,mean_output,attribution"
)
RUN = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter((found) => ['serious', 'critical'].includes(found.impact))
    .map((found) => found.id + ': ' + found.help + ' ' + found.nodes.slice(0, 5).map((n) => n.html).join(' | '))"""


def _violations(page: Page) -> list[str]:
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    return list(page.evaluate(RUN))


def _open(page: Page, site: Site, path: str) -> None:
    page.goto(site.address + path)
    page.wait_for_selector("h1", state="attached")
    if path == "/":
        page.wait_for_selector("#atlas-graph .js-plotly-plot")
        page.wait_for_selector(".ag-row")
    elif path.startswith("/lab"):
        page.get_by_role("button", name="Analyse").click()
        expect(page.locator(".strip.clickable").first).to_be_visible()
        page.locator(".strip.clickable [data-token='2']").first.click()
        expect(page.locator("#lab-who tbody tr").first).to_be_visible()
    elif path.startswith("/induction"):
        expect(page.get_by_text("Measured in")).to_be_visible(timeout=120_000)
        expect(page.locator(".page-main .js-plotly-plot").last).to_be_visible()
    elif path == "/jobs":
        expect(page.get_by_text("No job yet")).to_be_visible()
    elif path == "/frequency":
        page.wait_for_selector("#frequency-figure .js-plotly-plot .main-svg")
    elif path == "/spectrum":
        page.wait_for_selector("#spectrum-body .js-plotly-plot .main-svg")
    elif path.startswith("/m/"):
        page.wait_for_selector(".panel .js-plotly-plot")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/m/llama/n/1/3",
        "/lab?neuron=1.3",
        pytest.param(INDUCTION, id="/induction"),
        "/jobs",
        "/frequency",
        "/spectrum",
        "/glossary",
        "/no/such/page",
    ],
)
def test_axe_finds_nothing_serious(path: str, chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = context.new_page()
    _open(page, site, path)
    light = _violations(page)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    page.wait_for_timeout(300)
    dark = _violations(page)
    context.close()
    assert (light, dark) == ([], [])


def test_axe_would_notice(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = context.new_page()
    _open(page, site, "/no/such/page")
    page.evaluate("document.querySelector('main').innerHTML = '<img src=\"data:,\"><input>'")
    found = _violations(page)
    context.close()
    assert any(line.startswith("image-alt") for line in found)
    assert any(line.startswith("label") for line in found)
