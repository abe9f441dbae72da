"""A running site over the tiny atlas, and a real Chromium to visit it with."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from dash import page_registry
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from app.dashboard import create_dashboard, warm_up
from backend.client import AsyncClient
from backend.guards.connections import server_config
from backend.live.engine import LiveEngine
from backend.service import create_service
from backend.settings import Settings
from tests.conftest import TinyAtlas

BUILD = Path(__file__).parents[2] / "build" / "screenshots"
PATIENCE = 60_000
"""Milliseconds that a page is waited for: a loaded machine is slow, not wrong."""
expect.set_options(timeout=PATIENCE)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

_TELL_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) => console.error(
    "The page's policy forbids " + event.effectiveDirective + " " + event.blockedURI + " " + event.sample));"""
"""Libraries catch what they are refused, and Chromium does not always write it to the console."""


@dataclass
class Site:
    """Where the site is."""

    address: str
    atlas: TinyAtlas


@dataclass
class Visit:
    """A page, and what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@contextmanager
def serving(atlas: TinyAtlas, cache: Path, **settings: Any) -> Iterator[Site]:
    """A site over an atlas, on a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = LiveEngine(cache, device="cpu")
    pages = dict(page_registry)  # Dash keeps one for the whole process: a later site's would be asked for all
    service = create_service(Settings(atlas=str(atlas.path), port=port, **settings), engine=engine)
    create_dashboard(AsyncClient(service=service), service)
    server = uvicorn.Server(server_config(service, "127.0.0.1", port))

    def serve() -> None:  # in its own thread: Playwright keeps an event loop in this one
        anyio.run(warm_up, service)
        server.run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield Site(f"http://127.0.0.1:{port}", atlas)
    server.should_exit = True
    thread.join(timeout=10)
    engine.close()
    page_registry.clear()
    page_registry.update(pages)


@pytest.fixture(scope="session")
def site(tiny_atlas: TinyAtlas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tiny_atlas, tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.fail("No Chromium was found: install it (apt-get install chromium) or set CHROMIUM to its path.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def open_context(
    chromium: Browser, *, width: int = 1366, dark: bool = False, first_time: bool = False
) -> BrowserContext:
    """A fresh profile; someone who is not there for the first time is not offered the tour."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE)
    if not first_time:
        context.add_init_script("localStorage.setItem('calibroscope-tour', 'seen')")
    return context


def watch(page: Page, site: Site) -> Visit:
    """Collect errors in the page's console, failed answers, what the page's policy forbade it, and requests that leave
    the machine."""
    visit = Visit(page)
    page.add_init_script(_TELL_VIOLATIONS)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    page.on("response", lambda answer: visit.errors.append(answer.url) if answer.status >= 400 else None)
    local = (site.address, "data:", "blob:")
    page.on("request", lambda asked: visit.elsewhere.append(asked.url) if not asked.url.startswith(local) else None)
    return visit


@pytest.fixture
def visit(chromium: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A fresh browser window; the test fails if the page complained or called elsewhere. A screenshot is kept."""
    context = open_context(chromium)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    seen = watch(context.new_page(), site)
    yield seen
    BUILD.mkdir(parents=True, exist_ok=True)
    seen.page.screenshot(path=BUILD / f"{request.node.name}.png")
    context.close()
    assert seen.errors == []
    assert seen.elsewhere == []
