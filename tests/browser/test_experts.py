"""A mixture of experts on the pages: its neurons' names, how often their experts are chosen, and their contexts."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from backend.atlas.store import Atlas
from backend.core.models.sources import ModelFiles
from precompute import pipeline
from precompute.config import RunConfig
from precompute.progress import Silent
from tests.browser.accessibility import violations
from tests.browser.atlas_page import PLOT, open_atlas
from tests.browser.conftest import BUILD, Site, open_context, serving, watch
from tests.browser.pages import press_analyse
from tests.conftest import TinyAtlas

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def site_of_experts(
    tmp_path_factory: pytest.TempPathFactory, tiny_files: Callable[[str], ModelFiles]
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("experts")
    (folder / "text.txt").write_text("".join(f"Lamp {n} hangs by hook {n % 5} and is lit.\n" for n in range(60)))
    plan = RunConfig(str(tiny_files("qwen2-moe").folder), str(folder / "text.txt"), sequences=6, seq_len=24)
    with Atlas.open(folder / "a.db") as atlas:
        run = pipeline.run(plan, atlas, folder / "cache", folder / "work", Silent(), "cpu")
        found = TinyAtlas(folder / "a.db", atlas.runs.get(run).model, run, 1, 44)
    with serving(found, folder / "cache") as site:
        yield site


def test_an_experts_neurons_can_be_seen_searched_and_tried(chromium: Browser, site_of_experts: Site) -> None:
    site, context = site_of_experts, open_context(chromium)
    visit = watch(context.new_page(), site)
    page = visit.page
    open_atlas(page, site, "?x=routed_share&y=total_effect&yscale=signed")
    names = page.evaluate(f"{PLOT}.data.flatMap((trace) => trace.customdata ?? [])")
    assert {"1.0.0", "1.2.10", "1.shared.10"} <= set(names)
    page.screenshot(path=BUILD / "experts-atlas.png")

    jump = page.locator("#atlas-jump")
    jump.fill("1.5")
    jump.press("Enter")
    expect(page.get_by_text("write layer.expert.index")).to_be_visible()
    visit.errors.clear()  # the browser writes a refused request to its console
    jump.fill("1.2.4")
    jump.press("Enter")
    expect(page.get_by_role("heading", name="Neuron 1.2.4")).to_be_visible()
    assert page.url.split("?")[0].endswith("/n/1/2/4")
    expect(page.locator(".neuron-head")).to_contain_text("It is in expert 2 of 3, which the router chooses at")
    expect(page.get_by_text("Routed share", exact=True)).to_be_visible()
    expect(page.get_by_text("Windows without such a token are not shown")).to_be_visible()
    said = page.locator(".context .tok[title*='not routed to expert 2']")
    assert said.count() > 0
    assert all("activation, peak" in (one.get_attribute("title") or "") for one in said.all()[:3])
    assert violations(page) == []
    page.screenshot(path=BUILD / "experts-neuron.png", full_page=True)
    page.reload()
    expect(page.get_by_role("heading", name="Neuron 1.2.4")).to_be_visible()
    page.locator("#neuron-next").click()
    expect(page.get_by_role("heading", name="Neuron 1.2.5")).to_be_visible()

    page.get_by_role("link", name="Try it in the Text lab").click()
    press_analyse(page)
    expect(page.locator("#lab-rows")).to_contain_text("1.2.5")
    expect(page.locator(".strip.clickable").first).to_be_visible()
    page.locator("#lab-neuron").fill("1.5")
    page.locator("#lab-add").click()
    expect(page.get_by_text("write layer.expert.index")).to_be_visible()
    page.locator("#lab-neuron").fill("1.shared.3")
    page.locator("#lab-add").click()
    expect(page.locator("#lab-rows")).to_contain_text("1.shared.3")
    context.close()
    assert visit.errors == []
    assert visit.elsewhere == []
