"""What follows a repeat of itself (B and X of Figure 9a) in the induction page's figures, narrow and wide."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import Site, Visit, open_context, watch
from tests.browser.induction_page import asked_of, drawn, finished, open_page, small

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def natural(page: Page, site: Site, source: str = "natural") -> Locator:
    """The figure of curves along repeats of two tokens."""
    open_page(page, site, small(site, source=source, span="2") + "&go=1")
    finished(page)
    return page.locator(".panel .js-plotly-plot").first


def hover(page: Page, figure: Locator, label: str) -> str:
    """What the figure says at the last tick of that name; asked again while panels are still drawn above or below."""
    words = figure.locator(".hoverlayer text")
    for _ in range(20):
        figure.scroll_into_view_if_needed()
        at = figure.evaluate(
            "(plot, label) => { const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;"
            "const place = xaxis.tickvals[xaxis.ticktext.lastIndexOf(label)];"
            "return [box.x + xaxis._offset + xaxis.d2p(place), box.y + yaxis._offset + 60]; }",
            label,
        )
        page.mouse.move(at[0] - 4, at[1] - 4)
        page.mouse.move(*at, steps=5)
        page.wait_for_timeout(400)
        said = words.all_text_contents()
        if any(one.startswith(f"{label}, ") for one in said):
            return " | ".join(said)
    raise AssertionError(f"Nothing is said at {label}: {words.all_text_contents()}")


def _brightness(colour: str) -> float:
    """0 is black, 255 white."""
    return sum(float(part) for part in re.findall(r"[\d.]+", colour)[:3]) / 3


def test_b_and_x_have_ticks_and_the_services_values_and_hovering_names_them(visit: Visit, site: Site) -> None:
    page = visit.page
    figure = natural(page, site)
    expect(figure.locator(".xtick text")).to_have_text(["A0", "A1", "B", "A0", "A1", "X"])
    own = {"source": "natural", "span": 2, "sequences": 3, "neurons": [f"{site.atlas.layer}.3"], "run": site.atlas.run}
    told: dict[str, Any] = next(event for event in asked_of(site, own) if event["kind"] == "curves")
    entropy = next(one["y"] for one in drawn(page, "curves") if one["name"] == "entropy")
    assert [entropy[2], entropy[-1]] == pytest.approx(told["after"]["entropy"]["mean"])
    neuron = next(one["y"] for one in drawn(page, "curves") if one["name"] == f"{site.atlas.layer}.3")
    assert [neuron[2], neuron[-1]] == pytest.approx(told["after"]["activations"][f"{site.atlas.layer}.3"]["mean"])
    said = hover(page, figure, "B")
    assert "B, after the first occurrence" in said
    assert f"entropy : {entropy[2]:.3f} nats" in said
    assert "X, after the second occurrence" in hover(page, figure, "X")
    assert "A0, second occurrence" in hover(page, figure, "A0")


def test_doubled_text_has_neither(visit: Visit, site: Site) -> None:
    figure = natural(visit.page, site, "random")
    expect(figure.locator(".xtick text")).to_have_text(["A0", "A1"] * 2)
    expect(visit.page.get_by_text("B follows the first occurrence")).to_have_count(0)


@pytest.mark.parametrize(("width", "dark"), [(380, False), (380, True), (1366, False)])
def test_it_can_be_read_narrow_light_and_dark(width: int, dark: bool, chromium: Browser, site: Site) -> None:
    context = open_context(chromium, width=width, dark=dark)
    seen = watch(context.new_page(), site)
    figure = natural(seen.page, site)
    expect(figure.locator(".xtick text")).to_have_count(6)
    hover(seen.page, figure, "X")
    box = seen.page.locator(".hoverlayer .bg").first.evaluate("one => getComputedStyle(one).fill")
    words = seen.page.locator(".hoverlayer text").evaluate_all("all => all.map((one) => getComputedStyle(one).fill)")
    bar = figure.locator(".modebar-group").first.evaluate("one => getComputedStyle(one).backgroundColor")
    paper = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    mark = seen.page.locator(".tok.first-time").first.evaluate("one => getComputedStyle(one).backgroundClip")
    over = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert all(_brightness(word) - _brightness(box) > 120 for word in words), "dark words on a dark box"
    assert bar == paper, "the mode bar hides what is under it, in the page's colour"
    assert mark == "padding-box", "dots on a dark token could not be seen"
    assert over <= 0, "the page scrolls sideways"
    assert seen.errors == []
    assert seen.elsewhere == []
