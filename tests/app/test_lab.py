"""The Text lab's callbacks: links, live interventions, pins, examples, and what they say when something fails."""

import json
from typing import Any

import pytest
from dash import no_update

from app.components import pins
from app.dashboard import create_dashboard
from app.pages.lab import actions, ids
from app.pages.lab import generate as lab_generate
from app.pages.lab import interventions as lab_interventions
from app.pages.lab import traced as lab_traced
from app.pages.lab import views as lab_views
from app.pages.lab.examples import EXAMPLES
from app.pages.lab.traced import Traced
from backend import schemas
from backend.client import ApiError, AsyncClient, Call
from backend.schemas import MAX_TEXT_CHARS
from tests.app import sample
from tests.app.pages import Service, body_of, text_of

pytestmark = pytest.mark.anyio

TRACED: Traced = {"id": "abc", "text": "The lamp is lit.", "model": "tiny"}
CHOSEN = [{"neuron": "29.7", "kind": "mean", "value": None}]


def answering(**answers: Any) -> Service:
    return Service(**{name: lambda _, found=found: found for name, found in answers.items()})


async def test_analysing_keeps_the_id_and_draws_the_text_or_says_why_not() -> None:
    service = answering(texts=sample.trace(truncated=True))
    traced, message, token, strips, notes = await actions.analysed(service, "The lamp is lit.", "tiny")
    assert traced == TRACED
    assert f"first {len(sample.TOKENS)} tokens" in message
    assert token is None
    assert len(strips["strips"]) == 3
    assert "no run of this model has kept" in text_of(notes)
    for text, model, words in (("", "tiny", "Write or pick"), ("a", None, "no model"), ("a", "tiny", "nothing at")):
        traced, message, _, strips, notes = await actions.analysed(Service(), text, model)
        assert words in text_of(message)
        assert traced is no_update
        assert (strips, notes) == (no_update, no_update), "what was shown stays"


async def test_a_link_brings_text_and_interventions_back() -> None:
    service = answering(texts=sample.trace())
    asked = {"model": "tiny", "text": "The lamp is lit.", "do": "29.7:scale:2,29.1:explode", "cut": False}
    traced, message, token, strips, _, chosen, text, model = await actions.restored(service, asked, None)
    assert (traced, text, model) == (TRACED, "The lamp is lit.", "tiny")
    assert chosen == [{"neuron": "29.7", "kind": "scale", "value": 2.0}]
    assert (message, token) == (None, None)
    assert len(strips["strips"]) == 3
    cut = await actions.restored(service, asked | {"cut": True}, None)
    assert "too long for a link" in text_of(cut[1])


async def test_undoing_an_intervention_does_not_trace_the_same_text_again() -> None:
    service = answering(texts=sample.trace())
    asked = {"model": "tiny", "text": "The lamp is lit.", "do": ""}
    traced, message, _, strips, _, chosen, text, _ = await actions.restored(service, asked, TRACED)
    assert service.asked == []
    assert (traced, strips, message) == (no_update, no_update, None)
    assert (chosen, text) == ([], "The lamp is lit.")
    await actions.restored(service, asked | {"model": "other"}, TRACED)
    assert service.asked == ["/models/other/texts"], "another model reads it anew"


@pytest.mark.parametrize("asked", [None, "text", 5, []])
async def test_a_broken_state_changes_nothing(asked: Any) -> None:
    assert await actions.restored(Service(), asked, TRACED) == (no_update,) * 8


async def test_a_link_to_a_text_that_is_refused_still_fills_the_box() -> None:
    long = "a" * (MAX_TEXT_CHARS + 1)
    traced, message, _, _, _, _, text, _ = await actions.restored(Service(), {"model": "tiny", "text": long}, None)
    assert traced is no_update
    assert "at most 20,000" in text_of(message)
    assert text == long


async def test_an_intervention_changes_everything_in_one_answer() -> None:
    service = answering(ablate=sample.ablation(), abc=sample.trace())
    changes, result, detail = await actions.intervened(service, TRACED, CHOSEN, None)
    assert service.asked == ["/texts/abc/ablate"], "a slider's step is one request"
    assert "What the intervention does" in text_of(result)
    assert changes["text"] == "abc"
    assert len(changes["strips"]) == 5
    assert "tokens" not in changes, "the page has drawn them"
    assert detail is no_update
    json.dumps(changes)
    *_, detail = await actions.intervened(service, TRACED, CHOSEN, 1)
    words = text_of(detail)
    assert "Norm of the residual stream" in words
    assert "240.0" in words
    assert "(+9.600)" in words
    assert service.asked[1:] == ["/texts/abc/ablate", "/texts/abc"]
    changes, result, detail = await actions.intervened(Service(), TRACED, CHOSEN, None)
    assert "nothing at" in text_of(result)
    assert (changes["strips"], detail) == ([], no_update), "the text alone"
    service = Service()
    changes, result, _ = await actions.intervened(service, TRACED, [], None)
    assert (changes["strips"], result, service.asked) == ([], None, [])
    assert await actions.intervened(Service(), None, CHOSEN, None) == (None, None, no_update)


async def test_the_service_is_asked_for_the_predictions_that_are_shown_alone() -> None:
    calls: dict[str, Any] = {}

    def ablate(call: Call[Any]) -> Any:
        calls["ablate"] = body_of(call).predictions_at
        return sample.ablation()

    def text(call: Call[Any]) -> Any:
        calls["text"] = call.params["predictions_at"]
        return sample.trace()

    await actions.intervened(Service(ablate=ablate), TRACED, CHOSEN, None)
    assert calls == {"ablate": []}
    await actions.token_chosen(Service(ablate=ablate, abc=text), TRACED, CHOSEN, 1)
    assert calls == {"ablate": [1], "text": [1]}


class Forgetful(Service):
    """Knows a text's id only after it has been traced again; then it may be another."""

    def __init__(self, trace: schemas.TextTrace) -> None:
        super().__init__(
            texts=lambda _: trace,
            ablate=lambda _: sample.ablation(),
            activations=lambda call: sample.activations(body_of(call).neurons),
        )
        self.traces = 0

    async def send(self, call: Call[Any]) -> Any:
        self.traces += call.path.endswith("/texts")
        if not self.traces:
            self.asked.append(call.path)
            raise ApiError(schemas.Problem(title="Not found", status=404, detail="no traced text"))
        return await super().send(call)


async def test_a_forgotten_text_is_traced_again_silently() -> None:
    service = Forgetful(sample.trace())
    changes, result, _ = await actions.intervened(service, TRACED, CHOSEN, None)
    assert service.asked == ["/texts/abc/ablate", "/models/tiny/texts", "/texts/abc/ablate"]
    assert "What the intervention does" in text_of(result)
    assert changes["text"] == "abc"
    data, _ = await actions.pinned(Forgetful(sample.trace()), TRACED, {"tiny": ["29.7"]})
    assert len(data["strips"]) == 1


async def test_a_text_that_is_read_otherwise_by_now_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's newest run begins texts with a token of which the page knows nothing: the old strips would lie."""
    redrawn: dict[str, Any] = {}
    monkeypatch.setattr(lab_traced, "set_props", lambda name, props: redrawn.update({name: props["data"]}))
    await actions.intervened(Forgetful(sample.trace()), TRACED, CHOSEN, None)
    assert redrawn == {}, "the text has its id again"
    await actions.intervened(Forgetful(sample.trace(id="new")), TRACED, CHOSEN, None)
    assert redrawn[ids.TRACED] == {**TRACED, "id": "new"}
    assert redrawn[ids.STRIPS]["text"] == "new"


async def test_the_distance_from_token_frequencies_has_strips_a_total_and_a_fact() -> None:
    trace = sample.trace(values=sample.known_kl(sample.trace().values), frequencies="counted words (run 1)")
    drawn = {strip["title"]: strip for strip in lab_views.text_strips(trace)["strips"]}
    assert drawn["KL from token frequencies"]["shown"][0] == "4.000 nats"
    service = answering(ablate=sample.frequency_ablation(), abc=trace)
    changes, result, detail = await actions.intervened(service, TRACED, CHOSEN, 1)
    strips = {strip["title"]: strip for strip in changes["strips"]}
    change = strips["Change of KL from token frequencies"]
    assert (change["kind"], change["shown"][1]) == ("change", "−0.500 nats")
    direct = strips["Change of KL from token frequencies, direct part (norm frozen)"]
    assert direct["shown"][1] == "+0.250 nats"
    assert direct["legend"] == change["legend"] == ["−0.500", "+0.500 nats"], "one scale, 0 in its middle"
    for word in ("Mean KL from token frequencies", "4.500 nats", "(−0.500)", "(+0.250)"):
        assert word in text_of(result)
    assert "KL from token frequencies" in text_of(detail)
    assert "counted words (run 1)" in lab_views.frequency_note(trace)


async def test_without_token_frequencies_the_lab_says_why_there_is_no_strip() -> None:
    assert "no run of this model has kept" in lab_views.frequency_note(sample.trace())
    service = answering(ablate=sample.ablation(), abc=sample.trace())
    changes, result, detail = await actions.intervened(service, TRACED, CHOSEN, 1)
    assert not [strip for strip in changes["strips"] if "KL" in strip["title"]]
    assert "KL" not in text_of(result) + text_of(detail)


async def test_a_tokens_panel_has_no_after_without_an_intervention() -> None:
    service = answering(ablate=sample.ablation(), abc=sample.trace())
    words = text_of(await actions.token_chosen(service, TRACED, [], 1))
    assert "Scale of the final norm" in words
    assert "after" not in words
    assert "after" in text_of(await actions.token_chosen(service, TRACED, CHOSEN, 1))
    assert await actions.token_chosen(service, TRACED, CHOSEN, None) is None
    assert await actions.token_chosen(service, None, CHOSEN, 1) is None
    assert "nothing at" in text_of(await actions.token_chosen(Service(), TRACED, [], 999))


async def test_the_lab_shows_the_change_and_its_direct_part() -> None:
    words = text_of(lab_views.totals(sample.ablation()))
    assert "75.0 %" in words
    assert "mean over words" in words
    assert "(+0.400)" in words
    assert "(+0.100)" in words
    text, changes = lab_views.text_strips(sample.trace()), lab_views.change_strips("abc", sample.ablation())
    assert [strip["title"] for strip in text["strips"]] == ["Loss", "Entropy", "Rank of the token"]
    titles = " ".join(strip["title"] for strip in changes["strips"])
    for title in ("Activation of 29.7", "Change of loss", "direct part"):
        assert title in titles
    for strip in [*text["strips"], *changes["strips"]]:
        assert len(strip["shade"]) == len(strip["shown"]) == len(text["tokens"])


async def test_a_long_text_is_light_to_send() -> None:
    """Strips travel as data: a thousand tokens must not become megabytes."""
    trace, ablation = sample.trace(repeat=200), sample.ablation("long", repeat=200)
    tokens = len(trace.tokens)
    assert tokens >= 1000
    assert len(json.dumps(lab_views.text_strips(trace))) < 400 * tokens
    assert len(json.dumps(lab_views.change_strips("long", ablation))) < 200 * tokens


async def test_who_matters_at_a_token_is_a_table_of_links_or_says_why_not() -> None:
    asked: list[Call[Any]] = []

    def sweep(call: Call[Any]) -> Any:
        asked.append(call)
        return sample.sweep()

    drawn = await actions.who_matters(Service(sweep=sweep), TRACED, 1)
    assert "/m/tiny/n/29/7" in str(drawn)
    assert "−0.200" in text_of(drawn)
    assert (asked[0].path, body_of(asked[0]).position) == ("/texts/abc/sweep", 1)
    assert await actions.who_matters(Service(sweep=sweep), TRACED, None) is None
    assert "nothing at" in text_of(await actions.who_matters(Service(), TRACED, 1))


async def test_predictions_at_a_token_have_every_state() -> None:
    states, following = lab_views.predictions_at(sample.trace(), sample.ablation(), 1)
    assert list(states) == ["before", "after", "direct part only"]
    assert following == sample.TOKENS[2]
    states, following = lab_views.predictions_at(sample.trace(), None, len(sample.TOKENS) - 1)
    assert list(states) == ["before"]
    assert following is None


async def test_a_slider_for_an_activation_reaches_those_on_the_text() -> None:
    rows: list[dict[str, Any]] = [
        {"neuron": "29.7", "kind": "value", "value": 0.0},
        {"neuron": "L1H1", "kind": "zero", "value": None},
    ]
    found = schemas.ActivationStrip(neuron="29.7", activations=[-30.0, 12.0], reference_mean=None)
    service = answering(activations=schemas.ActivationList(strips=[found]))
    assert "max=10" in str(await actions.rows_shown(service, None, rows))
    assert service.asked == []
    assert "max=45" in str(await actions.rows_shown(service, TRACED, rows))
    assert service.asked == ["/texts/abc/activations"]
    assert "29.7" in str(await actions.rows_shown(Service(), TRACED, rows)), "a control is there whatever fails"


async def test_pinned_neurons_are_strips_of_their_own() -> None:
    asked: list[Call[Any]] = []

    def activations(call: Call[Any]) -> Any:
        asked.append(call)
        return sample.activations(body_of(call).neurons)

    kept = {"tiny": ["29.7", "<b>", 5, "29.7", "L1H1", "29.3"], "other": ["1.1"]}
    data, head = await actions.pinned(Service(activations=activations), TRACED, kept)
    assert body_of(asked[0]).neurons == ["29.7", "29.3"]
    assert [strip["title"] for strip in data["strips"]] == ["29.7", "29.3"]
    assert "Pinned neurons" in text_of(head)
    assert data["text"] == "abc"
    assert all(len(strip["shade"]) == len(sample.TOKENS) for strip in data["strips"])
    data, head = await actions.pinned(Service(), TRACED, kept)
    assert data is None
    assert "nothing at" in text_of(head)


@pytest.mark.parametrize("kept", [None, {}, {"tiny": []}, {"tiny": "29.7"}, ["29.7"], "pins"])
async def test_without_pins_there_is_no_panel_and_no_request(kept: Any) -> None:
    service = Service()
    assert await actions.pinned(service, TRACED, kept) == (None, None)
    assert await actions.pinned(service, None, {"tiny": ["29.7"]}) == (None, None)
    assert service.asked == []


async def test_so_many_pins_are_shown_at_most() -> None:
    names = lab_views.pinned_names({"tiny": [f"29.{place}" for place in range(200)]}, "tiny")
    assert len(names) == lab_views.MOST_PINS <= schemas.MAX_INTERVENTIONS
    assert names[-1] == "29.199", "those that were pinned last"


async def test_the_pins_may_be_missing_from_the_page() -> None:
    """Dash would never call back for an input that is nowhere on the page, unless it is said to be optional."""
    from fastapi import FastAPI

    app = create_dashboard(AsyncClient(service=FastAPI()), FastAPI())
    found = [
        entry
        for callback in app._callback_list
        for entry in callback["inputs"]
        if isinstance(entry, dict) and entry["id"] == pins.STORE
    ]
    assert found
    assert all(entry.get("allow_optional") for entry in found)


@pytest.mark.parametrize(
    ("kind", "value", "activations", "expected"),
    [
        ("scale", 2.0, [], (-2.0, 5.0)),
        ("scale", 40.0, [], (-2.0, 40.0)),
        ("scale", -7.5, [], (-8.0, 5.0)),
        ("value", 0.0, [], (-10.0, 10.0)),
        ("value", 0.0, [-30.0, 12.0], (-45.0, 45.0)),
        ("value", 200.0, [1.0], (-10.0, 200.0)),
    ],
)
async def test_a_slider_reaches_what_the_neuron_does_and_what_is_set(
    kind: str, value: float, activations: list[float], expected: tuple[float, float]
) -> None:
    low, high, step = lab_interventions.slider_range(kind, value, activations)
    assert (low, high) == expected
    assert 0 < step <= 0.5


async def test_only_interventions_with_a_number_have_a_slider() -> None:
    rows = [{"neuron": "29.7", "kind": kind, "value": value} for kind, value in (("mean", None), ("scale", 2.0))]
    plain, scaled = (str(lab_interventions.intervention_row(row)) for row in rows)
    assert "Slider(" not in plain
    assert "Slider(" in scaled
    assert ids.SLIDER in scaled
    assert "multiply by, 29.7" in scaled


async def test_every_example_says_what_to_watch() -> None:
    assert len(EXAMPLES) >= 8
    assert all(len(example.watch) > 40 and example.watch.endswith(".") for example in EXAMPLES.values())
    assert len({example.text for example in EXAMPLES.values()}) == len(EXAMPLES)


async def test_the_panel_that_generates_knows_the_services_limits() -> None:
    drawn = str(lab_generate.generate_panel())
    assert f"max={schemas.MAX_GENERATED_TOKENS}" in drawn
    assert "max=2147483647" in drawn


async def test_an_unreachable_service_is_told() -> None:
    class Unreachable:
        async def send(self, call: Call[Any]) -> Any:
            raise ApiError(schemas.Problem(title="No answer", status=503, detail=f"{call.path}: is the service up?"))

    service = Unreachable()
    assert "is the service up?" in text_of((await actions.analysed(service, "a", "tiny"))[1])
    assert "is the service up?" in text_of((await actions.intervened(service, TRACED, CHOSEN, None))[1])
    assert "is the service up?" in text_of(await actions.who_matters(service, TRACED, 1))
