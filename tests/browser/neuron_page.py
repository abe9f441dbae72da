"""What a person does on a neuron's page."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site


def open_neuron(page: Page, site: Site, index: int = 3) -> str:
    """Open a neuron's page; its address in the API."""
    page.goto(f"{site.address}/m/{site.atlas.slug}/n/{site.atlas.layer}/{index}")
    expect(page.locator("#neuron-share")).to_contain_text("Threshold")
    return f"{site.address}/api/v1/runs/{site.atlas.run}/neurons/{site.atlas.layer}.{index}"
