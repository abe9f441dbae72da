"""A changed setting dims what it has outdated at once, until its successor is there or an error is said."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser.atlas_page import open_atlas
from tests.browser.conftest import Site, Visit, open_context, watch
from tests.browser.induction_page import open_page, run, small
from tests.browser.neuron_page import open_neuron
from tests.browser.pages import press_analyse

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CALLBACKS = "**/_dash-update-component*"
SOON = """([region]) => new Promise((done) => {
    const asked = window.fetch;
    window.fetch = (...given) => {
        window.fetch = asked;
        const begun = performance.now();
        const look = () => (document.querySelector(region).dataset.outdated ? done(performance.now() - begun)
            : performance.now() - begun > 5000 ? done(null) : setTimeout(look, 5));
        look();
        return asked(...given);
    };
    document.querySelector("[data-test-press]").click();
})"""


@contextmanager
def slow_service(page: Page) -> Iterator[list[Route]]:
    """While it lasts, no answer comes; then all that were waited for do."""
    waiting: list[Route] = []
    page.route(CALLBACKS, lambda route: waiting.append(route))
    yield waiting
    for route in waiting:  # first: taking the route away answers those that wait
        route.continue_()
    page.unroute(CALLBACKS)


def is_dimmed(region: Locator) -> None:
    expect(region).to_have_attribute("aria-busy", "true")
    expect(region).to_have_attribute("data-outdated", re.compile("^Computing… "))
    part = region.locator("> *").first
    assert float(part.evaluate("one => getComputedStyle(one).opacity")) < 0.5


def intervened(page: Page, site: Site) -> Locator:
    """The lab with an intervention; the table of its totals."""
    page.goto(f"{site.address}/lab?neuron={site.atlas.layer}.3")
    expect(page.locator("#lab-model")).to_have_value(site.atlas.slug)
    press_analyse(page)
    result = page.locator("#lab-result")
    expect(result.locator(".totals")).to_be_visible()
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    return result


def test_an_intervention_dims_the_numbers_of_the_one_before(visit: Visit, site: Site) -> None:
    page = visit.page
    result = intervened(page, site)
    before = result.inner_text()
    page.get_by_label("Neuron or head to intervene on").fill("L0H1")
    with slow_service(page) as waiting:
        page.get_by_role("button", name="Add", exact=True).click()
        page.wait_for_timeout(300)
        for route in waiting:  # what adds the row; the effect of it is asked for next
            route.continue_()
        waiting.clear()
        is_dimmed(result)
        is_dimmed(page.locator("#lab-canvas"))
        expect(result).to_have_attribute("data-outdated", re.compile("[1-9] s$"))
        assert result.inner_text() == before, "it stays to be read"
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    expect(result).to_have_attribute("aria-busy", "false")
    expect(result).not_to_have_text(before)


def test_it_is_dimmed_within_a_tenth_of_a_second(visit: Visit, site: Site) -> None:
    page = visit.page
    result = intervened(page, site)
    with slow_service(page):
        page.get_by_role("button", name="Analyse").evaluate("one => one.dataset.testPress = ''")
        took = page.evaluate(SOON, ["#lab-result"])
    assert took is not None
    assert took < 250, "60 ms, and what a loaded machine adds"
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    expect(result).to_have_attribute("aria-busy", "false")


def test_an_error_ends_it_with_a_sentence(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = watch(context.new_page(), site).page  # the failed request is meant, so errors are not checked
    result = intervened(page, site)
    page.route(CALLBACKS, lambda route: route.fulfill(status=500, body="{}"))
    press_analyse(page)
    expect(page.locator(".offline")).to_contain_text("may be out of date")
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    assert result.locator(".totals").is_visible()
    context.close()


def test_another_kind_of_ablation_dims_the_context_of_the_one_before(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    page.locator(".context").first.get_by_role("button", name="Without the neuron").click()
    shown = page.locator(".context").first.locator("[id*='neuron-context-ablated']")
    expect(shown.get_by_text("Loss without it")).to_be_visible()
    with slow_service(page):
        page.get_by_role("radiogroup", name="Kind of ablation").get_by_text("set to 0").click()
        is_dimmed(shown)
    expect(shown.get_by_text("set to 0")).to_be_visible()
    page.wait_for_function("!document.querySelector('[data-outdated]')")


def test_other_axes_dim_the_sentences_of_those_before(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    expect(page.locator("#atlas-sentences")).not_to_be_empty()
    with slow_service(page):
        page.get_by_role("button", name="Figure 1", exact=True).click()
        expect(page.locator("#atlas-sentences")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#atlas-sentences")).to_contain_text("how sure the model is")
    page.wait_for_function("!document.querySelector('[data-outdated]')")


def test_induction_of_other_settings_is_marked_until_it_is_run_again(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site))
    run(page)
    panel = page.locator(".panel[id]:visible").first
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    page.get_by_role("textbox", name="Seed").fill("9")
    page.get_by_role("textbox", name="Seed").blur()
    expect(panel).to_have_attribute("data-outdated", "Of the settings before: press Run.")
    run(page)
    page.wait_for_function("!document.querySelector('[data-outdated]')")
