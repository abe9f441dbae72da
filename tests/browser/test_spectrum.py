"""The spectrum page in a real Chromium: from a neuron to it, other neurons, and the address."""

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, Visit

pytestmark = [pytest.mark.slow, pytest.mark.browser]
LINES = "#spectrum-body .js-plotly-plot >> nth=0"


def test_a_neuron_leads_to_its_cosines_and_others_join_it(visit: Visit, site: Site) -> None:
    page, layer = visit.page, site.atlas.layer
    page.goto(f"{site.address}/m/{site.atlas.slug}/n/{layer}/3")
    page.get_by_role("link", name="Beside other neurons").click()
    table = page.get_by_role("region", name="Where the neurons write")
    expect(table.get_by_role("link")).to_have_text([f"{layer}.3"])
    written = httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/spectrum?neuron={layer}.5").json()
    box = page.get_by_role("textbox", name="Neurons")
    box.fill(f"{layer}.3, {layer}.5, {layer}.99999")
    box.press("Enter")
    expect(table.get_by_role("link")).to_have_text([f"{layer}.3", f"{layer}.5"])
    expect(page.get_by_role("alert")).to_contain_text(f"{layer}.99999")
    drawn = page.locator(LINES).evaluate("plot => plot._fullData.map(line => [line.name, line.y.length])")
    assert [name for name, _ in drawn] == ["singular value of W_U", f"|cos| of {layer}.3", f"|cos| of {layer}.5"]
    assert {length for _, length in drawn} == {len(written["singular_values"])}
    most = max(range(len(written["cosines"])), key=written["cosines"].__getitem__)
    expect(table.locator("tbody tr").nth(1)).to_contain_text(f"direction {most} of 0 to")
    before = page.locator(LINES).evaluate("plot => plot._fullLayout.xaxis.range[0]")
    page.get_by_label("The null space from close by").check(force=True)
    page.wait_for_function(f"document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range[0] > {before}")
    page.wait_for_url("**neurons=*99999*close=1")
    page.reload()
    expect(table.get_by_role("link")).to_have_text([f"{layer}.3", f"{layer}.5"])


def test_it_starts_with_the_runs_own_neurons(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(site.address)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Spectrum").click()
    expect(page.get_by_role("region", name="Where the neurons write").get_by_role("link").first).to_be_visible()
    expect(page.get_by_role("textbox", name="Neurons")).not_to_have_value("")
    expect(page.get_by_role("region", name="Singular values in numbers")).to_be_visible()
