"""Jobs as a person meets them: queued, done by a worker, shown, cancelled, refused without the key."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from app.pages.induction.views import PANELS
from backend.atlas.store import Atlas
from precompute.progress import Silent
from precompute.worker import Worker
from tests.browser.accessibility import violations
from tests.browser.conftest import Site, Visit, open_context, serving, watch
from tests.conftest import TinyAtlas

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SMALL = {"sequences": 3, "span": 8, "parts": ["curves", "heads"]}
KEY = "s3cret"


def copied(atlas: TinyAtlas, folder: Path) -> TinyAtlas:
    """An atlas of one's own: jobs must not be seen by other tests."""
    for part in ("", "-wal", "-shm"):
        if (file := Path(f"{atlas.path}{part}")).exists():
            shutil.copy(file, folder / f"own.db{part}")
    return replace(atlas, path=folder / "own.db")


@pytest.fixture
def site(tiny_atlas: TinyAtlas, tmp_path: Path) -> Iterator[Site]:
    with serving(copied(tiny_atlas, tmp_path), tmp_path / "cache") as found:
        yield found


@pytest.fixture
def closed_site(tiny_atlas: TinyAtlas, tmp_path: Path) -> Iterator[Site]:
    """A service that wants its key."""
    with serving(copied(tiny_atlas, tmp_path), tmp_path / "cache", api_key=KEY) as found:
        yield found


def queued(site: Site, **changes: Any) -> int:
    body = {"model": site.atlas.slug, "induction": SMALL | {"run": site.atlas.run} | changes}
    return int(httpx.post(f"{site.address}/api/v1/jobs", json=body).raise_for_status().json()["id"])


def work(site: Site, tmp_path: Path) -> None:
    """What `calibroscope worker --once` does."""
    with Atlas.open(site.atlas.path) as atlas:
        assert Worker(atlas, tmp_path / "cache", Silent(), "cpu").work(once=True) > 0


def open_page(page: Page, site: Site, query: str = "") -> None:
    page.goto(f"{site.address}/induction?{query}")
    expect(page.locator("#induction-model")).to_have_value(site.atlas.slug)
    expect(page.locator("#induction-run")).not_to_have_value("")


def shows_results(page: Page) -> None:
    titles = [panel.title for panel in PANELS if panel.part in ("curves", "heads")]
    expect(page.locator(".panel h2:visible")).to_have_text(titles)
    expect(page.locator(".panel .js-plotly-plot")).to_have_count(2)
    expect(page.get_by_text("Being measured")).to_have_count(0)


def test_a_job_is_queued_and_its_results_appear_when_a_worker_has_done_it(
    visit: Visit, site: Site, tmp_path: Path
) -> None:
    page = visit.page
    open_page(page, site, "span=8&sequences=150&seed=4&parts=curves,heads")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("At most 100 sequences are run while you wait")
    page.get_by_role("button", name="Run as a job").click()
    expect(page.locator("#induction-notice")).to_contain_text("start calibroscope worker in a terminal")
    expect(page.get_by_role("alert")).to_have_count(0)
    page.wait_for_function("location.search === '?job=1'")
    expect(page.get_by_text("Being measured").first).to_be_visible()
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    work(site, tmp_path)
    shows_results(page)
    expect(page.locator("#induction-status")).to_have_text("Job 1 is finished.")
    expect(page.locator("#induction-notice")).to_contain_text("Job 1 (finished)")
    expect(page.get_by_role("button", name="Cancel job")).to_have_count(0)
    kept = httpx.get(f"{site.address}/api/v1/jobs/1").json()["request"]
    assert (kept["sequences"], kept["seed"], kept["span"]) == (150, 4, 8)


def test_leaving_the_page_cancels_nothing(visit: Visit, site: Site, tmp_path: Path) -> None:
    page = visit.page
    number = queued(site)
    open_page(page, site, f"job={number}")
    expect(page.locator("#induction-notice")).to_contain_text("queued")
    page.get_by_role("link", name="Jobs", exact=True).click()
    expect(page.get_by_role("table").get_by_text("queued")).to_be_visible()
    page.wait_for_timeout(600)
    assert httpx.get(f"{site.address}/api/v1/jobs/{number}").json()["status"] == "queued"
    work(site, tmp_path)
    expect(page.get_by_role("table").get_by_text("finished")).to_be_visible()
    page.get_by_role("link", name=f"Results of job {number}").click()
    page.wait_for_url(f"**/induction?job={number}")
    shows_results(page)


def test_a_link_to_a_finished_job_shows_it_and_fills_the_controls(visit: Visit, site: Site, tmp_path: Path) -> None:
    page, own = visit.page, f"{site.atlas.layer}.5"
    text = "Lamp <b>1</b> hangs. Lamp <b>1</b> hangs."
    number = queued(site, source="text", text=text, span=4, seed=9, neurons=[own])
    work(site, tmp_path)
    open_page(page, site, f"job={number}")
    shows_results(page)
    expect(page.get_by_role("textbox", name="Text")).to_have_value(text)
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("9")
    expect(page.get_by_role("checkbox", name="Clip the neurons")).not_to_be_checked()
    page.wait_for_timeout(600)
    assert page.url == f"{site.address}/induction?job={number}", "the same state has the same address"
    page.get_by_role("textbox", name="Seed").fill("10")
    page.wait_for_function("location.search.includes('seed=10') && !location.search.includes('job')")
    page.get_by_role("textbox", name="Seed").fill("9")
    page.wait_for_function(f"location.search === '?job={number}'")


def test_newcomers_see_the_runs_results_at_once(visit: Visit, site: Site, tmp_path: Path) -> None:
    page = visit.page
    open_page(page, site)
    expect(page.get_by_text("Watch a model meet the same text twice")).to_be_visible()
    expect(page.get_by_text("No job of this model yet.")).to_be_visible()
    number = queued(site)
    work(site, tmp_path)
    later = queued(site, seed=3)
    open_page(page, site)
    expect(page.locator("#induction-notice")).to_contain_text("These results were in the atlas already")
    shows_results(page)
    page.get_by_text("Results in the atlas", exact=True).click()
    entries = page.locator(".kept a")
    expect(entries).to_have_text([re.compile(f"^{later} · "), re.compile(f"^{number} · ")])
    entries.first.click()
    page.wait_for_function(f"location.search === '?job={later}'")
    expect(page.locator("#induction-notice")).to_contain_text(f"Job {later} (queued)")
    page.get_by_role("link", name="Induction", exact=True).click()
    expect(page.locator("#induction-notice")).to_contain_text("These results were in the atlas already")
    shows_results(page)


def test_a_run_takes_the_panels_over_from_a_job(visit: Visit, site: Site) -> None:
    page = visit.page
    number = queued(site)
    open_page(page, site, f"job={number}")
    expect(page.get_by_text("Being measured").first).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#induction-status")).to_contain_text("Measured in", timeout=120_000)
    shows_results(page)
    expect(page.locator("#induction-notice")).to_be_empty()
    assert "job=" not in page.url


def test_a_job_is_cancelled_where_it_is_shown_and_in_the_table(visit: Visit, site: Site) -> None:
    page = visit.page
    first, second = queued(site), queued(site, seed=1)
    open_page(page, site, f"job={first}")
    page.get_by_role("button", name=f"Cancel job {first}").click()
    expect(page.locator("#induction-status")).to_contain_text("was cancelled")
    expect(page.locator("#induction-notice")).to_contain_text("cancelled")
    expect(page.get_by_text("the run was cancelled before").first).to_be_visible()
    page.goto(f"{site.address}/jobs")
    button = page.get_by_role("button", name=f"Cancel job {second}")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table").get_by_text("cancelled")).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("Cancel job"))).to_have_count(0)


def test_a_job_that_failed_tells_why(visit: Visit, site: Site, tmp_path: Path) -> None:
    page = visit.page
    number = queued(site, span=200)
    work(site, tmp_path)
    message = httpx.get(f"{site.address}/api/v1/jobs/{number}").json()["message"]
    assert message
    page.goto(f"{site.address}/jobs")
    expect(page.locator(".job-message")).to_have_text(message)
    open_page(page, site, f"job={number}")
    expect(page.get_by_role("alert")).to_contain_text(message)
    expect(page.get_by_text("the run failed before it came to this").first).to_be_visible()


def test_a_service_that_wants_its_key_is_given_it(chromium: Browser, closed_site: Site) -> None:
    context = open_context(chromium)
    seen = watch(context.new_page(), closed_site)
    page = seen.page
    open_page(page, closed_site, "span=8&sequences=3&parts=curves")
    expect(page.get_by_label("Service key", exact=True)).to_be_hidden()
    for key, is_right in ((None, False), ("wrong", False), (KEY, True)):
        if key is not None:
            page.get_by_label("Service key", exact=True).fill(key)
        page.get_by_role("button", name="Run as a job").click()
        if not is_right:
            expect(page.get_by_role("alert")).to_contain_text("Writing needs the service's key")
            expect(page.get_by_label("Service key", exact=True)).to_be_visible()
            page.evaluate("document.querySelector('#induction-failed').replaceChildren()")
    expect(page.locator("#induction-notice")).to_contain_text("Job 1 (queued)")
    expect(page.get_by_label("Service key", exact=True)).to_be_hidden()
    page.goto(f"{closed_site.address}/jobs")
    page.get_by_role("button", name="Cancel job 1").click()
    expect(page.get_by_role("table").get_by_text("cancelled")).to_be_visible()
    stored = page.evaluate("[Object.values({...localStorage}).join(), Object.values({...sessionStorage}).join()]")
    context.close()
    assert KEY not in stored[0]
    assert KEY in stored[1]
    assert [error for error in seen.errors if "403" not in error and not error.endswith("/jobs")] == []


def test_jobs_in_every_state_fit_and_can_be_read(chromium: Browser, site: Site, tmp_path: Path) -> None:
    queued(site)
    queued(site, span=200)
    work(site, tmp_path)
    open_one = queued(site, seed=2)
    for width, dark in ((380, True), (1366, False)):
        context = open_context(chromium, width=width, dark=dark)
        seen = watch(context.new_page(), site)
        for path in ("/jobs", "/induction", f"/induction?job={open_one}"):
            seen.page.goto(site.address + path)
            expect(seen.page.get_by_text(re.compile("finished|queued")).locator("visible=true").first).to_be_visible()
            seen.page.wait_for_timeout(800)
            over = seen.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{path} scrolls sideways at {width}"
            assert violations(seen.page) == [], (path, width, dark)
        box = seen.page.get_by_role("button", name="Run as a job").bounding_box()
        assert box is not None
        assert box["height"] > 24, "the column's buttons are not squeezed"
        context.close()
        assert seen.errors == []
        assert seen.elsewhere == []
