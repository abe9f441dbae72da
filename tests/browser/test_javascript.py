"""The page's scripts without a page: each function with data of its own, in the Chromium that the other tests use."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from app import links
from app.dashboard import STATIC
from app.figures import scales
from app.figures.scatter import View, drawable, kit
from app.notation.numbers import number
from app.pages.atlas.table import columns_data
from backend.glossary import METRIC
from backend.schemas import InductionRequest
from tests.app import sample
from tests.conftest import FIXTURES

pytestmark = [pytest.mark.slow, pytest.mark.browser]

_DASH = """window.dash_clientside = { no_update: "unchanged", callback_context: { triggered: [] },
    set_props: (id, props) => window.properties.push([id, props]) }; window.properties = [];"""


@pytest.fixture(scope="module")
def loaded(chromium: Browser) -> Iterator[Page]:
    """An empty page with every script, loaded in Dash's order: that of their names."""
    page = chromium.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.evaluate(_DASH)
    for script in sorted(STATIC.glob("*.js")):
        page.add_script_tag(path=script)
    assert errors == [], "a script needs one that is loaded after it"
    yield page
    page.close()


def _each(page: Page, function: str, arguments: list[Any]) -> list[Any]:
    return list(page.evaluate(f"(all) => all.map((given) => {function}(...given))", arguments))


def _numbers() -> list[list[Any]]:
    """Every size, round numbers and halves, which Python and JavaScript round differently by themselves."""
    chance = random.Random(0)
    sizes = [sign * chance.random() * 10.0**power for power in range(-12, 15) for sign in (1, -1) for _ in range(8)]
    powers = [sign * 10.0**power for power in range(-12, 15) for sign in (1, -1)]
    halves = [0.5, 1.5, 2.5, 0.125, 0.375, 0.0625, 12.125, 1234.5, 1235.5, -1234.5, 1.0625, 1.45, 1.005, 1125000.0]
    exact = [0.0, 12345.0, 999.96, 9.9996, 0.09999, 1e6, 999_999.5, 123.25, 123.35]
    errors = [None, 0.0, 0.5, 0.002, 0.25, 120.0, 1e-9, 3.0]
    values: list[float | None] = [*sizes, *powers, *halves, *exact, None]
    return [[value, chance.choice(("", "nats")), error] for value in values for error in errors]


@pytest.mark.parametrize("call", ["number", "percent"])
def test_numbers_are_written_by_the_rule(call: str, loaded: Page) -> None:
    cases = [case for case in json.loads((FIXTURES / "numbers.json").read_text()) if case["call"] == call]
    written = _each(loaded, f"calibroscopeFormat.{call}", [case["args"] for case in cases])
    assert written == [case["text"] for case in cases]


def test_any_number_is_written_as_python_writes_it(loaded: Page) -> None:
    given = _numbers()
    expected = [number(value, unit, error) for value, unit, error in given]
    written = _each(loaded, "calibroscopeFormat.number", given)
    assert [one for one in zip(given, written, expected, strict=True) if one[1] != one[2]] == []
    counts = [[0], [999], [1000], [12345], [1234567]]
    assert _each(loaded, "calibroscopeFormat.count", counts) == [f"{whole:,}" for [whole] in counts]
    assert loaded.evaluate("[NaN, Infinity, undefined].map((value) => calibroscopeFormat.number(value))") == ["—"] * 3


def test_a_token_shows_what_would_be_drawn_as_nothing(loaded: Page) -> None:
    cases = json.loads((FIXTURES / "visible_tokens.json").read_text())
    written = _each(loaded, "calibroscopeFormat.visible", [[case["token"]] for case in cases])
    assert written == [case["text"] for case in cases]


def test_an_address_is_written_once_and_reads_well(loaded: Page) -> None:
    join = "calibroscopeAddress.join"
    assert _each(loaded, join, [["/spectrum", {"run": 3, "neurons": "1.2,1.3"}], ["/lab", {}]]) == [
        "/spectrum?run=3&neurons=1.2,1.3", "/lab",
    ]  # fmt: skip
    names = [["a b/é", "11.2378"], ["tiny", "0.0"]]
    assert _each(loaded, "calibroscopeAddress.neuron", names) == [links.neuron(*one) for one in names]


def test_an_address_follows_its_controls(chromium: Browser) -> None:
    page = chromium.new_page()
    page.route("**/*", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page.goto("http://calibroscope.test/spectrum")
    page.evaluate(_DASH)
    for name in ("base_dom", "base_address"):
        page.add_script_tag(content=(STATIC / f"{name}.js").read_text())
    follow = """(values) => calibroscopeAddress.follow("/spectrum", ["model", "run", "beside", "close"], values,
        { beside: "none" })"""
    assert page.evaluate(follow, ["tiny", "1", "none", False]) == "unchanged"
    assert page.url == "http://calibroscope.test/spectrum?model=tiny&run=1"
    page.evaluate(follow, ["tiny", "1", "2", True])
    assert page.url == "http://calibroscope.test/spectrum?model=tiny&run=1&beside=2&close=1"
    page.evaluate(follow, ["tiny", None, "2", True])
    assert page.url.endswith("run=1&beside=2&close=1"), "without a run there is no view to link to"
    page.evaluate("calibroscopeAddress.show('/spectrum?model=other', true)")
    page.go_back()
    assert page.url.endswith("run=1&beside=2&close=1")
    page.close()


def test_text_is_set_as_text(loaded: Page) -> None:
    markup = "<img src=x onerror=alert(1)>"
    made = loaded.evaluate("(text) => calibroscopeDom.element('p', 'quiet', text).outerHTML", markup)
    assert made == '<p class="quiet">&lt;img src=x onerror=alert(1)&gt;</p>'
    failure = """(text) => { const place = document.createElement("div"); calibroscopeDom.addFailure(place, text);
        return [place.textContent, place.querySelectorAll("img").length, place.firstChild.getAttribute("role")]; }"""
    assert loaded.evaluate(failure, markup) == [f"This did not work. {markup}", 0, "alert"]


def test_events_arrive_whole_however_they_are_cut(loaded: Page) -> None:
    read = """async (pieces) => {
        const encoder = new TextEncoder(), seen = [];
        const fill = (to) => { pieces.forEach((one) => to.enqueue(encoder.encode(one))); to.close(); };
        const body = new ReadableStream({ start: fill });
        for await (const event of calibroscopeStream.events({ body })) seen.push(event);
        return seen;
    }"""
    pieces = ['data: {"kind"', ': "step"}\n', '\n: quiet\n\ndata: {"kind": "end"}\n\n', 'data: {"kind": "cut off']
    assert loaded.evaluate(read, pieces) == [{"kind": "step"}, {"kind": "end"}]


def test_an_error_without_a_reason_is_still_said(loaded: Page) -> None:
    refusal = """([body, status]) => calibroscopeStream.refusal(new Response(body, { status }))"""
    assert loaded.evaluate(refusal, ['{"detail": "Too long."}', 422]) == "Too long."
    assert loaded.evaluate(refusal, ["<h1>Bad gateway</h1>", 502]) == "The service answered 502."


@pytest.mark.parametrize(
    "values", [[-0.3, 0.0, 2e-5, 1.5, -4e-4, 800.0, 7.0], [-1.0, -0.1, 0.1, 1.0, 10.0], [0.0], [3.0]]
)
def test_a_signed_scale_places_and_names_values_as_python_does(values: list[float], loaded: Page) -> None:
    read = """(values) => { const { place, layout } = calibroscopeAtlasScales.axis(values, "signed");
        return [values.map(place), layout.tickvals, layout.ticktext]; }"""
    within = scales.threshold(values)
    named = scales.ticks(values, within)
    places, ticks, labels = loaded.evaluate(read, values)
    assert places == pytest.approx([scales.placed(value, within) for value in values])
    assert ticks == pytest.approx([scales.placed(value, within) for value in named])
    assert labels == [scales.tick_label(value) for value in named]


_VIEW = View("ln_mediated", "delta_loss", "class", "linear", "log")


def _figure(page: Page, colour: str = "class", picked: list[str] | None = None) -> dict[str, Any]:
    """The atlas's figure of the sample run, as the page composes it."""
    data = columns_data(sample.columns(["ln_mediated", "delta_loss"]), {})
    data["columns"] = {name: [None if np.isnan(one) else one for one in values.tolist()]
                       for name, values in data["columns"].items()}  # fmt: skip
    draw = """([data, colour, kit, picked]) => {
        const { draw, compose } = calibroscopeAtlasFigure;
        const base = draw(data, "ln_mediated", "delta_loss", colour, null, "linear", "log", kit);
        const chosen = [picked, [], null, { tiny: ["29.3"] }, "pan", "tiny"];
        return { note: base.note, ...compose(base, ["plain", "entropy"], ...chosen) };
    }"""
    return dict(page.evaluate(draw, [data, colour, kit(), picked or []]))


def test_the_atlas_leaves_out_what_python_leaves_out_and_says_so(loaded: Page) -> None:
    rows, sentence = drawable(sample.columns(["ln_mediated", "delta_loss"]), _VIEW)
    figure = _figure(loaded)
    drawn = [name for trace in figure["data"] if trace.get("meta") for name in trace["customdata"]]
    assert sorted(drawn) == sorted(f"29.{row}" for row in rows)
    assert figure["note"] == sentence


def test_the_atlas_hides_marks_and_selects(loaded: Page) -> None:
    traces = {trace.get("meta") or trace["name"]: trace for trace in _figure(loaded, picked=["29.7"])["data"]}
    assert traces["entropy"]["customdata"] == ["29.7"]
    assert (traces["entropy"]["visible"], traces["prediction"]["visible"]) == (True, False)
    assert (traces["entropy"]["selectedpoints"], traces["plain"]["selectedpoints"]) == ([0], [])
    assert traces["Pinned"]["text"] == ["29.3"]
    value = sample.columns(["ln_mediated", "delta_loss"]).columns["delta_loss"][7]
    written = number(value, METRIC["delta_loss"].unit)
    assert f"{METRIC['delta_loss'].label}: {written}" in traces["entropy"]["text"][0]
    coloured = _figure(loaded, colour="ln_mediated")
    assert coloured["layout"]["coloraxis"]["colorbar"]["title"]["text"] == kit()["metrics"]["ln_mediated"]["title"]


def test_pins_survive_what_was_stored_by_hand(loaded: Page) -> None:
    read = "calibroscopePins.read"
    stored = {"tiny": ["1.3", "1.3", "<b>", 5], "other": "1.2", "many": [f"1.{index}" for index in range(60)]}
    assert _each(loaded, read, [[stored], [None]]) == [
        {"tiny": ["1.3"], "many": [f"1.{index}" for index in range(20, 60)]}, {},
    ]  # fmt: skip
    assert _each(loaded, "calibroscopePins.toggled", [[{}, "tiny", "1.3"], [{"tiny": ["1.3"]}, "tiny", "1.3"]]) == [
        {"tiny": ["1.3"]}, {},
    ]  # fmt: skip


_CONTROLS = ["tiny", "1", "text", "a lamp, a lamp", 3, 8, ["1.3", "1.5"], ["curves", "clip"], [], 2, 7, "every"]


def _request(page: Page, controls: list[Any]) -> dict[str, Any]:
    return dict(page.evaluate("calibroscopeInductionRequest.fromControls(" + json.dumps(controls) + ")"))


def test_an_induction_request_is_one_that_the_service_reads(loaded: Page) -> None:
    body = loaded.evaluate("(request) => calibroscopeInductionRequest.body(request)", _request(loaded, _CONTROLS))
    read = InductionRequest.model_validate(body)
    assert (read.text, read.sequences, read.span, read.seed, read.top_heads) == ("a lamp, a lamp", 3, 8, 7, 2)
    empty = _request(loaded, ["tiny", "1", *[None] * 10])
    body = loaded.evaluate("(request) => calibroscopeInductionRequest.body(request)", empty | {"parts": ["curves"]})
    assert InductionRequest.model_validate(body) == InductionRequest(run=1, parts=["curves"], span=100)
    objection = "(request) => calibroscopeInductionRequest.objection(request, 20)"
    assert loaded.evaluate(objection, empty) == "Tick at least one part."
    assert "At most 20 sequences" in loaded.evaluate(objection, empty | {"parts": ["curves"], "sequences": 21})


def test_an_induction_address_keeps_a_text_from_every_server(loaded: Page) -> None:
    address = "([request, job]) => calibroscopeInductionRequest.address(request, job)"
    request = _request(loaded, _CONTROLS)
    own = loaded.evaluate(address, [request, None])
    assert own == {
        "link": "/induction?model=tiny&run=1&source=text&sequences=3&span=8&seed=7&neurons=1.3,1.5&parts=curves,clip"
        "&top=2#text=a+lamp%2C+a+lamp",
        "isCut": False,
    }  # fmt: skip
    long = loaded.evaluate(address, [request | {"text": "lamp " * 2000}, None])
    assert long == {"link": own["link"].split("#")[0], "isCut": True}


def test_a_jobs_address_holds_while_the_controls_ask_for_what_it_does(loaded: Page) -> None:
    address = "([request, job]) => calibroscopeInductionRequest.address(request, job).link"
    request = _request(loaded, _CONTROLS) | {"source": "synthetic"}
    body = loaded.evaluate("(request) => calibroscopeInductionRequest.body(request)", request)
    job = {"number": 4, "request": body | {"run": None, "neurons": body["neurons"][::-1]}}
    assert loaded.evaluate(address, [request, job]) == "/induction?job=4"
    assert loaded.evaluate(address, [request | {"seed": 8}, job]).startswith("/induction?model=tiny")
    assert loaded.evaluate(address, [request | {"neurons": ["1.4"]}, job]).startswith("/induction?model=tiny")
    unnamed = {"number": 4, "request": body | {"neurons": []}}
    assert loaded.evaluate(address, [request | {"neurons": ["1.4"]}, unnamed]) == "/induction?job=4"


def test_generated_tokens_are_shown_not_obeyed(loaded: Page) -> None:
    grow = """([plain, changed]) => {
        const view = calibroscopeLabGeneration.columns([..."0123456789"], true);
        const step = (token, token_id) => ({ token, token_id, probability: 0.25, entropy: 1234.5 });
        view.add({ plain: step("same", 1), changed: step("same", 1) });
        view.add({ plain: step(plain, 2), changed: step(changed, 3) });
        const read = (name) => [...view.frame.querySelectorAll(name)];
        return { tokens: read(".tok").map((one) => one.textContent), differ: read(".differs").length, titles:
            read(".tok").map((one) => one.title), tails: read(".generated-tail").map((one) => one.textContent),
            markup: read("b").length, words: view.inWords() };
    }"""
    made = loaded.evaluate(grow, ["\u202edesrever", "<b>"])
    assert made["tokens"] == ["same", "\\u202edesrever", "same", "<b>"]
    assert (made["differ"], made["markup"], made["tails"]) == (2, 0, ["…23456789"] * 2)
    assert "probability 25.0 %, drawn from a prediction of entropy 1,234 nats" in made["titles"][1]
    assert "\u202e" not in "".join(made["titles"])
    assert made["words"] == "They part at generated token 2."
