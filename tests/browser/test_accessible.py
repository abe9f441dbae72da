"""Of every page: axe-core finds no serious violation, in light or dark, and nothing leads to another machine."""

import pytest
from dash import page_registry
from playwright.sync_api import Browser, expect

from tests.browser.accessibility import violations
from tests.browser.conftest import Site, open_context, watch
from tests.browser.leaving import leads_nowhere
from tests.browser.pages import ALL, PATHS, WITHOUT_FIGURES, open_filled

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_every_page_is_looked_at(site: Site) -> None:
    assert {page["module"] for page in page_registry.values()} == set(PATHS)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.split("?")[0])
def test_axe_finds_nothing_serious_and_nothing_leads_elsewhere(path: str, chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    seen = watch(context.new_page(), site)
    page = seen.page
    open_filled(page, site, path)
    light = violations(page)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    page.wait_for_timeout(300)
    dark = violations(page)
    assert (leads_nowhere(page, site.address) > 0) == (path not in WITHOUT_FIGURES)
    context.close()
    assert (light, dark) == ([], [])
    assert seen.elsewhere == []


def test_axe_would_notice(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = context.new_page()
    open_filled(page, site, "/no/such/page")
    page.evaluate("document.querySelector('main').innerHTML = '<img src=\"data:,\"><input>'")
    found = violations(page)
    context.close()
    assert any(line.startswith("image-alt") for line in found)
    assert any(line.startswith("label") for line in found)
