"""What the pages do with the service's answers, and with its errors."""

from typing import Any

import pytest

from app.components.run_banner import run_banner
from app.pages.atlas import page as atlas
from app.pages.lab import interventions as lab_interventions
from app.pages.lab import views as lab_views
from app.pages.neuron import page as neuron
from backend import schemas
from tests.app import sample
from tests.app.pages import Service, models_with, text_of

pytestmark = pytest.mark.anyio


async def test_an_empty_atlas_says_what_to_run() -> None:
    service = Service(models=lambda _: schemas.ModelList(models=[]))
    *_, state, hidden = await atlas._refreshed(service, None, None, None, model_changed=False)
    assert "calibroscope precompute" in text_of(state)
    assert hidden


async def test_an_analysis_that_failed_is_told_of_instead() -> None:
    health = schemas.Health(status="ok", version="1", models_loaded=[], queue=0, notice="The analysis ended.")
    service = Service(models=lambda _: schemas.ModelList(models=[]), health=lambda _: health)
    *_, state, _ = await atlas._refreshed(service, None, None, None, model_changed=False)
    assert "The analysis ended." in text_of(state)


async def test_a_finished_run_stops_the_polling_and_an_unchanged_one_is_not_drawn_again() -> None:
    service = Service(**models_with(sample.run()))
    first = await atlas._refreshed(service, None, None, None, model_changed=False)
    model, run, revision, stopped = (first[place] for place in (1, 3, 5, 6))
    assert (model, run, revision, stopped) == ("tiny", "1", "1:4", True)
    again = await atlas._refreshed(service, "tiny", "1", "1:4", model_changed=False)
    assert again[5] is not revision
    assert not isinstance(again[5], str)


async def test_a_growing_runs_columns_are_fetched_when_they_have_grown_enough_to_see() -> None:
    async def revision(**changes: Any) -> Any:
        growing = sample.run(status="running", stage="effects", **changes)
        return (await atlas._refreshed(Service(**models_with(growing)), None, None, None, model_changed=False))[5]

    before = await revision(progress=0.4011, tokens_counted=20)
    assert await revision(progress=0.4012, tokens_counted=21) == before
    assert await revision(progress=0.42, tokens_counted=22) != before
    assert await revision(progress=0.4011, tokens_counted=20, tokens_sampled=7) != before


async def test_a_running_run_shows_its_progress() -> None:
    growing = sample.run(status="running", stage="effects", progress=0.4, tokens_counted=20)
    *_, banner, _, stopped, state, hidden = await atlas._refreshed(
        Service(**models_with(growing)), None, None, None, model_changed=False
    )
    assert "20 of 50 tokens" in text_of(banner)
    assert not stopped
    assert state is None
    assert not hidden


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"status": "failed", "message": "the disk is full"}, "the disk is full"), ({"status": "interrupted"}, "resume")],
)
async def test_a_run_that_stopped_says_so(changes: dict[str, object], words: str) -> None:
    assert words in text_of(run_banner(sample.run(**changes)))


async def test_a_neurons_page_shows_what_is_there_and_says_what_is_not() -> None:
    body = await neuron._body(Service(effects=lambda _: sample.effects()), sample.detail())
    words = text_of(body)
    assert "Neuron 29.7" in words
    assert "It has its reasons." in words
    assert "30 sampled tokens" in words
    assert words.count("nothing at") == 5, "what is missing is said, each in its place"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("29.830", [("29.830", "mean", None)]),
        ("29.830:clip,29.1022:scale:2.5", [("29.830", "clip", None), ("29.1022", "scale", 2.5)]),
        ("29.1:value", [("29.1", "value", 0.0)]),
        ("29.1:scale:nan", [("29.1", "scale", 2.0)]),
        ("29.1,29.1:zero,x.y,29.2:explode,<b>", [("29.1", "mean", None)]),
        ("L5H1:zero,L5H2:clip,l3h0:scale:0", [("L5H1", "zero", None), ("l3h0", "scale", 0.0)]),
        ("", []),
    ],
)
async def test_interventions_travel_in_the_address(written: str, read: list[tuple[str, str, float | None]]) -> None:
    rows = lab_interventions.read_interventions(written)
    assert [(row["neuron"], row["kind"], row["value"]) for row in rows] == read


async def test_interventions_are_added_once_and_edited() -> None:
    chosen, problem = lab_interventions.added([], " 29.7 ")
    assert problem is None
    assert chosen == [{"neuron": "29.7", "kind": "mean", "value": None}]
    assert "already" in (lab_interventions.added(chosen, "29.7")[1] or "")
    assert "layer.index" in (lab_interventions.added(chosen, "nonsense")[1] or "")
    last, tiny = sample.COUNT - 1, sample.model()
    for name, words in (
        ("30.0", "layers are 0 to 29"),
        (f"3.{last + 1}", f"0 to {last}"),
        ("L30H1", "0 to 29"),
    ):
        assert words in (lab_interventions.added(chosen, name, tiny)[1] or "")
    for name in (f"29.{last}", "L29H999"):
        assert lab_interventions.added(chosen, name, tiny)[1] is None
    place = [{"type": "lab-kind", "neuron": "29.7"}]
    scaled = lab_interventions.edited(chosen, place, ["scale"], [None])
    assert scaled == [{"neuron": "29.7", "kind": "scale", "value": 2.0}]
    assert lab_interventions.edited(scaled, place, ["scale"], [3])[0]["value"] == 3
    assert lab_interventions.edited(scaled, place, ["scale"], [1e9])[0]["value"] == 1e4
    assert lab_interventions.edited(scaled, place, ["zero"], [3])[0]["value"] is None


async def test_an_empty_text_is_refused_before_it_is_sent() -> None:
    assert "Write or pick" in (lab_views.refusal("  \n", "tiny") or "")
    assert "Your text stays here" in (lab_views.refusal("hello", None) or "")
    assert "at most 20,000" in (lab_views.refusal("a" * 30_000, "tiny") or "")
    assert lab_views.refusal("hello", "tiny") is None
