"""The compare page in a real Chromium: two runs, a click on a neuron, another metric, the address, and a text."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site, Visit, open_context, serving, watch
from tests.conftest import ComparedAtlas, TinyAtlas

pytestmark = [pytest.mark.slow, pytest.mark.browser]

PLOT = "document.querySelector('#compare-figure .js-plotly-plot')"
PLACE = """plot => {
    const neurons = plot._fullData.find((one) => one.customdata && one.customdata.length);
    const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
    return [box.x + xaxis._offset + xaxis.d2p(neurons.x[0]), box.y + yaxis._offset + yaxis.d2p(neurons.y[0])];
}"""
"""Where a figure's first neuron is on the page."""


@pytest.fixture(scope="module")
def pair(compared_atlas: ComparedAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    atlas = TinyAtlas(compared_atlas.path, compared_atlas.slug, compared_atlas.first, 1, 0)
    with serving(atlas, tmp_path_factory.mktemp("cache")) as site:
        yield site


@pytest.fixture
def visit(chromium: Browser, pair: Site) -> Iterator[Visit]:
    context = open_context(chromium)
    seen = watch(context.new_page(), pair)
    yield seen
    context.close()
    assert (seen.errors, seen.elsewhere) == ([], [])


def test_two_runs_a_chosen_neuron_and_the_address(visit: Visit, pair: Site, compared_atlas: ComparedAtlas) -> None:
    page, runs = visit.page, compared_atlas
    page.goto(f"{pair.address}/compare?model={runs.slug}&run={runs.first}&other_model={runs.slug}&other={runs.second}")
    expect(page.get_by_text("Spearman's rank correlation of Total effect TE")).to_be_visible()
    expect(page.get_by_text("Their weights are the same")).to_be_visible()
    figure = page.locator("#compare-figure .js-plotly-plot")
    figure.scroll_into_view_if_needed()
    expect(page.locator(".run-card")).to_have_count(2)  # they come above the figure, and move it
    x, y = figure.evaluate(PLACE)
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    page.wait_for_function(f"{PLOT}._hoverdata?.length > 0")
    page.mouse.click(x, y)
    chosen = page.get_by_role("region", name="Chosen neurons in both runs")
    expect(chosen.locator("tbody tr")).to_have_count(1)
    name = chosen.locator("tbody th").inner_text()
    expect(chosen.get_by_role("link")).to_have_text([f"run {runs.first}", f"run {runs.second}"])
    page.wait_for_url(f"**neurons={name}*")
    page.locator("#compare-metric").click()
    page.get_by_role("option", name="Null-space fraction").click()
    expect(page.get_by_text("rank correlation of Null-space fraction ρ in the two runs is 1.000")).to_be_visible()
    page.get_by_label("Errors of all neurons").check(force=True)
    page.wait_for_url("**metric=null_fraction*bars=1*")
    page.reload()
    expect(page.get_by_role("heading", name="Null-space fraction ρ against itself")).to_be_visible()
    expect(chosen.locator("tbody th")).to_have_text(name)
    chosen.get_by_role("link", name=f"run {runs.second}").click()
    page.wait_for_url(f"**/m/{runs.slug}/n/**run={runs.second}")


def test_two_models_read_one_text(visit: Visit, pair: Site, compared_atlas: ComparedAtlas) -> None:
    page, runs = visit.page, compared_atlas
    page.goto(f"{pair.address}/compare?model={runs.slug}&run={runs.first}&other_model={runs.other_slug}")
    expect(page.get_by_text("Neurons do not correspond")).to_be_visible()
    expect(page.get_by_role("region", name="How far every metric agrees")).to_be_visible()
    assert page.locator("#compare-figure").count() == 0
    page.get_by_label("Text").fill("The lamp is lit <b>now</b>.")
    page.get_by_role("button", name="Read with both").click()
    strips = page.locator("#compare-canvas .strip")
    expect(strips.first).to_contain_text("<b>")
    assert strips.count() >= 5
    predicted = page.get_by_role("region", name="How well both models predict the text")
    expect(predicted).to_be_visible()
    page.locator("#compare-metric").click()
    page.get_by_role("option", name="Weight norm").click()
    expect(page.get_by_role("heading", name="Weight norm ‖w_out‖: how it is distributed")).to_be_visible()
    page.wait_for_timeout(500)
    expect(predicted).to_be_visible()
    page.locator("#compare-other-model").click()
    page.get_by_role("listbox", name="Second model").get_by_role("option", name=runs.slug).click()
    expect(page.get_by_text("Their weights are the same")).to_be_visible()
    expect(strips).to_have_count(0)
    expect(predicted).to_have_count(0)


def test_a_narrow_page_has_no_sideways_scrolling(chromium: Browser, pair: Site, compared_atlas: ComparedAtlas) -> None:
    context = open_context(chromium, width=380)
    page = watch(context.new_page(), pair).page
    page.goto(f"{pair.address}/compare?model={compared_atlas.slug}&run={compared_atlas.first}")
    expect(page.get_by_role("region", name="The most changed neurons")).to_be_visible()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert wide == 0
