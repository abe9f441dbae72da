"""The neuron page in a real Chromium: a threshold, a context without the neuron, neighbours, keys."""

import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, Visit
from tests.browser.neuron_page import open_neuron

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_the_threshold_tells_the_share_above_it(visit: Visit, site: Site) -> None:
    page = visit.page
    histogram = httpx.get(f"{open_neuron(page, site)}/histogram").json()
    slider = page.get_by_role("slider", name="Threshold of the activation")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#neuron-share")).to_contain_text("(100.0 %)")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    above = sum(histogram["counts"][20:])
    expect(page.locator("#neuron-share")).to_contain_text(f": {above} of {sum(histogram['counts'])} positions")
    line = (
        "document.querySelector('#neuron-histogram .js-plotly-plot').layout.shapes.find(s => s.name === 'threshold').x0"
    )
    page.wait_for_function(f"Math.abs({line} - {histogram['edges'][20]}) < 1e-9")
    assert page.url.endswith("/n/1/3"), "the slider's arrows do not leave the page"


@pytest.mark.parametrize("kind", ["set to mean", "clip at mean"])
def test_a_context_is_shown_without_the_neuron(kind: str, visit: Visit, site: Site) -> None:
    page = visit.page
    at = open_neuron(page, site)
    page.get_by_text(kind, exact=True).click()
    context = page.locator(".context").first
    button = context.get_by_role("button", name="Without the neuron")
    button.click()
    expect(context.get_by_text("Loss without it")).to_be_visible()
    shown = httpx.get(f"{at}/contexts").json()["contexts"][0]
    body = {"kind": kind.split()[0].replace("set", "mean")}
    found = httpx.post(f"{at}/contexts/{shown['id']}/ablate", json=body).json()
    changed = sum(a != b for a, b in zip(found["activations_before"], found["activations_after"], strict=True))
    expect(context).to_contain_text(f"{changed} of {len(found['tokens'])} activations change")
    expect(context.locator(".strip")).to_have_count(5)
    button.click()
    expect(context.locator(".strip")).to_have_count(1)


def test_another_kind_is_asked_for_where_a_context_is_open(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    context = page.locator(".context").first
    context.get_by_role("button", name="Without the neuron").click()
    expect(context).to_contain_text("set to mean:")
    page.get_by_text("set to 0", exact=True).click()
    expect(context).to_contain_text("set to 0:")
    expect(page.locator(".context").nth(1).locator(".strip")).to_have_count(1)


def publish(site: Site, status: str, counted: int) -> None:
    """Let the run look as it does while it grows."""
    with sqlite3.connect(site.atlas.path, timeout=30) as atlas:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        row = (status, counted, now, site.atlas.run)
        atlas.execute("UPDATE runs SET status = ?, tokens_counted = ?, heartbeat = ? WHERE id = ?", row)
    atlas.close()


@pytest.fixture
def growing(site: Site) -> Iterator[None]:
    with sqlite3.connect(site.atlas.path) as atlas:
        was = atlas.execute("SELECT status, tokens_counted FROM runs WHERE id = ?", (site.atlas.run,)).fetchone()
    atlas.close()
    publish(site, "running", 41)
    yield
    publish(site, *was)


@pytest.mark.usefixtures("growing")
def test_what_is_open_stays_open_while_the_run_grows(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    context = page.locator(".context").first
    context.get_by_role("button", name="Without the neuron").click()
    expect(context).to_contain_text("set to mean:")
    page.get_by_role("slider", name="Threshold of the activation").focus()
    page.keyboard.press("Home")
    expect(page.locator("#neuron-share")).to_contain_text("(100.0 %)")
    publish(site, "running", 43)
    page.evaluate("window.dash_clientside.set_props('neuron-poll', {n_intervals: 1})")
    expect(page.locator(".neuron-head")).to_contain_text("43 of")
    expect(context).to_contain_text("set to mean:")
    expect(page.locator("#neuron-share")).to_contain_text("(100.0 %)")
    assert page.locator("#neuron-measured .js-plotly-plot").count() >= 2


def test_keys_lead_to_the_neighbours(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    title = page.get_by_role("heading", level=1)
    for key, index in (("]", 4), ("ArrowRight", 5), ("ArrowLeft", 4), ("[", 3)):
        page.keyboard.press(key)
        expect(title).to_have_text(f"Neuron {site.atlas.layer}.{index}")
    open_neuron(page, site, 0)
    page.keyboard.press("[")
    expect(title).to_have_text(f"Neuron {site.atlas.layer}.0")


def test_a_similar_neuron_is_one_click_away(visit: Visit, site: Site) -> None:
    page = visit.page
    nearest = httpx.get(f"{open_neuron(page, site)}/similar").json()["by_weights"][0]["neuron"]
    page.locator(".similar").first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neuron {nearest}")


def test_a_figure_can_be_saved(visit: Visit, site: Site) -> None:
    page = visit.page
    open_neuron(page, site)
    page.locator("#neuron-histogram").hover()
    with page.expect_download() as saved:
        page.locator("#neuron-histogram .modebar-btn[data-title^='Download']").click()
    assert re.fullmatch(r"calibroscope.*\.(svg|png)", saved.value.suggested_filename)
