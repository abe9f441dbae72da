"""The page of all runs: what it lists, where its links lead, and when it stays as it is."""

import pytest
from dash import no_update

from app.pages.runs import page as runs
from backend import schemas
from tests.app import sample
from tests.app.pages import Service, models_with, text_of

pytestmark = pytest.mark.anyio


async def test_every_run_of_every_model_is_listed_with_its_state_and_a_link() -> None:
    growing = sample.run(id=2, status="running", stage="effects", progress=0.41, finished_at=None)
    body, _ = await runs.shown(Service(**models_with(sample.run(), growing)), None)
    words = text_of(body)
    assert "Tiny" in words
    assert "finished" in words
    assert "running: effects, 41 %" in words
    assert "/?model=" in str(body)
    assert "run=2" in str(body)


async def test_what_has_not_changed_is_not_drawn_again_and_what_has_grown_is() -> None:
    async def grown(counted: int, seen: str | None) -> tuple[object, str]:
        growing = sample.run(status="running", stage="effects", tokens_counted=counted)
        return await runs.shown(Service(**models_with(growing)), seen)

    _, state = await grown(20, None)
    assert (await grown(20, state))[0] is no_update
    assert (await grown(21, state))[0] is not no_update


async def test_an_empty_atlas_says_what_to_run_and_a_refusal_what_failed() -> None:
    body, state = await runs.shown(Service(models=lambda _: schemas.ModelList(models=[])), None)
    assert "calibroscope precompute" in text_of(body)
    assert state == ""
    body, state = await runs.shown(Service(), None)
    assert "nothing at /models" in text_of(body)
    assert state is None
