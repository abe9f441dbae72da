"""Token frequency in a real Chromium: its page, Figure 3c, and the Text lab's distance from it."""

import httpx
import pytest
from playwright.sync_api import expect

from app.notation.numbers import number, signed
from tests.browser.conftest import Site, Visit
from tests.browser.pages import press_analyse

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_the_atlas_leads_to_figure_3a_and_the_address_keeps_it(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(site.address)
    page.locator("#atlas-banner").get_by_role("link", name="Token frequencies").click()
    expect(page.locator("#frequency-figure .scatterlayer .point").first).to_be_visible()
    run = site.atlas.run
    positions = httpx.get(f"{site.address}/api/v1/runs/{run}/positions").json()
    expect(page.locator("#frequency-figure .scatterlayer .point")).to_have_count(len(positions["kl"]))
    told = f"r = {number(positions['correlation'])}"
    expect(page.locator("#frequency-body")).to_contain_text(told)
    expect(page.locator("#frequency-facts")).to_contain_text("mean prediction over the sample")
    most = httpx.get(f"{site.address}/api/v1/runs/{run}/frequencies").json()["most"]
    rows = page.locator(".frequent").first.locator("tbody tr")
    expect(rows).to_have_count(len(most))
    expect(rows.first).to_contain_text(str(most[0]["token_id"]))
    page.wait_for_url(f"**/frequency?model={site.atlas.slug}&run={run}")
    page.reload()
    expect(page.locator("#frequency-body")).to_contain_text(told)


def test_a_neuron_has_figure_3c_and_the_direction_in_words(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/m/{site.atlas.slug}/n/{site.atlas.layer}/3")
    panel = page.locator("section", has=page.get_by_role("heading", name="Total effect against effect without"))
    expect(panel.locator(".boxlayer .box")).to_have_count(4)
    name = f"{site.atlas.layer}.3"
    detail = httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/neurons/{name}").json()
    cosine = detail["row"]["metrics"]["freq_alignment"]
    expect(panel).to_contain_text(signed(cosine))


def test_the_lab_shows_the_distance_and_what_an_intervention_does_to_it(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/lab?neuron={site.atlas.layer}.3")
    expect(page.locator("#lab-model")).not_to_have_value("")
    press_analyse(page)
    canvas = page.locator("#lab-canvas")
    expect(canvas.get_by_text("KL from token frequencies", exact=True)).to_be_visible()
    expect(canvas.get_by_text("Change of KL from token frequencies", exact=True)).to_be_visible()
    expect(page.locator("#lab-result")).to_contain_text("Mean KL from token frequencies")
    expect(page.locator("#lab-notes")).to_contain_text(f"(run {site.atlas.run})")
