"""A run's card on the pages: its line, what is behind it, and what a run made before it says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.components import run_card
from app.notation.numbers import bound
from backend.schemas import CardPrecision
from tests.app import sample


def _texts(component: Any) -> list[str]:
    if isinstance(component, str):
        return [component]
    children = getattr(component, "children", component if isinstance(component, list | tuple) else None)
    if children is None:
        return []
    return [
        text for child in (children if isinstance(children, list | tuple) else [children]) for text in _texts(child)
    ]


def test_the_line_says_what_was_measured() -> None:
    assert run_card.line(sample.run()) == (
        "Tiny-Instruct (Q4_1) → float32 · layer 29 · words, 4 × 16 tokens, 50 of 64 counted · no BOS · k = 2 · "
        "exact within 7e−6 nats in 256 checks · run 1"
    )


def test_the_line_of_a_growing_run_says_how_far_it_is() -> None:
    assert "10 of 50 counted so far" in run_card.line(sample.run(status="running", tokens_counted=10))


def test_a_hub_models_line_has_its_commit_and_no_arrow() -> None:
    checkpoint = sample.card().checkpoint.model_copy(
        update={"name": "someone/tiny", "commit": "0123456789abcdef", "quantisation": None}
    )
    assert run_card.line(sample.run(card=sample.card(checkpoint=checkpoint))).startswith("someone/tiny @ 01234567 · ")


@pytest.mark.parametrize(
    ("total", "frequency_held", "mode", "words"),
    [
        (6.2e-6, 9.1e-6, "exact", "exact within 1e−5 nats in 256 checks"),
        (6.2e-6, None, "exact", "exact within 7e−6 nats in 256 checks"),
        (None, None, "exact", "exact to float32"),
        (6.2e-6, None, "survey", "survey within 8e−4 nats"),
    ],
)
def test_how_far_an_effect_may_be_off(total: float | None, frequency_held: float | None, mode: str, words: str) -> None:
    plain = sample.card().computation
    assert plain.precision is not None
    precision = plain.precision.model_copy(update={"total": total, "frequency_held": frequency_held})
    card = sample.card(computation=plain.model_copy(update={"precision": precision}))
    tolerance = 8e-4 if mode == "survey" else 3e-6
    assert run_card.accuracy(sample.run(card=card, mode=mode, tolerance_nats=tolerance)) == words


@pytest.mark.parametrize(
    ("value", "words"), [(6.2e-6, "7e−6 nats"), (3e-6, "3e−6 nats"), (9.5e-6, "1e−5 nats"), (0.0, "0 nats")]
)
def test_a_bound_is_rounded_up(value: float, words: str) -> None:
    assert bound(value, "nats") == words


def test_the_card_holds_all_that_is_known() -> None:
    run = sample.run(finished_at=datetime.now(UTC), versions={"torch": "2.13"})
    told = "\n".join(f"{name}: {value}" for part in run_card.parts(run) for name, value in part.facts)
    assert "Tiny-Instruct, Q4_1 (4-bit) dequantised to float32" in told
    assert "46: effects are of these" in told
    assert "mean loss: 3.25" in told, "what a helper of its own tells"
    assert "prepended: no" in told
    assert "(a jackknife)" in told
    assert "torch 2.13" in told
    card = run.card
    assert card is not None
    named = [part.title for part in run_card.parts(run)]
    assert "Between documents" not in named, "not kept for this run"
    for section in ("checkpoint", "corpus"):
        for name, value in getattr(card, section).model_dump().items():
            if value is not None and name not in ("origin", "quantisation", "name"):
                assert str(value) in told, f"{section}.{name}"


def test_a_run_made_before_cards_says_so_and_what_is_known() -> None:
    run = sample.run(card=None, error_groups=None)
    assert run_card.line(run).endswith("k = 2 · run 1 · made before its card was kept")
    shown = _texts(run_card.run_card(run))
    assert run_card.NOT_KEPT in shown
    assert "0" * 64 in shown, "the weights' hash"
    assert any("too small" in text for text in shown), "its standard errors"


def test_warnings_stand_before_the_line_and_texts_of_others_stay_texts() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    card = sample.card(warnings=["The model is not itself.", hostile])
    component = run_card.run_card(sample.run(card=card, corpus=hostile))
    shown = _texts(component)
    assert shown[:2] == ["The model is not itself.", hostile]
    assert "open" not in component.children[2].to_plotly_json()["props"], "closed until somebody opens it"


def test_a_card_of_an_older_run_is_read() -> None:
    """What a run is off by with token frequencies held was called `held` in cards written before."""
    precision = {"neurons": 8, "tokens": 6, "total": 1e-6, "frozen": 2e-6, "held": 3e-6}
    assert CardPrecision.model_validate(precision).frequency_held == 3e-6
    assert "held" not in CardPrecision.model_validate(precision).model_dump()
