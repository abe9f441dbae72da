"""The induction page as a person uses it: a run with its panels, links, heads to knock out, cancelling, and errors."""

import json
import re

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from app.pages.induction.views import PANELS
from backend import schemas
from tests.app import induction_sample
from tests.browser.conftest import Site, Visit, open_context, watch
from tests.browser.induction_page import asked_of, drawn, finished, open_page, run, small

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ALL = "curves,clip,change,heads,bos,mean_output,attribution"
TEXT = "Lamp <b>& 5%? Lamp <b>& 5%? end"
SERVICE = "**/api/v1/models/*/induction"


def test_a_run_fills_its_panels_with_what_the_service_measures(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site))
    expect(page.get_by_text("Watch a model meet the same text twice")).to_be_visible()
    run(page)
    titles = [panel.title for panel in PANELS if panel.part in ("curves", "clip", "change")]
    expect(page.locator(".panel h2:visible")).to_have_text(titles)
    own = {"span": 8, "sequences": 3, "neurons": [f"{site.atlas.layer}.{n}" for n in (3, 5)], "run": site.atlas.run}
    told = {event["kind"]: event for event in asked_of(site, own)}
    loss = next(one for one in drawn(page, "curves") if one["name"] == "loss")
    pairs = list(zip(loss["y"], told["curves"]["loss"]["mean"], strict=True))
    assert [was is None for was, _ in pairs] == [now is None for _, now in pairs]
    assert [was for was, _ in pairs if was is not None] == pytest.approx([now for _, now in pairs if now is not None])
    expect(page.locator("#induction-summary")).to_contain_text(told["start"]["summary"])
    changes = [value for one in drawn(page, "change") for value in one["y"]]
    assert len(changes) == site.atlas.neurons
    assert max(changes) == pytest.approx(max(told["change"]["change"]), rel=1e-4)
    assert page.locator(".tok.first-time").count() == page.locator(".tok.second-time").count() > 0
    expect(page.locator(".totals tbody tr")).to_have_count(2)
    expect(page.get_by_text("Not asked for:")).to_contain_text("look at the first token")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()


def test_every_part_of_the_real_service_has_its_panel(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site, parts=ALL) + "&go=1")
    finished(page)
    expect(page.locator(".panel h2:visible")).to_have_text([panel.title for panel in PANELS])
    expect(page.get_by_text("Being measured")).to_have_count(0)
    for panel in PANELS:
        if panel.key != "samples":
            assert drawn(page, panel.key), panel.key


@pytest.mark.parametrize(("source", "span", "points"), [("random", "6", 12), ("natural", "2", 7)])
def test_other_sources_are_told_apart(source: str, span: str, points: int, visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site, source=source, span=span) + "&go=1")
    finished(page)
    curves = next(one for one in drawn(page, "curves") if one["name"] == "entropy")
    assert len(curves["y"]) == points, "text between breaks the line"


def test_a_link_fills_the_controls_and_runs_only_if_it_says_so(visit: Visit, site: Site) -> None:
    page, asked = visit.page, []
    page.on("request", lambda one: asked.append(one) if one.method == "POST" and "/api/v1/" in one.url else None)
    open_page(page, site, small(site, seed="7", top="2", heads="L0H1", at="measured"))
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("7")
    page.wait_for_timeout(1000)
    assert asked == [], "opening a link starts nothing"
    page.wait_for_function("location.search.includes('seed=7') && location.search.includes('heads=L0H1')")
    link = page.url
    page.goto(link + "&go=1")
    finished(page)
    body = json.loads(asked[0].post_data or "")
    expected = {"span": 8, "sequences": 3, "seed": 7, "top_heads": 2, "heads": ["L0H1"], "source": "synthetic"}
    expected |= {"knocked_out_at": "measured"}
    assert {name: body[name] for name in expected} == expected
    page.wait_for_function("!location.search.includes('go=')")
    assert page.url == link, "the same state has the same address"


def test_ones_own_text_stays_behind_the_hash(visit: Visit, site: Site) -> None:
    page, urls = visit.page, []
    page.on("request", lambda one: urls.append(one.url))
    open_page(page, site, small(site, source="text", span="4"))
    page.get_by_role("textbox", name="Text").fill(TEXT)
    page.wait_for_function("location.hash.includes('Lamp')")
    link = page.url
    page.goto(f"{site.address}/glossary")
    page.evaluate(
        "Object.keys(localStorage).filter((key) => key.includes('induction-text'))"
        ".forEach((key) => localStorage.removeItem(key))"
    )
    page.goto(link)
    expect(page.get_by_role("textbox", name="Text")).to_have_value(TEXT)
    expect(page.locator("#induction-run")).not_to_have_value("")
    run(page)
    expect(page.locator(".tok.second-time").first).to_be_visible()
    expect(page.locator("#induction-summary")).not_to_be_empty()
    assert page.url == link
    assert not [url for url in urls if "Lamp" in url.split("#")[0]], "no server was told"
    assert page.locator("script", has_text="Lamp").count() == 0


def test_without_a_text_or_parts_it_says_what_is_missing(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site, source="text"))
    page.get_by_role("textbox", name="Text").fill(" ")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("in which something repeats")
    page.get_by_role("textbox", name="What repeats").click()
    page.get_by_role("option", name="Random tokens").click()
    expect(page.get_by_role("textbox", name="Text")).to_be_hidden()
    for box in page.get_by_role("checkbox").all():
        box.set_checked(False)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Tick at least one part")


def test_another_source_brings_its_usual_span_unless_one_was_chosen(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site)
    span = page.get_by_role("textbox", name="Tokens a repeat")
    expect(span).to_have_value("100")
    for source, usual in (("Repeats in the corpus", "6"), ("My own text", "4"), ("Random tokens", "100")):
        page.get_by_role("textbox", name="What repeats").click()
        page.get_by_role("option", name=source).click()
        expect(span).to_have_value(usual)
    span.fill("13")
    page.get_by_role("textbox", name="What repeats").click()
    page.get_by_role("option", name="Repeats in the corpus").click()
    page.wait_for_function("location.search.includes('source=natural')")
    expect(span).to_have_value("13")


def test_a_clicked_head_is_knocked_out_in_the_next_run(visit: Visit, site: Site) -> None:
    page, bodies = visit.page, []
    page.on("request", lambda one: bodies.append(one.post_data) if re.search("/induction$", one.url) else None)
    open_page(page, site, small(site, parts="heads,bos"))
    run(page)
    place = page.locator("#induction-head-graph .js-plotly-plot")
    for _ in range(20):  # panels above or below may still be drawn, and move the figure
        place.scroll_into_view_if_needed()
        where = place.evaluate(
            "plot => { const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout;"
            "return [box.x + xaxis._offset + xaxis.d2p(1), box.y + yaxis._offset + yaxis.d2p(0)]; }"
        )
        page.mouse.move(where[0] - 20, where[1] + 2)
        page.mouse.move(*where, steps=8)
        page.wait_for_timeout(400)
        if page.locator("#induction-head-graph .hoverlayer .hovertext").count():
            break
    expect(page.locator("#induction-head-graph .hoverlayer")).to_contain_text("attention to the first token")
    page.mouse.click(*where)
    expect(page.get_by_text("Chosen for the next run: L0H1")).to_be_visible()
    page.wait_for_function("location.search.includes('heads=L0H1')")
    run(page)
    expect(page.get_by_text(re.compile("Knocked out: L0H1"))).to_be_visible()
    assert json.loads(bodies[-1] or "")["heads"] == ["L0H1"]
    assert json.loads(bodies[0] or "")["heads"] == []


def test_names_that_are_none_are_refused_where_they_are_typed(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site))
    box = page.get_by_role("textbox", name="Neurons")
    box.fill("lamp")
    box.press("Enter")
    expect(page.get_by_text("“lamp” is not a neuron")).to_be_visible()
    box.fill(f"{site.atlas.layer}.9")
    box.press("Enter")
    page.wait_for_function(f"location.search.includes('{site.atlas.layer}.5,{site.atlas.layer}.9')")
    assert "lamp" not in page.url


@pytest.fixture
def hanging(visit: Visit) -> list[Request]:
    """A service that never answers a run; the requests that the browser gave up."""
    given_up: list[Request] = []
    held: list[Route] = []
    visit.page.route(SERVICE, lambda route: held.append(route))
    visit.page.on("requestfailed", lambda one: given_up.append(one))
    return given_up


def test_cancelling_gives_the_request_up(visit: Visit, site: Site, hanging: list[Request]) -> None:
    page = visit.page
    open_page(page, site, small(site))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Being measured").first).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#induction-status")).to_contain_text("Cancelled")
    expect(page.get_by_text("the run was cancelled before").first).to_be_visible()
    assert [re.search("/induction$", one.url) is not None for one in hanging] == [True]
    page.unroute(SERVICE)
    run(page)
    expect(page.locator(".panel .js-plotly-plot").first).to_be_visible()


def test_leaving_the_page_gives_the_request_up(visit: Visit, site: Site, hanging: list[Request]) -> None:
    page = visit.page
    open_page(page, site, small(site))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_text("Being measured").first).to_be_visible()
    page.get_by_role("link", name="Glossary").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Glossary")
    page.wait_for_timeout(800)
    assert len(hanging) == 1
    page.get_by_role("link", name="Induction", exact=True).click()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_a_problem_in_the_middle_keeps_what_had_arrived(visit: Visit, site: Site) -> None:
    page = visit.page
    problem = schemas.Problem(title="Broken", status=503, detail="The <b>model</b> went away.")
    told = [*induction_sample.events(["curves"])[:-1], schemas.InductionProblem(problem=problem)]
    body = "".join(f"data: {event.model_dump_json()}\n\n" for event in told)
    page.route(SERVICE, lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    open_page(page, site, small(site, parts="curves,clip"))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The <b>model</b> went away.")
    assert drawn(page, "curves")
    expect(page.get_by_text("the run failed before it came to this").first).to_be_visible()
    cut = "".join(f"data: {event.model_dump_json()}\n\n" for event in told[:-1])
    page.unroute(SERVICE)
    page.route(SERVICE, lambda route: route.fulfill(body=cut, content_type="text/event-stream"))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("connection was lost")


def test_a_refusal_is_told_in_the_services_words(chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    seen = watch(context.new_page(), site)
    open_page(seen.page, site, small(site, neurons="1.99999"))
    seen.page.get_by_role("button", name="Run", exact=True).click()
    expect(seen.page.get_by_role("alert")).to_contain_text("99999")
    expect(seen.page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    context.close()
    assert all("422" in error or "404" in error or error.endswith("/induction") for error in seen.errors)


def test_it_works_by_keyboard_alone(visit: Visit, site: Site) -> None:
    page = visit.page
    open_page(page, site, small(site, parts="clip"))
    page.get_by_role("button", name="Run", exact=True).focus()
    page.keyboard.press("Enter")
    finished(page)
    table = page.get_by_role("region", name="Clipped neurons")
    table.focus()
    expect(table).to_be_focused()


@pytest.mark.parametrize(("width", "dark"), [(380, False), (1366, True)])
def test_results_fit_narrow_and_dark(width: int, dark: bool, chromium: Browser, site: Site) -> None:
    context = open_context(chromium, width=width, dark=dark)
    seen = watch(context.new_page(), site)
    open_page(seen.page, site, small(site, parts=ALL) + "&go=1")
    finished(seen.page)
    drawn(seen.page, "attribution")
    over = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()
    assert over <= 0, "the page scrolls sideways"
    assert seen.errors == []
    assert seen.elsewhere == []
