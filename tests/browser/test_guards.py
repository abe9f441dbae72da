"""The site under its own policy, seen by a browser: every page works, and pages of other sites can do nothing to it."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from app.pages.jobs import page as jobs
from tests.browser.conftest import Site, Visit, open_context

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ["/", "/m/{slug}/n/1/3", "/lab", "/induction", "/jobs", "/frequency", "/spectrum", "/glossary", "/api/docs"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_keeps_to_its_policy(path: str, visit: Visit, site: Site) -> None:
    """`visit` fails on whatever the policy forbade."""
    page = visit.page
    answer = page.goto(site.address + path.replace("{slug}", site.atlas.slug))
    assert answer is not None
    assert "content-security-policy" in answer.headers
    page.wait_for_selector("h1", state="attached")
    page.wait_for_load_state("networkidle")
    if path == "/":
        page.wait_for_selector("#atlas-graph .gl-canvas")
        expect(page.get_by_text("WebGL is not supported")).to_have_count(0)


def test_the_policy_holds_against_a_script_in_the_page(chromium: Browser, site: Site) -> None:
    """A check of the check: a script that got into a page's text is not run, and `visit` would have failed on it."""
    context = open_context(chromium)
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
    page.goto(site.address + "/glossary")
    page.wait_for_selector("h1")
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src="/no" onerror="window.ran = true">');
    }""")
    page.wait_for_timeout(500)
    assert page.evaluate("window.ran") is None
    assert any("script-src" in line for line in refused)
    context.close()


@pytest.fixture
def elsewhere(site: Site) -> Iterator[str]:
    """A site of somebody else's, whose page frames ours and writes to it in every way that a page can."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = f"{site.address}/api/v1/jobs"
            body = f"""<!doctype html><title>evil</title><iframe src="{site.address}/" id="frame"></iframe>
                <form id="form" method="post" action="{target}/1/cancel" enctype="text/plain" target="sink">
                <input name='{{"a": "' value='"}}'></form><iframe name="sink"></iframe>
                <script>window.done = Promise.allSettled([
                    fetch("{target}/1/cancel", {{method: "POST", mode: "no-cors"}}),
                    fetch("{target}", {{method: "POST", mode: "no-cors", body: "{{}}"}}),
                    fetch("{target}/1/cancel", {{method: "POST", headers: {{"x-api-key": "a"}}}}),
                    fetch("{site.address}/_dash-update-component", {{method: "POST", mode: "no-cors", body: "{{}}"}}),
                    fetch("{site.address}/api/v1/models"),
                ]).then((all) => all.map((one) => one.status));
                document.getElementById("form").submit();</script>""".encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{port}/"
    server.shutdown()


def test_another_sites_page_neither_frames_nor_writes(elsewhere: str, chromium: Browser, site: Site) -> None:
    context = open_context(chromium)
    page = context.new_page()
    asked: list[str] = []
    statuses: list[int] = []
    page.on("request", lambda request: asked.append(request.method))
    page.on("response", lambda answer: statuses.append(answer.status) if answer.request.method == "POST" else None)
    page.goto(elsewhere)
    settled = page.evaluate("window.done")
    page.wait_for_timeout(1_000)
    assert asked.count("POST") >= 4
    assert set(statuses) == {403}, "what could be sent was refused, and of the rest the browser shows no answer"
    assert settled[2] == settled[4] == "rejected", "the browser refuses what needs leave, and what would be read"
    framed = [frame for frame in page.frames if frame.url.startswith(site.address + "/") and frame.name != "sink"]
    assert not framed or not framed[0].locator("h1").count(), "the page is shown in no foreign frame"
    context.close()


def test_an_error_in_a_callback_shows_its_number(
    visit: Visit, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(jobs, "shown", broken)
    page = visit.page
    page.goto(f"{site.address}/jobs")
    told = page.get_by_role("alert").filter(has_text="Something failed here")
    expect(told.first).to_be_visible()
    incident = told.first.inner_text().split("(incident ")[1][:8]
    assert incident in capsys.readouterr().out
    monkeypatch.undo()
    told.first.get_by_role("button", name="Close").click()
    expect(page.get_by_text("Something failed here")).to_have_count(0)
