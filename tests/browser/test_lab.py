"""The Text lab: generate on, share by link, sliders, pins, history and undo, as a person uses them."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from backend.core.models.analysis_model import AnalysisModel
from backend.live.engine import LiveEngine
from backend.live.texts import LiveText
from backend.schemas import MAX_TEXT_TOKENS
from tests.browser.conftest import Site, Visit, open_context, watch
from tests.browser.pages import press_analyse

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TEXT = "A lamp <b>& 5% ü🙂 + #"  # short: the tiny model reads 64 tokens, a byte each


def open_lab(page: Page, site: Site, address: str = "") -> None:
    page.goto(f"{site.address}/lab{address or f'?neuron={site.atlas.layer}.3'}")
    expect(page.locator("#lab-model")).to_have_value(site.atlas.slug)


def analyse(page: Page, text: str) -> None:
    page.locator("#lab-text").fill(text)
    page.locator("#lab-text").blur()
    press_analyse(page)
    shown = text[:6].replace(" ", "·")
    expect(page.locator("#lab-canvas .strip").first).to_contain_text(shown)


def state(page: Page) -> dict[str, str]:
    """What the address says."""
    says: dict[str, str] = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    return says


def wait_for_state(page: Page, **parts: str) -> None:
    for name, value in parts.items():
        page.wait_for_function(
            "([name, value]) => new URLSearchParams(location.hash.slice(1)).get(name) === value", arg=[name, value]
        )


def choose_kind(page: Page, neuron: str, words: str) -> None:
    page.get_by_role("textbox", name=f"What happens to {neuron}").click()
    page.get_by_role("option", name=words, exact=True).click()


def continuations(page: Page) -> list[list[str]]:
    return [column.locator(".tok").all_inner_texts() for column in page.locator("#lab-generated section").all()]


def generate(page: Page) -> str:
    page.locator("#lab-generated").evaluate("place => place.replaceChildren()")  # what an earlier one has said
    page.get_by_role("button", name="Generate").click()
    status = page.locator("#lab-generated [role=status]")
    expect(status).to_contain_text("a second")
    return status.inner_text()


def test_both_continuations_grow_side_by_side(visit: Visit, site: Site) -> None:
    page, neuron = visit.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    analyse(page, TEXT)
    page.get_by_role("textbox", name="Tokens").fill("15")
    choose_kind(page, neuron, "multiply by")
    page.get_by_role("textbox", name=f"Number for {neuron}").fill("1")
    wait_for_state(page, do=f"{neuron}:scale:1")
    assert "Both are the same" in generate(page)
    plain, changed = continuations(page)
    assert plain == changed
    assert page.locator("#lab-generated .differs").count() == 0
    page.get_by_role("textbox", name=f"Number for {neuron}").fill("300")
    wait_for_state(page, do=f"{neuron}:scale:300")
    told = generate(page)
    assert re.search(r"They part at generated token \d+", told)
    again, changed = continuations(page)
    assert again == plain, "the same seed gives the same continuation without the intervention"
    assert changed != plain
    marked = (
        page.locator("#lab-generated section")
        .first.locator(".tok")
        .evaluate_all("all => all.map((one) => one.classList.contains('differs'))")
    )
    differing = [place >= len(changed) or changed[place] != token for place, token in enumerate(plain)]
    assert any(differing)
    assert all(mark for mark, differs in zip(marked, differing, strict=True) if differs)
    page.get_by_role("button", name=f"Remove {neuron}").click()
    expect(page.locator(".intervention")).to_have_count(0)
    page.wait_for_function("!new URLSearchParams(location.hash.slice(1)).has('do')")
    assert "Add an intervention" in generate(page)
    assert len(continuations(page)) == 1


def test_a_generation_is_stopped_and_a_failure_is_told(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = watch(context.new_page(), site).page  # the failed answer is meant, so errors are not checked
    open_lab(page, site)
    analyse(page, TEXT)
    page.get_by_role("textbox", name="Tokens").fill("200")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#lab-generated .tok").first).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#lab-generated [role=status]")).to_contain_text("Stopped after")
    made = page.locator("#lab-generated .tok").count()
    page.wait_for_timeout(400)
    assert page.locator("#lab-generated .tok").count() == made
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()

    problem = {"title": "Busy", "status": 503, "detail": "4 texts are being continued already.", "type": "about:blank"}

    def refuse(route: Route) -> None:
        route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem))

    page.route("**/generate", refuse)
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#lab-generated").get_by_role("alert")).to_contain_text("4 texts are being continued")
    page.unroute("**/generate")
    page.route("**/generate", lambda route: route.abort())
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#lab-generated").get_by_role("alert")).to_contain_text("could not be reached")
    page.unroute("**/generate")
    page.route("**/generate", lambda route: route.fulfill(content_type="text/event-stream", body='data: {"kind":"st'))
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#lab-generated").get_by_role("alert")).to_contain_text("connection was lost")
    context.close()


def test_a_link_carries_text_and_interventions_and_no_server_sees_them(visit: Visit, site: Site) -> None:
    page, neuron = visit.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    analyse(page, TEXT)
    choose_kind(page, neuron, "multiply by")
    wait_for_state(page, do=f"{neuron}:scale:2", text=TEXT)
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#lab-status")).to_contain_text("The link holds the text and the interventions")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    assert "lamp" not in link.partition("#")[0]

    other = page.context.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    expect(other.locator("#lab-text")).to_have_value(TEXT)
    expect(other.locator("#lab-result .totals")).to_be_visible()
    expect(other.get_by_role("textbox", name=f"Number for {neuron}")).to_have_value("2")
    assert other.url == link
    other.get_by_text("History of this session").click()
    expect(other.locator(".past")).to_have_count(1)
    expect(other.locator(".past")).to_contain_text("A lamp")
    assert not [url for url in asked if "lamp" in url.partition("#")[0]]
    other.close()


def test_back_and_forward_walk_through_texts_and_interventions(visit: Visit, site: Site) -> None:
    page, neuron = visit.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    analyse(page, "First words here.")
    wait_for_state(page, text="First words here.")
    analyse(page, "Second words there.")
    wait_for_state(page, text="Second words there.")
    choose_kind(page, neuron, "set to 0")
    wait_for_state(page, do=f"{neuron}:zero")
    page.go_back()
    wait_for_state(page, do=f"{neuron}:mean", text="Second words there.")
    expect(page.get_by_role("textbox", name=f"What happens to {neuron}")).to_have_value("set to mean")
    page.go_back()
    expect(page.locator("#lab-text")).to_have_value("First words here.")
    expect(page.locator("#lab-canvas .strip").first).to_contain_text("First")
    page.go_forward()
    expect(page.locator("#lab-canvas .strip").first).to_contain_text("Second")
    page.go_forward()
    expect(page.locator("#lab-text")).to_have_value("Second words there.")
    expect(page.get_by_role("textbox", name=f"What happens to {neuron}")).to_have_value("set to 0")
    assert state(page) == {"do": f"{neuron}:zero", "text": "Second words there."}


def test_a_text_that_is_too_long_for_a_link_is_cut_and_said_to_be(visit: Visit, site: Site) -> None:
    page = visit.page
    long = "Under the lämp 🙂 " * 300
    open_lab(page, site)
    analyse(page, long)
    page.wait_for_function("location.hash.length > 7000")
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator("#lab-status")).to_contain_text(re.compile(r"holds the first [\d,]+ of 5,100 characters"))
    assert len(page.evaluate("location.hash")) <= 8000
    kept = state(page)["text"]
    assert long.startswith(kept)
    assert len(kept) > 500
    page.reload()
    expect(page.get_by_text("The text was too long for a link")).to_be_visible()
    expect(page.locator("#lab-text")).to_have_value(kept)


def test_a_slider_moves_the_result_and_its_number(visit: Visit, site: Site) -> None:
    page, names = visit.page, [f"{site.atlas.layer}.{index}" for index in (3, 5)]
    open_lab(page, site)
    analyse(page, TEXT)
    choose_kind(page, names[0], "multiply by")
    page.get_by_label("Neuron or head to intervene on").fill(names[1])
    page.get_by_role("button", name="Add", exact=True).click()
    choose_kind(page, names[1], "set to")
    thumbs = page.locator(".intervention-slider [role=slider]")
    expect(thumbs).to_have_count(2)
    entropy = page.locator(".totals tr", has_text="Mean entropy").locator("td").nth(1)
    before = entropy.inner_text()
    thumbs.first.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.get_by_role("textbox", name=f"Number for {names[0]}")).to_have_value("3")
    page.wait_for_function("location.hash.includes(encodeURIComponent('scale:3'))")
    expect(entropy).not_to_have_text(before)
    page.get_by_role("textbox", name=f"Number for {names[1]}").fill("7")
    expect(thumbs.nth(1)).to_have_attribute("aria-valuenow", "7")
    wait_for_state(page, do=f"{names[0]}:scale:3,{names[1]}:value:7")
    page.get_by_role("button", name=f"Remove {names[0]}").click()
    expect(thumbs).to_have_count(1)
    wait_for_state(page, do=f"{names[1]}:value:7")


def test_a_late_number_does_not_pull_the_slider_back(visit: Visit, site: Site) -> None:
    page, name = visit.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    analyse(page, TEXT)
    choose_kind(page, name, "multiply by")
    thumb, number = page.locator(".intervention-slider [role=slider]"), page.get_by_role("textbox", name="Number for")
    expect(thumb).to_have_attribute("aria-valuenow", "2")
    set_value = f"(type, value) => window.dash_clientside.set_props({{neuron: '{name}', type}}, {{value}})"
    late = "set('lab-value', 2.2);"  # as the number writes what it showed some steps ago
    page.evaluate(
        f"async () => {{ const set = {set_value};"
        "for (const value of [2.1, 2.2, 2.3, 2.4, 2.5]) {"
        "set('lab-slider', value); await new Promise((then) => setTimeout(then, 60)); }"
        f"{late} }}"
    )
    page.wait_for_timeout(1_500)
    expect(thumb).to_have_attribute("aria-valuenow", "2.5")
    expect(number).to_have_value("2.5")
    wait_for_state(page, do=f"{name}:scale:2.5")
    page.evaluate(f"() => {{ const set = {set_value}; {late} }}")  # and now somebody means it
    expect(thumb).to_have_attribute("aria-valuenow", "2.2")
    wait_for_state(page, do=f"{name}:scale:2.2")


def test_undo_and_the_sessions_history(visit: Visit, site: Site) -> None:
    page, neuron = visit.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_disabled()
    analyse(page, "First words here.")
    choose_kind(page, neuron, "set to 0")
    wait_for_state(page, do=f"{neuron}:zero")
    page.get_by_role("button", name=f"Remove {neuron}").click()
    page.wait_for_function("!new URLSearchParams(location.hash.slice(1)).has('do')")
    expect(page.locator(".totals")).to_have_count(0)
    undo.click()
    expect(page.get_by_role("textbox", name=f"What happens to {neuron}")).to_have_value("set to 0")
    expect(page.locator(".totals")).to_be_visible()
    page.locator("#lab-canvas [data-token='1']").first.click()
    page.keyboard.press("Control+z")
    expect(page.get_by_role("textbox", name=f"What happens to {neuron}")).to_have_value("set to mean")
    expect(undo).to_be_disabled()
    analyse(page, "Second words there.")
    page.locator("#lab-text").click()
    page.keyboard.type(" More")
    page.keyboard.press("Control+z")
    page.wait_for_timeout(300)
    assert state(page)["text"] == "Second words there.", "in a text field Ctrl+Z is the field's own"
    page.get_by_text("History of this session").click()
    past = page.locator(".past")
    expect(past.first).to_contain_text("Second words there.")
    expect(past).to_have_count(4)
    past.filter(has_text="zero").click()
    expect(page.locator("#lab-text")).to_have_value("First words here.")
    wait_for_state(page, text="First words here.", do=f"{neuron}:zero")


@pytest.fixture
def pinned_visit(chromium: Browser, site: Site) -> Iterator[Visit]:
    """A browser that has pinned two neurons, in a page that mounts the store of pins."""
    from dash import _pages

    from app.pages.lab import page as lab

    context = open_context(chromium)
    page = watch(context.new_page(), site)
    own = lab.layout

    def with_store(*args: str, **kwargs: str) -> object:
        from dash import dcc, html

        kept = {site.atlas.slug: [f"{site.atlas.layer}.3", f"{site.atlas.layer}.9"]}
        return html.Div([own(*args, **kwargs), dcc.Store(id="pins", data=kept)])

    entry = _pages.PAGE_REGISTRY["lab"]
    before, entry["layout"] = entry["layout"], with_store
    yield page
    entry["layout"] = before
    context.close()
    assert page.errors == []


def test_pinned_neurons_stand_one_under_the_other(pinned_visit: Visit, site: Site) -> None:
    page = pinned_visit.page
    open_lab(page, site)
    analyse(page, TEXT)
    rows = page.locator(".pinned tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(1).locator("th")).to_contain_text(f"{site.atlas.layer}.3")
    tokens = rows.first.locator("[data-place]").count()
    assert tokens == page.locator("#lab-canvas .strip").first.locator("[data-token]").count()
    lefts = [row.locator("td, th").nth(6).bounding_box() for row in rows.all()]
    assert len({round(box["x"]) for box in lefts if box}) == 1, "the same token, the same column"
    rows.nth(2).locator("td").nth(4).click()
    expect(page.get_by_role("heading", name="Predictions at the chosen token")).to_be_visible()
    expect(page.locator("#lab-canvas [data-token='4'].marked").first).to_be_visible()
    expect(rows.nth(1).locator("td").nth(4)).to_have_class(re.compile("marked"))


@contextmanager
def sending(page: Page) -> Iterator[list[int]]:
    """The size of every body that the page sends meanwhile, in bytes."""
    sizes: list[int] = []

    def add(request: Request) -> None:
        sizes.append(len(request.post_data_buffer or b""))

    page.on("request", add)
    yield sizes
    page.remove_listener("request", add)


def test_a_step_and_a_click_send_little_at_the_longest_text(
    visit: Visit, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page holds an id and what was chosen: what is known of a text's tokens never travels up."""
    keep = lambda model, own: model.__dict__.update(max_tokens=own)  # noqa: E731
    longer = property(lambda _: MAX_TEXT_TOKENS, keep)  # than the tiny model's own context
    monkeypatch.setattr(AnalysisModel, "max_tokens", longer, raising=False)
    page, neuron = visit.page, f"{site.atlas.layer}.3"
    text = "Under the lamp it rains. " * 190
    open_lab(page, site)
    with sending(page) as analysing:
        analyse(page, text)
        expect(page.get_by_text(f"Only the first {MAX_TEXT_TOKENS} tokens are shown.")).to_be_visible()
        choose_kind(page, neuron, "multiply by")
        wait_for_state(page, do=f"{neuron}:scale:2")
        rested(page)
    assert page.locator("#lab-changes-canvas .strip").first.locator("[data-token]").count() == MAX_TEXT_TOKENS
    shown = page.locator("#lab-changes-canvas [data-token='7']").nth(1)
    before = shown.get_attribute("title")
    with sending(page) as stepping:
        page.locator(".intervention-slider [role=slider]").press("ArrowRight")
        expect(shown).not_to_have_attribute("title", str(before))
        rested(page)
    with sending(page) as clicking:
        page.locator("#lab-canvas [data-token='7']").first.click()
        expect(page.locator("#lab-detail .totals")).to_be_visible()
        expect(page.locator("#lab-who tbody tr")).to_have_count(10)
    assert [size for size in stepping if size] == [pytest.approx(len(text), abs=2_000)], "one request a step"
    assert 0 < sum(clicking) < 20_000
    assert max(analysing) < len(text) + 3_000, "of the lab's other requests too"


def rested(page: Page) -> None:
    """Wait until nothing that was changed waits for its answer."""
    page.wait_for_function("!document.querySelector('[data-outdated]')")
    page.wait_for_timeout(300)


def test_a_text_that_the_service_has_forgotten_is_traced_again_unseen(
    chromium: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget: list[int] = []
    find = LiveEngine.text

    def text(engine: LiveEngine, text_id: str) -> LiveText:
        if forget:
            forget.clear()
            engine._texts.clear()  # as after a restart, or when other texts have taken all the room
        return find(engine, text_id)

    monkeypatch.setattr(LiveEngine, "text", text)
    context = open_context(chromium)
    seen = watch(context.new_page(), site)
    page, neuron = seen.page, f"{site.atlas.layer}.3"
    open_lab(page, site)
    analyse(page, TEXT)
    choose_kind(page, neuron, "multiply by")
    entropy = page.locator(".totals tr", has_text="Mean entropy").locator("td").nth(1)
    wait_for_state(page, do=f"{neuron}:scale:2")
    rested(page)
    before = entropy.inner_text()
    forget.append(1)
    page.locator(".intervention-slider [role=slider]").press("ArrowRight")
    expect(entropy).not_to_have_text(before)
    forget.append(1)
    page.locator("#lab-canvas [data-token='3']").first.click()
    expect(page.get_by_role("heading", name="Predictions at the chosen token")).to_be_visible()
    expect(page.locator("#lab-who tbody tr")).to_have_count(10)
    assert seen.errors == []
    forget.append(1)
    page.get_by_role("textbox", name="Tokens").fill("5")
    assert "5 tokens" in generate(page)
    assert forget == []
    assert len(seen.errors) == 2, "the 404 that the generation meets alone, by its address and in the console"
    expect(page.get_by_role("alert")).to_have_count(0)
    context.close()


@pytest.mark.parametrize(("width", "dark"), [(380, False), (1366, True)])
def test_the_full_lab_fits_narrow_and_dark(width: int, dark: bool, chromium: Browser, site: Site) -> None:
    context = open_context(chromium, width=width, dark=dark)
    seen = watch(context.new_page(), site)
    page = seen.page
    open_lab(page, site)
    analyse(page, TEXT)
    choose_kind(page, f"{site.atlas.layer}.3", "multiply by")
    expect(page.locator(".intervention-slider")).to_be_visible()
    page.get_by_role("textbox", name="Tokens").fill("8")
    generate(page)
    over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert over <= 0, "the page scrolls sideways"
    assert seen.errors == []
    assert seen.elsewhere == []
