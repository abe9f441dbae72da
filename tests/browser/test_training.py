"""The training page in a real browser: its address keeps what was chosen, and its neurons lead to their pages."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Site, Visit

pytestmark = [pytest.mark.slow, pytest.mark.browser]


def test_what_is_chosen_stands_in_the_address_and_a_neuron_leads_to_its_page(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/training?training=trained&metric=weight_norm")
    figure = page.locator("#training-body .js-plotly-plot").first
    expect(figure).to_contain_text("Weight norm")
    page.get_by_role("switch", name="Steps on a logarithmic axis").click()
    expect(figure).to_contain_text("training step (log)")
    page.get_by_label("Or these neurons").fill("1.3, 1.5")
    page.get_by_label("Or these neurons").press("Enter")
    expect(page.get_by_role("link", name="1.5", exact=True)).to_be_visible()
    expect(page).to_have_url(
        re.compile(r"/training\?training=trained&metric=weight_norm&neurons=1\.3,\+?(%20)?1\.5&log=1")
    )
    page.reload()
    expect(page.get_by_role("link", name="1.5", exact=True)).to_be_visible()
    page.get_by_role("link", name="1.3", exact=True).click()
    expect(page).to_have_url(re.compile(r"/m/llama/n/1/3\?run=1"))
