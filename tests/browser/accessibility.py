"""What axe finds wrong with a page."""

from importlib.resources import files

from playwright.sync_api import Page, expect

RUN = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter((found) => ['serious', 'critical'].includes(found.impact))
    .map((found) => found.id + ': ' + found.help + ' ' + found.nodes.slice(0, 5).map((n) => n.html).join(' | '))"""


def violations(page: Page) -> list[str]:
    expect(page.locator("[data-outdated]")).to_have_count(0)  # what is dimmed until its successor is there
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    return list(page.evaluate(RUN))
