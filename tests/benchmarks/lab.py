"""What a person feels in the Text lab, and what the page sends: `python -m tests.benchmarks.lab http://127.0.0.1:8050`.

Asks a service that runs already, by a real browser. A step is a key pressed on an intervention's slider, timed until
the changed strips are painted; a click is one on a token, timed until its panel is painted. Bytes are the bodies of all
that the page sent for it, uncompressed as they travel up.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import httpx
from playwright.sync_api import Page, Request, sync_playwright

from tests.core.prose import PROSE

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_QUIET_MS = 400
"""An action is over when the page has asked for nothing for so long; the next begins on a page that rests."""
_WATCH = """
(place) => {
    let from = null;
    window.labTook = null;
    const painted = () => requestAnimationFrame(() => setTimeout(() => { window.labTook = performance.now() - from; }));
    for (const kind of ["keydown", "click"])
        document.addEventListener(kind, (event) => { from = event.timeStamp; }, { capture: true });
    const seen = { subtree: true, childList: true, attributeFilter: ["style", "title"], characterData: true };
    new MutationObserver(painted).observe(document.querySelector(place), seen);
}
"""


@dataclass
class Sent:
    """Bodies that a page sent, in bytes, and how large the answers to them were."""

    up: list[int] = field(default_factory=list)
    down: list[int] = field(default_factory=list)
    waiting: int = 0

    def began(self, _: Request) -> None:
        self.waiting += 1

    def ended(self, request: Request) -> None:
        self.waiting -= 1
        if request.method == "POST":
            sizes = request.sizes()
            self.up.append(sizes["requestBodySize"])
            self.down.append(sizes["responseBodySize"])


@dataclass(frozen=True)
class Felt:
    """One kind of action, repeated."""

    name: str
    milliseconds: list[float]
    up: float
    """Bytes an action."""
    down: float
    requests: float

    def line(self) -> str:
        took = sorted(self.milliseconds)
        late = took[min(len(took) - 1, int(0.9 * len(took)))]
        return (
            f"{self.name:<34} median {median(took):6.0f} ms, 90th percentile {late:6.0f} ms; "
            f"{self.requests:.1f} requests, {self.up / 1000:8.1f} kB up, {self.down / 1000:8.1f} kB down"
        )


def text_of(http: httpx.Client, model: str, tokens: int) -> str:
    """Prose of about so many tokens, at most."""
    words = (PROSE + " ") * (1 + tokens // 200)
    words_used = words.split()
    low, high = 1, min(len(words_used), tokens)
    while low < high:
        middle = (low + high + 1) // 2
        text = " ".join(words_used[:middle])
        answer = http.post(f"/api/v1/models/{model}/texts", json={"text": text}, timeout=120).json()
        fits = len(answer["tokens"]) <= tokens and not answer["truncated"]
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words_used[:low])


def repeated(page: Page, name: str, watched: str, act: Callable[[int], None], times: int) -> Felt:
    page.evaluate(_WATCH, watched)
    sent, took = Sent(), []
    page.on("request", sent.began)
    page.on("requestfinished", sent.ended)
    for turn in range(times):
        page.evaluate("window.labTook = null")
        act(turn)
        page.wait_for_function("window.labTook !== null")
        page.wait_for_timeout(_QUIET_MS)
        while sent.waiting:
            page.wait_for_timeout(_QUIET_MS)
        took.append(page.evaluate("window.labTook"))
    page.remove_listener("request", sent.began)
    page.remove_listener("requestfinished", sent.ended)
    return Felt(name, took, sum(sent.up) / times, sum(sent.down) / times, len(sent.up) / times)


def measured(page: Page, address: str, model: str, neuron: str, text: str, tokens: int, times: int) -> list[Felt]:
    page.goto(f"{address}/lab?model={model}#do={neuron}:scale:2")
    page.locator(".intervention-slider").wait_for()
    page.locator("#lab-text").fill(text)
    page.locator("#lab-text").blur()
    page.get_by_role("button", name="Analyse").click()
    page.locator(".totals").first.wait_for()
    page.wait_for_timeout(_QUIET_MS)
    thumb = page.locator(".intervention-slider [role=slider]")

    def step(turn: int) -> None:
        thumb.focus()
        page.keyboard.press("ArrowRight" if turn % 20 < 10 else "ArrowLeft")

    def click(turn: int) -> None:
        page.locator(f"#lab-canvas [data-token='{3 + turn}']").first.click()

    shown = page.locator("#lab-canvas .strip").first.locator("[data-token]").count()
    name = f"{shown} tokens"
    return [
        repeated(page, f"slider step, {name}", "#lab-canvas", step, times),
        repeated(page, f"click on a token, {name}", "#lab-detail", click, max(3, times // 4)),
        repeated(page, f"step, a token chosen, {name}", "#lab-canvas", step, max(3, times // 2)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", nargs="+", help="of running services; they are measured in turn")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--neuron", default="29.830")
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--times", type=int, default=30)
    asked = parser.parse_args()
    found = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        for tokens in asked.tokens:
            for address in asked.address:
                with httpx.Client(base_url=address) as http:
                    text = text_of(http, asked.model, tokens)
                context = browser.new_context(viewport={"width": 1366, "height": 900}, reduced_motion="reduce")
                context.set_default_timeout(120_000)
                context.add_init_script("localStorage.setItem('calibroscope-tour', 'seen')")
                print(address)
                for felt in measured(context.new_page(), address, asked.model, asked.neuron, text, tokens, asked.times):
                    print("  " + felt.line(), flush=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
