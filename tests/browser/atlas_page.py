"""What a person does on the atlas page."""

from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page

from tests.browser.conftest import Site


def open_atlas(page: Page, site: Site, query: str = "") -> None:
    page.goto(f"{site.address}/{query}")
    page.wait_for_function("document.querySelector('#atlas-graph .js-plotly-plot')?.data?.[0]?.customdata?.length > 0")


PLOT = "document.querySelector('#atlas-graph .js-plotly-plot')"


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def drag(page: Page, kind: str, left: float, top: float, right: float, bottom: float) -> None:
    """Drag over the figure, from and to shares of its width and height."""
    page.locator("#atlas-drag label", has_text=kind).click()
    page.wait_for_function(f"{PLOT}._fullLayout.dragmode === '{'select' if kind == 'Box' else 'lasso'}'")
    page.locator("#atlas-graph").scroll_into_view_if_needed()
    box = page.locator("#atlas-graph .nsewdrag").bounding_box()
    assert box is not None
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in [places[2]] if kind == "Box" else [*places[1:], places[0]]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def rows_shown(page: Page) -> int:
    return int(page.locator("#atlas-count").inner_text().split(" of ")[0].replace(",", ""))
