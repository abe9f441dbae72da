"""What a first reader stumbled over: figures that went back, pages that vanished, names that were cut off."""

import re

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.atlas_page import PLOT, drag, open_atlas, rows_shown
from tests.browser.conftest import Site, Visit, open_context, watch
from tests.browser.neuron_page import open_neuron

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def shown_axis(page: Page) -> str:
    """What the figure shows: the axis' title, and the first points on it."""
    return str(page.evaluate(f"{PLOT}.layout.xaxis.title.text + {PLOT}.data[0].x.slice(0, 5).join()"))


def to_preset(page: Page) -> str:
    """Leave the starting view for another; what its horizontal axis shows."""
    page.get_by_role("button", name="Figures 2e").click()
    page.wait_for_function(f"{PLOT}.layout.xaxis.title.text.startsWith('Null')")
    return shown_axis(page)


def test_moving_keeps_the_view_that_was_chosen(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "")
    axis, before = to_preset(page), f"{PLOT}._fullLayout.xaxis.range.join()"
    plot = page.locator("#atlas-graph .nsewdrag")
    plot.scroll_into_view_if_needed()
    box, was = plot.bounding_box(), page.evaluate(before)
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3, steps=5)
    page.mouse.up()
    page.wait_for_function(f"{before} !== '{was}'")
    page.wait_for_timeout(1_000)  # what is drawn late, by a component that knows an older figure
    assert shown_axis(page) == axis


def median_share(page: Page) -> float:
    """How far across the figure the middle neuron lies: lines of chance may lie beyond all of them."""
    return float(
        page.evaluate(
            f"""() => {{
                const axis = {PLOT}._fullLayout.xaxis;
                const drawn = {PLOT}.data.filter((t) => t.meta && t.visible && t.marker.symbol !== "circle-open");
                const places = drawn.flatMap((t) => Array.from(t.x)).map((x) => axis.l2p(axis.d2l(x)) / axis._length);
                return places.sort((a, b) => a - b)[Math.floor(places.length / 2)];
            }}"""
        )
    )


@pytest.mark.parametrize("kind", ["Box", "Lasso"])
def test_points_are_selected_in_a_view_that_was_chosen(kind: str, visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "")
    axis, every = to_preset(page), rows_shown(page)
    drag(page, kind, 0.002, 0.002, median_share(page), 0.998)
    expect(page.locator("#atlas-picked-bar")).to_be_visible()
    expect(page.locator("#atlas-count")).not_to_have_text(re.compile(f"^{every:,} of"))
    assert 0 < rows_shown(page) < every
    assert shown_axis(page) == axis


def test_the_page_stays_while_a_context_is_asked_for(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    waiting: list[Route] = []
    page.route("**/_dash-update-component*", lambda route: waiting.append(route))
    button = page.locator(".context").first.get_by_role("button", name="Without the neuron")
    button.click()
    expect(button).to_have_attribute("data-loading", "true")
    page.wait_for_timeout(800)  # longer than a spinner waits before it covers what is loading
    hides = "one => getComputedStyle(one).visibility"
    assert page.get_by_role("heading", level=1).evaluate(hides) == "visible"
    for route in waiting:
        route.continue_()
    page.unroute("**/_dash-update-component*")
    expect(page.get_by_text("Loss without it")).to_be_visible(timeout=60_000)


def test_thousands_of_pins_do_not_stop_the_page(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "")
    many = [f"{site.atlas.layer}.{place % 44}" for place in range(5_000)]
    page.evaluate(
        "many => localStorage.setItem('pins', JSON.stringify(many))", {site.atlas.slug: many, "x": [1, "<b>"]}
    )
    page.evaluate("localStorage.setItem('pins-timestamp', '1')")
    open_atlas(page, site, "")
    expect(page.locator(".pin.chip")).to_have_count(40)


def test_a_figure_without_classes_says_so(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "?hide=plain,entropy,prediction,token_frequency")
    expect(page.get_by_text("All classes are hidden")).to_be_visible()
    page.get_by_role("checkbox", name="Plain neurons").focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("All classes are hidden")).to_have_count(0)


def test_a_run_that_is_not_there_is_not_passed_over(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "?run=99")
    expect(page.get_by_text(f"this is run {site.atlas.run}")).to_be_visible()
    open_atlas(page, site, f"?run={site.atlas.run}")
    expect(page.get_by_text(f"this is run {site.atlas.run}")).to_have_count(0)


def test_a_service_that_does_not_answer_is_said_until_it_does(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = watch(context.new_page(), site).page  # the failed request is meant, so errors are not checked
    page.goto(f"{site.address}/lab")
    analyse = page.get_by_role("button", name="Analyse")
    expect(page.locator("#lab-model")).not_to_have_value("")
    page.locator("#lab-text").fill("A lamp.")
    page.route("**/_dash-update-component*", lambda route: route.abort())
    analyse.click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    page.unroute("**/_dash-update-component*")
    page.route("**/_dash-update-component*", lambda route: route.fulfill(status=500, body="{}"))
    analyse.click()
    expect(page.get_by_role("alert")).to_contain_text("met an error")
    page.unroute("**/_dash-update-component*")
    analyse.click()
    expect(page.locator("#lab-canvas .strip").first).to_be_visible(timeout=60_000)
    expect(page.locator(".offline")).to_have_count(0)
    context.close()
