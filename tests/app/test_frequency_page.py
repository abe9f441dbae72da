"""The token-frequency page: its figure, its tables, and what it says where there is nothing to show."""

from typing import Any

import pytest
from dash import no_update

from app.components.run_banner import run_banner
from app.pages.frequency import page as frequency
from backend import schemas
from backend.client import ApiError
from backend.core.metrics.frequency import COUNT_SMOOTHING, MEAN_SMOOTHING
from backend.glossary import TERMS
from tests.app import sample
from tests.app.pages import Service, text_of

pytestmark = pytest.mark.anyio


def service(*runs: schemas.RunSummary, **answers: Any) -> Service:
    found = list(runs) or [sample.run()]
    known = {
        "models": schemas.ModelList(models=[sample.model()]), "runs": schemas.RunList(runs=found),
        "positions": sample.positions(), "frequencies": sample.frequencies(),
    } | answers  # fmt: skip
    return Service(**{name: lambda _, found=answer: found for name, answer in known.items() if answer is not None})


async def test_the_page_shows_figure_3a_its_correlation_and_both_ends_of_the_direction() -> None:
    models, model, runs, run, facts, body, seen, is_final = await frequency.shown(service(), None, None, None)
    assert (models, model, run, is_final) == ([{"value": "tiny", "label": "Tiny"}], "tiny", "1", True)
    assert [option["value"] for option in runs] == ["1"]
    words = text_of(body)
    for word in ("the closer it is to how often tokens occur", "r = −1.00", "Figure 3a, at the 10 sampled tokens",
                 "Most frequent", "2 tokens share the lowest probability", "<script>alert(1)</script>"):  # fmt: skip
        assert word in words
    for word in ("Token counts in words.npy (1 is added to each count).", "a" * 64, "2.100 nats", "10 tokens"):
        assert word in text_of(facts)
    again = await frequency.shown(service(), "tiny", "1", seen)
    assert again[4:7] == (no_update,) * 3, "nothing is drawn anew while nothing has changed"


async def test_another_run_is_shown_when_it_is_asked_for_and_an_unknown_one_is_not() -> None:
    two = service(sample.run(id=2), sample.run(id=1))
    assert (await frequency.shown(two, "tiny", "2", None))[3] == "2"
    gone = await frequency.shown(two, "gone", "77", None)
    assert gone[3] == "1", "the model's first"
    assert "asks for run 77" in text_of(gone[5])


@pytest.mark.parametrize(("value", "words"), [(0.4, "not closer"), (-0.4, "the closer"), (None, "no correlation")])
async def test_the_correlation_is_told_as_it_is(value: float | None, words: str) -> None:
    assert words in frequency.relation(sample.positions(correlation=value, rank_correlation=value))


async def test_an_older_run_says_what_is_missing_and_what_to_do() -> None:
    missing = dict.fromkeys(("source", "counts_sha256", "vocabulary", "entropy", "most", "least", "equally_rare"))
    older = service(
        sample.run(seed=3), positions=sample.positions(kl=None, correlation=None, rank_correlation=None),
        frequencies=sample.frequencies(missing="Made before they were kept.", **missing),
    )  # fmt: skip
    _, _, _, _, facts, body, _, _ = await frequency.shown(older, None, None, None)
    assert facts is None
    for word in ("no frequency metrics", "--model tiny --seed 4", "Made before they were kept."):
        assert word in text_of(body)


async def test_parts_that_are_refused_are_said_one_by_one() -> None:
    _, _, _, _, facts, body, _, _ = await frequency.shown(service(positions=None), None, None, None)
    assert "nothing at /runs/1/positions" in text_of(body)
    assert "Most frequent" in text_of(body)
    assert "words.npy" in text_of(facts)
    _, _, _, _, facts, body, _, _ = await frequency.shown(service(frequencies=None), None, None, None)
    assert "nothing at /runs/1/frequencies" in text_of(facts)
    assert "Figure 3a" in text_of(body)


async def test_an_empty_atlas_and_a_growing_run_wait() -> None:
    nothing = await frequency.shown(service(models=schemas.ModelList(models=[])), None, None, None)
    assert "No neurons yet" in text_of(nothing[5])
    assert nothing[7] is False
    no_runs = service(runs=schemas.RunList(runs=[]))
    assert "No neurons yet" in text_of((await frequency.shown(no_runs, None, None, None))[5])
    growing = service(sample.run(status="running", tokens_counted=20))
    seen, is_final = (await frequency.shown(growing, None, None, None))[6:]
    assert is_final is False
    grown = service(sample.run(status="running", tokens_counted=40))
    assert (await frequency.shown(grown, None, None, seen))[5] is not no_update


async def test_a_service_that_does_not_answer_is_told() -> None:
    with pytest.raises(ApiError):
        await frequency.shown(Service(), None, None, None)


async def test_the_runs_facts_say_where_frequencies_come_from() -> None:
    banner = run_banner(sample.run(config={"frequency_source": "the model's mean prediction"}))
    assert "Token frequencies : the model's mean prediction" in " ".join(text_of(banner).split())
    assert "/frequency?model=tiny&run=1" in str(banner)
    assert "Token frequencies" not in text_of(run_banner(sample.run()))


async def test_the_glossary_states_the_smoothing_that_is_done() -> None:
    assert (COUNT_SMOOTHING, MEAN_SMOOTHING) == (1.0, 1e-9), "else the sentence is wrong"
    assert "1 is added to each count" in TERMS["token frequencies"]
    assert "10⁻⁹ is added to each probability" in TERMS["token frequencies"]


@pytest.mark.parametrize(("run", "kept"), [("3", "3"), ("three", None), (None, None)])
async def test_the_address_chooses_the_run(run: str | None, kept: str | None) -> None:
    frame = str(frequency.layout(model="tiny", run=run))
    assert ("value='3'" in frame) == (kept is not None)
