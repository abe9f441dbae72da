"""Every page of the site with all that it can show, for what must hold of all of them."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site

LAB = "/lab?neuron=1.3"
INDUCTION = (
    "/induction?go=1&span=8&sequences=3&neurons=1.3,1.5&parts=curves,clip,change,heads,bos,mean_output,attribution"
)
COMPARE = "/compare?other=1&neurons=1.3"
"""A run beside itself: the atlas has one."""
PATHS = {
    "atlas": ["/"],
    "neuron": ["/m/llama/n/1/3"],
    "lab": [LAB],
    "induction": [INDUCTION],
    "jobs": ["/jobs"],
    "runs": ["/runs"],
    "compare": [COMPARE],
    "frequency": ["/frequency"],
    "spectrum": ["/spectrum"],
    "training": ["/training?training=trained&metric=null_fraction&log=1"],
    "glossary": ["/glossary"],
    "not_found_404": ["/no/such/page"],
}
"""By the name under which Dash knows the page."""
WITHOUT_FIGURES = ("/jobs", "/runs", "/glossary", "/no/such/page")
ALL = [path for paths in PATHS.values() for path in paths]


def press_analyse(page: Page) -> None:
    """Press Analyse once the Text lab knows which models there are, as a person who reads the page does."""
    expect(page.locator("#lab-model")).not_to_have_value("")
    page.get_by_role("button", name="Analyse").click()


def open_filled(page: Page, site: Site, path: str) -> None:
    """A page with all that it can show, if need be after a click."""
    page.goto(site.address + path)
    page.wait_for_selector("h1", state="attached")
    if path == "/":
        page.wait_for_selector("#atlas-graph .js-plotly-plot")
        page.wait_for_selector(".ag-row")
    elif path.startswith("/lab"):
        press_analyse(page)
        expect(page.locator(".strip.clickable").first).to_be_visible()
        page.locator(".strip.clickable [data-token='2']").first.click()
        expect(page.locator("#lab-who tbody tr").first).to_be_visible()
    elif path.startswith("/induction"):
        expect(page.get_by_text("Measured in")).to_be_visible(timeout=120_000)
        expect(page.locator(".page-main .js-plotly-plot").last).to_be_visible()
    elif path == "/jobs":
        expect(page.get_by_text("No job yet")).to_be_visible()
    elif path == "/runs":
        expect(page.get_by_role("link", name="Run 1", exact=True)).to_be_visible()
    elif path.startswith("/compare"):
        page.wait_for_selector("#compare-figure .js-plotly-plot .main-svg")
        page.get_by_role("button", name="Read with both").click()
        expect(page.locator("#compare-canvas .strip").first).to_be_visible()
    elif path == "/frequency":
        page.wait_for_selector("#frequency-figure .js-plotly-plot .main-svg")
    elif path == "/spectrum":
        page.wait_for_selector("#spectrum-body .js-plotly-plot .main-svg")
    elif path.startswith("/training"):
        expect(page.locator("#training-body .js-plotly-plot .main-svg").first).to_be_visible()
        expect(page.get_by_role("link", name="Run 1", exact=True)).to_be_visible()
    elif path.startswith("/m/"):
        page.wait_for_selector(".panel .js-plotly-plot")
