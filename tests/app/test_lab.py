"""The Text lab's callbacks: links, live interventions, pins, examples, and what they say when something fails."""

import json
from typing import Any

import pytest
from dash import no_update

from app.components import pins
from app.dashboard import create_dashboard
from app.pages.lab import generate as lab_generate
from app.pages.lab import ids
from app.pages.lab import interventions as lab_interventions
from app.pages.lab import page as lab
from app.pages.lab import views as lab_views
from app.pages.lab.examples import EXAMPLES
from backend import schemas
from backend.client import ApiError, AsyncClient, Call
from backend.schemas import MAX_TEXT_CHARS
from tests.app import sample
from tests.app.pages import Service, text_of

pytestmark = pytest.mark.anyio

HELD = {"text": "The lamp is lit.", "trace": sample.trace().model_dump()}
CHOSEN = [{"neuron": "29.7", "kind": "mean", "value": None}]


def answering(**answers: Any) -> Service:
    return Service(**{name: lambda _, found=found: found for name, found in answers.items()})


async def test_analysing_keeps_the_text_and_draws_it_or_says_why_not() -> None:
    service = answering(texts=sample.trace(truncated=True))
    held, message, token, drawn = await lab.analysed(service, "The lamp is lit.", "tiny")
    assert held["text"] == "The lamp is lit."
    assert f"first {len(sample.TOKENS)} tokens" in message
    assert token is None
    assert len(drawn["strips"]) == 3
    for text, model, words in (("", "tiny", "Write or pick"), ("a", None, "no model"), ("a", "tiny", "nothing at")):
        held, message, _, drawn = await lab.analysed(Service(), text, model)
        assert words in text_of(message)
        assert held is no_update
        assert drawn is no_update, "what was shown stays"


async def test_a_link_brings_text_and_interventions_back() -> None:
    service = answering(texts=sample.trace())
    asked = {"model": "tiny", "text": "The lamp is lit.", "do": "29.7:scale:2,29.1:explode", "cut": False}
    held, message, token, drawn, chosen, text, model = await lab.restored(service, asked, None)
    assert (held["text"], text, model) == ("The lamp is lit.", "The lamp is lit.", "tiny")
    assert chosen == [{"neuron": "29.7", "kind": "scale", "value": 2.0}]
    assert (message, token) == (None, None)
    assert len(drawn["strips"]) == 3
    cut = await lab.restored(service, asked | {"cut": True}, None)
    assert "too long for a link" in text_of(cut[1])


async def test_undoing_an_intervention_does_not_trace_the_same_text_again() -> None:
    service = answering(texts=sample.trace())
    asked = {"model": "tiny", "text": "The lamp is lit.", "do": ""}
    held, message, _, drawn, chosen, text, _ = await lab.restored(service, asked, HELD)
    assert service.asked == []
    assert (held, drawn, message) == (no_update, no_update, None)
    assert (chosen, text) == ([], "The lamp is lit.")
    await lab.restored(service, asked | {"model": "other"}, HELD)
    assert service.asked == ["/models/other/texts"], "another model reads it anew"


@pytest.mark.parametrize("asked", [None, "text", 5, []])
async def test_a_broken_state_changes_nothing(asked: Any) -> None:
    assert await lab.restored(Service(), asked, HELD) == (no_update,) * 7


async def test_a_link_to_a_text_that_is_refused_still_fills_the_box() -> None:
    long = "a" * (MAX_TEXT_CHARS + 1)
    held, message, _, _, _, text, _ = await lab.restored(Service(), {"model": "tiny", "text": long}, None)
    assert held is no_update
    assert "at most 20,000" in text_of(message)
    assert text == long


async def test_an_intervention_changes_everything_in_one_answer() -> None:
    service = answering(ablate=sample.ablation())
    ablation, said, drawn, detail = await lab.intervened(service, HELD, CHOSEN, 1)
    assert ablation["ln_mediated"] == 0.75
    assert "What the intervention does" in text_of(said)
    assert len(drawn["strips"]) == 8
    words = text_of(detail)
    assert "Norm of the residual stream" in words
    assert "240.0" in words
    assert "(+9.600)" in words
    assert service.asked == ["/texts/abc/ablate"]
    json.dumps([ablation, drawn])
    ablation, said, drawn, detail = await lab.intervened(Service(), HELD, CHOSEN, None)
    assert ablation is None
    assert "nothing at" in text_of(said)
    assert len(drawn["strips"]) == 3, "the text alone"
    assert detail is no_update
    ablation, said, drawn, _ = await lab.intervened(Service(), HELD, [], None)
    assert (ablation, said, len(drawn["strips"])) == (None, None, 3)
    assert await lab.intervened(Service(), None, CHOSEN, None) == (None, None, no_update, no_update)


async def test_the_distance_from_token_frequencies_has_strips_a_total_and_a_fact() -> None:
    trace = sample.trace(values=sample.known_kl(sample.trace().values), frequencies="counted words (run 1)")
    held = {"text": "The lamp is lit.", "trace": trace.model_dump()}
    service = answering(ablate=sample.frequency_ablation())
    _, said, drawn, detail = await lab.intervened(service, held, CHOSEN, 1)
    strips = {strip["title"]: strip for strip in drawn["strips"]}
    assert strips["KL from token frequencies"]["shown"][0] == "4.000 nats"
    change = strips["Change of KL from token frequencies"]
    assert (change["kind"], change["shown"][1]) == ("change", "−0.500 nats")
    direct = strips["Change of KL from token frequencies, direct part (norm frozen)"]
    assert direct["shown"][1] == "+0.250 nats"
    assert direct["legend"] == change["legend"] == ["−0.500", "+0.500 nats"], "one scale, 0 in its middle"
    for word in ("Mean KL from token frequencies", "4.500 nats", "(−0.500)", "(+0.250)"):
        assert word in text_of(said)
    assert "KL from token frequencies" in text_of(detail)
    assert "counted words (run 1)" in lab_views.frequency_note(trace)


async def test_without_token_frequencies_the_lab_says_why_there_is_no_strip() -> None:
    assert "no run of this model has kept" in lab_views.frequency_note(sample.trace())
    _, said, drawn, detail = await lab.intervened(answering(ablate=sample.ablation()), HELD, CHOSEN, 1)
    assert not [strip for strip in drawn["strips"] if "KL" in strip["title"]]
    assert "KL" not in text_of(said) + text_of(detail)


async def test_a_tokens_panel_has_no_after_without_an_intervention() -> None:
    words = text_of(lab.token_panel(sample.trace(), None, 1))
    assert "Scale of the final norm" in words
    assert "after" not in words
    assert "after" in text_of(lab.token_panel(sample.trace(), sample.ablation(), 1))
    assert "after" not in text_of(lab.token_panel(sample.trace(), sample.ablation("other"), 1))
    assert lab.token_panel(sample.trace(), None, 999) is None
    assert lab.token_panel(sample.trace(), None, None) is None


async def test_pinned_neurons_are_strips_of_their_own() -> None:
    asked: list[Call[Any]] = []

    def activations(call: Call[Any]) -> Any:
        asked.append(call)
        return sample.activations(call.body.neurons)

    kept = {"tiny": ["29.7", "<b>", 5, "29.7", "L1H1", "29.3"], "other": ["1.1"]}
    data, head = await lab.pinned(Service(activations=activations), HELD, kept)
    assert asked[0].body.neurons == ["29.7", "29.3"]
    assert [strip["title"] for strip in data["strips"]] == ["29.7", "29.3"]
    assert "Pinned neurons" in text_of(head)
    assert all(len(strip["shade"]) == len(sample.TOKENS) for strip in data["strips"])
    data, head = await lab.pinned(Service(), HELD, kept)
    assert data is None
    assert "nothing at" in text_of(head)


@pytest.mark.parametrize("kept", [None, {}, {"tiny": []}, {"tiny": "29.7"}, ["29.7"], "pins"])
async def test_without_pins_there_is_no_panel_and_no_request(kept: Any) -> None:
    service = Service()
    assert await lab.pinned(service, HELD, kept) == (None, None)
    assert await lab.pinned(service, None, {"tiny": ["29.7"]}) == (None, None)
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
    async def send(_: Call[Any]) -> Any:
        raise ApiError(schemas.Problem(title="No answer", status=503, detail="Is the service running?"))

    service = Service()
    service.send = send  # type: ignore[method-assign]
    assert "Is the service running?" in text_of((await lab.analysed(service, "a", "tiny"))[1])
    assert "Is the service running?" in text_of((await lab.intervened(service, HELD, CHOSEN, None))[1])
