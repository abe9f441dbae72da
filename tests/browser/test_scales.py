"""The atlas's axes: which neurons a scale leaves out, and the scale that shows them."""

import pytest
from playwright.sync_api import expect

from tests.browser.atlas_page import PLOT, open_atlas
from tests.browser.conftest import Site, Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOWN = f"[...new Set({PLOT}.data.filter((one) => one.meta).flatMap((one) => one.customdata))].length"


def test_a_log_axis_says_what_it_leaves_out_and_another_scale_shows_it(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "?x=weight_norm&y=delta_loss&colour=null_fraction&yscale=log")
    said = page.locator("#atlas-undrawn")
    expect(said).to_contain_text("a value of 0 or below in Change of loss, which a logarithmic axis cannot show")
    shown = page.evaluate(SHOWN)
    assert 0 < shown < site.atlas.neurons
    expect(said).to_contain_text(f"{site.atlas.neurons - shown} of {site.atlas.neurons} are not drawn")
    page.get_by_role("radiogroup", name="Scale up").get_by_text("± log", exact=True).click()
    page.wait_for_function(f"{SHOWN} === {site.atlas.neurons}")
    expect(said).to_contain_text("Change of loss is linear within ±10")
    expect(said).not_to_contain_text("not drawn")
    assert any(text.startswith("−") for text in page.locator("#atlas-graph .ytick text").all_text_contents())
    page.wait_for_url("**yscale=signed**")
    page.reload()
    page.wait_for_function(f"{PLOT}?.data?.length && {SHOWN} === {site.atlas.neurons}")
    bar = page.locator("#atlas-graph .infolayer .colorbar text, #atlas-graph .colorbar text").all_text_contents()
    assert any(text.startswith(("≤", "≥")) for text in bar), "the colour bar is cut at the 99th percentile"
