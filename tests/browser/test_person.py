"""What a person does: browse, click, paste, ablate."""

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.atlas_page import open_atlas
from tests.browser.conftest import Site, Visit
from tests.browser.pages import press_analyse

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TEXT = "The lamp is lit. The lamp is not lit. <script>alert(1)</script>"
POINTS = """() => {
    const plot = document.querySelector('#atlas-graph .js-plotly-plot'), box = plot.getBoundingClientRect();
    const {xaxis, yaxis} = plot._fullLayout;
    return plot.data.flatMap((trace) => trace.customdata.map((name, i) => ({
        name,
        x: box.x + xaxis._offset + xaxis.d2p(trace.x[i]),
        y: box.y + yaxis._offset + yaxis.d2p(trace.y[i]),
    })));
}"""


def click_point(page: Page) -> str:
    """Click the point that is farthest from all others, as a mouse does; its neuron's name."""
    for _ in range(10):  # a figure that is drawn again under a mouse at rest shows nothing until it moves
        chosen = _loneliest(page.evaluate(POINTS))  # each time: what arrives above the figure moves it
        page.mouse.move(chosen["x"] - 30, chosen["y"] - 20)
        page.mouse.move(chosen["x"], chosen["y"], steps=8)
        page.wait_for_timeout(500)
        if page.locator(".hoverlayer .hovertext").count():
            break
    expect(page.locator(".hoverlayer .hovertext").first).to_be_visible()
    page.mouse.click(chosen["x"], chosen["y"])
    return str(chosen["name"])


def _loneliest(points: list[dict[str, Any]]) -> dict[str, Any]:
    def room(point: dict[str, Any]) -> float:
        others = [p for p in points if p is not point]
        return float(min(abs(point["x"] - p["x"]) + abs(point["y"] - p["y"]) for p in others))

    return max(points, key=room)


def numbers_in(text: str) -> list[float]:
    return [float(found.replace("−", "-")) for found in re.findall(r"[−-]?\d+\.\d+", text)]


def test_browse_click_paste_ablate(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    name = click_point(page)
    page.wait_for_url(re.compile(rf"/n/{name.replace('.', '/')}\?"))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neuron {name}")
    found = httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/neurons/{name}").json()["row"]["metrics"]
    shown = page.locator(".card", has_text="Total effect TE").locator(".card-value").inner_text()
    assert numbers_in(shown)[0] == pytest.approx(found["total_effect"], abs=2 * found["total_effect_se"] + 1e-6)
    figures = "2c, 2d, 3c, 4a, 4c, the histogram and the tokens"
    assert page.locator(".panel .js-plotly-plot").count() == 7, figures
    assert page.locator(".strip").count() > 5

    page.get_by_role("link", name="Try it in the Text lab").click()
    page.wait_for_url("**/lab?**")
    page.locator("#lab-text").fill(TEXT)
    press_analyse(page)
    table = page.locator(".totals")
    expect(table).to_be_visible()

    slug = site.atlas.slug
    trace = httpx.post(f"{site.address}/api/v1/models/{slug}/texts", json={"text": TEXT}).json()
    body: dict[str, Any] = {"interventions": [{"neuron": name, "kind": "mean"}]}
    api = httpx.post(f"{site.address}/api/v1/texts/{trace['id']}/ablate", json=body).json()
    row = numbers_in(table.locator("tr", has_text="Mean loss").inner_text())
    assert row[0] == pytest.approx(api["before_totals"]["mean_loss"], abs=1e-3)
    assert row[1] == pytest.approx(api["total"]["totals"]["mean_loss"], abs=1e-3)
    assert row[3] == pytest.approx(api["frozen"]["totals"]["mean_loss"], abs=1e-3)

    page.get_by_role("textbox", name=f"What happens to {name}").click()
    page.get_by_role("option", name="multiply by").click()
    page.get_by_role("textbox", name=f"Number for {name}").fill("8")
    body = {"interventions": [{"neuron": name, "kind": "scale", "value": 8}]}
    api = httpx.post(f"{site.address}/api/v1/texts/{trace['id']}/ablate", json=body).json()
    entropy = f"{api['total']['totals']['mean_entropy']:.3f}"
    expect(table.locator("tr", has_text="Mean entropy")).to_contain_text(entropy)

    page.locator(".strip.clickable [data-token='5']").first.click()
    expect(page.get_by_role("heading", name="Predictions at the chosen token")).to_be_visible()
    expect(page.locator(".strip.clickable [data-token='5'].marked").first).to_be_visible()
    expect(page.get_by_text("Who matters here")).to_be_visible()
    expect(page.locator("#lab-who tbody tr")).to_have_count(10)
    assert f"do={name}" in page.url, "the interventions are in the address"


def test_a_view_is_a_link_and_back_goes_back(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site, "?x=null_fraction&y=ln_mediated&colour=abs_delta_entropy")
    expect(page.locator("#atlas-x")).to_have_value("Null-space fraction ρ")
    page.get_by_role("button", name="Figure 1", exact=True).click()
    page.wait_for_function("document.querySelector('#atlas-graph .js-plotly-plot').layout.xaxis.type === 'log'")
    page.wait_for_url("**x=delta_reciprocal_rank**")
    page.get_by_label("Go to a neuron").fill(f"{site.atlas.layer}.4")
    page.keyboard.press("Enter")
    page.wait_for_url("**/n/1/4?**")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Neuron {site.atlas.layer}.4")
    page.go_back()
    page.wait_for_url("**x=delta_reciprocal_rank**")
    expect(page.locator("#atlas-x")).to_have_value("|Change of reciprocal rank|")


def test_a_mistyped_neuron_is_told_and_nothing_is_lost(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    page.get_by_label("Go to a neuron").fill("99.5")
    page.keyboard.press("Enter")
    expect(page.get_by_text("has no neuron 99.5")).to_be_visible()
    page.goto(f"{site.address}/m/{site.atlas.slug}/n/1/99999")
    expect(page.get_by_text("There is no such neuron here")).to_be_visible()
    page.goto(f"{site.address}/no/such/page")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


def test_the_table_sorts_and_leads_to_a_neuron(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    rows = httpx.get(f"{site.address}/api/v1/runs/{site.atlas.run}/neurons?sort=-total_effect&limit=1").json()["rows"]
    first = page.locator(".ag-pinned-left-cols-container [row-index='0'] .ag-cell")
    expect(first).to_have_text(rows[0]["neuron"])
    first.click()
    page.wait_for_url(re.compile(rf"/n/{rows[0]['neuron'].replace('.', '/')}\?"))


def test_the_text_survives_leaving_and_an_error(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/lab")
    box = page.locator("#lab-text")
    expect(page.locator("#lab-model")).to_have_value(site.atlas.slug)
    box.fill("My own words, kept.")
    box.blur()
    page.wait_for_timeout(300)
    page.goto(f"{site.address}/")
    page.goto(f"{site.address}/lab")
    expect(page.locator("#lab-text")).to_have_value("My own words, kept.")
    expect(page.locator("#lab-model")).to_have_value(site.atlas.slug)
    too_long = "a" * 30_000
    page.locator("#lab-text").fill(too_long)
    press_analyse(page)
    expect(page.get_by_role("alert")).to_contain_text("at most 20,000")
    expect(page.locator("#lab-text")).to_have_value(too_long)


BROKEN = """[...document.querySelectorAll('.site-header a:not(.skip-link), .site-header button')]
    .filter((one) => one.getClientRects().length > 1 || one.offsetHeight > 40).map((one) => one.textContent)"""


@pytest.mark.parametrize("path", ["/", "/m/llama/n/1/3", "/lab", "/induction", "/frequency", "/spectrum", "/jobs"])
def test_every_page_fits_narrow_and_dark(path: str, visit: Visit, site: Site) -> None:
    page = visit.page
    page.set_viewport_size({"width": 380, "height": 900})
    page.goto(site.address + path)
    page.wait_for_selector("h1", state="attached")
    page.wait_for_timeout(1500)
    for width, scheme in ((380, "light"), (380, "dark"), (1366, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
        page.wait_for_timeout(300)
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert over <= 0, f"the page scrolls sideways at {width}"
        assert page.evaluate(BROKEN) == [], "a word of the header is broken"
        assert (background == "rgb(20, 23, 26)") == (scheme == "dark")


def test_light_and_dark_are_kept(visit: Visit, site: Site) -> None:
    page = visit.page
    open_atlas(page, site)
    page.get_by_label("Light or dark").click()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")


def test_the_lab_works_by_keyboard_alone(visit: Visit, site: Site) -> None:
    page = visit.page
    page.goto(f"{site.address}/lab?neuron={site.atlas.layer}.3")
    expect(page.locator("#lab-model")).to_have_value(site.atlas.slug)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("button", name="Analyse").focus()
    page.keyboard.press("Enter")
    strip = page.locator(".strip.clickable").first
    expect(strip).to_be_visible()
    strip.locator("[data-token='0']").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(strip.locator("[data-token='3']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Predictions at the chosen token")).to_be_visible()
