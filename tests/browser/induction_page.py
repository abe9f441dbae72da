"""What a person does on the induction page."""

import json
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from app.pages.induction.views import PANELS
from tests.browser.conftest import Site


def open_page(page: Page, site: Site, query: str = "", fragment: str = "") -> None:
    page.goto(f"{site.address}/induction?{query}{fragment}")
    expect(page.locator("#induction-model")).to_have_value(site.atlas.slug)
    expect(page.locator("#induction-run")).not_to_have_value("")


def small(site: Site, **changes: str) -> str:
    """A request that the tiny model answers at once."""
    layer = site.atlas.layer
    parts = {"span": "8", "sequences": "3", "neurons": f"{layer}.3,{layer}.5", "parts": "curves,clip,change"}
    return "&".join(f"{name}={value}" for name, value in (parts | changes).items())


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()
    finished(page)


def finished(page: Page) -> None:
    expect(page.locator("#induction-status")).to_contain_text("Measured in", timeout=120_000)
    page.wait_for_function("!document.querySelector('._dash-loading-callback')")


def asked_of(site: Site, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The service's own answer."""
    address = f"{site.address}/api/v1/models/{site.atlas.slug}/induction"
    answer = httpx.post(address, json=body, timeout=120)
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]


def drawn(page: Page, panel: str) -> list[dict[str, Any]]:
    """The lines of a panel's first figure."""
    title = next(one.title for one in PANELS if one.key == panel)
    place = page.locator(".panel", has=page.get_by_role("heading", name=title, exact=True))
    expect(place.locator(".js-plotly-plot").first).to_be_visible()
    found: list[dict[str, Any]] = place.locator(".js-plotly-plot").first.evaluate(
        "plot => plot.data.map((one) => ({name: one.name, y: one.y ? Array.from(one.y) : null}))"
    )
    return found
