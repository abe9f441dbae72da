"""The frame: the tour, the glossary, skipping to the content."""

import re

import pytest
from playwright.sync_api import Browser, expect

from app.pages.atlas import table
from app.tour import STEPS
from tests.browser.conftest import Site, Visit, open_context, watch

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("width", [1366, 380])
def test_the_tour_is_offered_once_and_points_at_what_it_names(width: int, chromium: Browser, site: Site) -> None:
    context = open_context(chromium, width=width, first_time=True)
    seen = watch(context.new_page(), site)
    page = seen.page
    page.goto(site.address)
    page.get_by_role("button", name="Take the tour").click()
    for place, step in enumerate(STEPS):
        expect(page.get_by_role("dialog", name=f"{place + 1} of {len(STEPS)}: {step.title}")).to_be_visible()
        expect(page.locator(f"{step.target}[data-tour]")).to_be_visible()
        assert page.url.removeprefix(site.address).split("?")[0] == step.path
        expect(page.locator(".tour-buttons button").last).to_be_focused()
        page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("[data-tour]")).to_have_count(0)
    page.reload()
    page.wait_for_selector("#lab-text")
    page.wait_for_timeout(600)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Tour").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    context.close()
    assert seen.errors == []


def test_the_glossary_has_every_metric_and_its_formula(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/")
    page.get_by_role("link", name="Glossary").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Glossary")
    expect(page.locator("#direct_effect_ln + dd")).to_contain_text("norm's scale held")
    expect(page.locator("#total_effect")).to_contain_text("Eq. 5")


def test_the_skip_link_skips(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/glossary")
    page.wait_for_selector("h1")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**#content")
    expect(page.locator("#content")).to_be_focused()


def test_every_clientside_callback_names_a_function(visit: Visit, site: Site) -> None:
    visit.page.goto(f"{site.address}/glossary")
    visit.page.wait_for_selector("h1")
    kinds = visit.page.evaluate("Object.values(dash_clientside._dashprivate_clientside_funcs).map((one) => typeof one)")
    assert len(kinds) > 30
    assert set(kinds) == {"function"}


def test_the_tables_functions_are_there(visit: Visit, site: Site) -> None:
    visit.page.goto(f"{site.address}/glossary")
    visit.page.wait_for_selector("h1")
    named = set(re.findall(r"\b(calibroscope\w+)\(", str(table.section(""))))
    assert len(named) > 5
    assert set(visit.page.evaluate("Object.keys(dashAgGridFunctions)")) == named
