"""Jobs on the page of their own and on the induction page: in words, in rows, and what an address shows."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dash import no_update

from app.dashboard import STATIC
from app.pages.induction import ids
from app.pages.induction import jobs as induction_jobs
from app.pages.induction import page as induction
from app.pages.induction import state as induction_state
from app.pages.induction.controls import controls
from app.pages.jobs import page as jobs
from app.pages.jobs import views as jobs_views
from backend import schemas
from tests.app import sample
from tests.app.pages import Service, models_with, text_of

pytestmark = pytest.mark.anyio
MOMENT = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)


def job(number: int = 1, status: str = "finished", **changes: Any) -> schemas.Job:
    """A job of the sample's run; what its request has that is not the default comes as `request`."""
    request = schemas.InductionJobRequest(**({"sequences": 20, "parts": ["curves", "clip"], "run": 1}
                                             | changes.pop("request", {})))  # fmt: skip
    fields: dict[str, Any] = {
        "id": number, "kind": "induction", "model": "tiny", "run": 1, "status": status, "progress": 0.0,
        "doing": "waiting", "message": None, "created_at": MOMENT,
        "finished_at": MOMENT if status == "finished" else None, "worker_is_alive": False,
        "request": request.model_dump(mode="json"),
    }  # fmt: skip
    return schemas.Job(**(fields | changes))


def service(*found: schemas.Job) -> Service:
    """The sample's model and run, with those jobs."""
    by_number = {str(one.id): (lambda _, one=one: one) for one in found}
    return Service(**models_with(sample.run()), jobs=lambda _: schemas.JobList(jobs=list(found)), **by_number)


# ---- words


def test_a_job_is_told_in_words() -> None:
    assert jobs_views.what(job()) == "Corpus text, doubled (100 tokens)"
    assert jobs_views.size(job()) == "20 sequences, curves, clip"
    everything = {"parts": list(induction_state.PARTS), "sequences": 1}
    assert jobs_views.size(job(request=everything)) == "1 sequence, all parts"
    assert jobs_views.size(job(request={"parts": ["mean_output"], "sequences": 2000})) == "2,000 sequences, mean output"
    assert jobs_views.when(MOMENT) == "4 Mar 2026, 05:06 UTC"
    assert jobs_views.status(job(status="running", progress=0.374)) == "running, 37 %"
    assert jobs_views.status(job(status="cancelled")) == "cancelled"


def test_a_request_of_another_time_is_shown_all_the_same() -> None:
    old = job().model_copy(update={"request": {"sequences": "many"}})
    assert "another version" in jobs_views.what(old)
    assert "another version" in text_of(jobs_views.table([old]))
    assert induction_state.read_job(old) == induction_state.InductionSettings(model="tiny", run="1")


def test_an_open_job_says_what_it_waits_for() -> None:
    queued, busy = job(2, "queued"), job(1, "running", worker_is_alive=True)
    assert "start calibroscope worker in a terminal" in text_of(jobs_views.hint(queued, [queued])).replace("  ", " ")
    assert "at job 1" in text_of(jobs_views.hint(queued, [queued, busy]))
    assert "not been heard of" in text_of(jobs_views.hint(job(1, "running"), []))
    assert "calibroscope worker" in text_of(jobs_views.hint(queued, [queued, job(1, "running")])), "nobody is at work"
    assert jobs_views.hint(busy, [busy]) == jobs_views.hint(job(), []) == []


def test_only_open_jobs_can_be_cancelled_and_have_a_bar() -> None:
    for status in ("queued", "running"):
        assert "data-cancel-job='7'" in str(jobs_views.canceller(job(7, status)))
        assert "value=25.0" in str(jobs_views.bar(job(7, status, progress=0.25)))
    for status in ("finished", "failed", "cancelled"):
        assert jobs_views.canceller(job(7, status)) == jobs_views.bar(job(7, status)) == []


def test_the_table_has_a_row_a_job_with_its_message_and_a_link() -> None:
    failed = job(2, "failed", message="Take <b>less</b> text.")
    found = jobs_views.table([job(3, "running", progress=0.5, doing="scoring heads"), failed, job(1)])
    words = text_of(found)
    assert words.index("running, 50 %") < words.index("scoring heads") < words.index("Take <b>less</b> text.")
    assert [f"/induction?job={number}" in str(found) for number in (3, 2, 1)] == [True] * 3
    assert words.count("Cancel job") == 1


def test_without_a_job_the_page_says_how_to_get_one() -> None:
    assert "calibroscope worker" in text_of(jobs_views.table([]))
    assert "No job of this model" in text_of(jobs_views.result_list([], None))


def test_the_list_is_short_marks_the_one_shown_and_says_how_many_more_there_are() -> None:
    many = [job(number) for number in range(10, 0, -1)]
    found = jobs_views.result_list(many, 9)
    assert str(found).count("href='/induction?job=") == 6
    assert str(found).count("aria-current='true'") == 1
    assert "4 more" in text_of(found)
    assert "more" not in text_of(jobs_views.result_list(many[:6], None))


def test_results_that_nobody_asked_for_say_where_they_come_from() -> None:
    by_itself = text_of(jobs_views.notice(job(), [], by_itself=True))
    assert "in the atlas already: job 1 measured them for run 1" in by_itself
    asked = text_of(jobs_views.notice(job(4, "failed", message="No text."), [], by_itself=False))
    assert "Job 4 (failed)" in asked
    assert "No text." in asked


# ---- the page of all jobs


async def test_the_page_asks_often_only_while_something_may_change() -> None:
    table, seen, pause = await jobs.shown(service(job(2, "queued"), job()), None)
    assert "queued" in text_of(table)
    assert pause == jobs.WHILE_OPEN_MS
    again, kept, _ = await jobs.shown(service(job(2, "queued"), job()), seen)
    assert again is kept is no_update, "what is seen already is not drawn again"
    moved, _, _ = await jobs.shown(service(job(2, "running", progress=0.1), job()), seen)
    assert "running, 10 %" in text_of(moved)
    assert (await jobs.shown(service(job()), None))[2] == jobs.AT_REST_MS


async def test_the_page_tells_when_the_service_refuses_and_asks_again() -> None:
    refused, seen, pause = await jobs.shown(Service(), "1 finished")
    assert "nothing at /jobs" in text_of(refused)
    assert seen is None, "drawn anew when it answers"
    assert pause > 0
    assert "Jobs" in text_of(jobs.layout())


# ---- what an address of the induction page shows


async def test_a_jobs_address_fills_the_controls_from_its_request() -> None:
    request = {
        "source": "text", "text": "Lamp. Lamp.", "sequences": 300, "span": 7, "seed": 3, "heads": ["L0H1"],
        "neurons": ["29.7"], "top_heads": 2, "parts": ["heads", "curves"],
    }  # fmt: skip
    found = await induction_jobs.opened(service(job(5, request=request)), job="5", seed="99")
    asked = found.asked
    assert (asked.model, asked.run, asked.source, asked.text) == ("tiny", "1", "text", "Lamp. Lamp.")
    assert (asked.sequences, asked.span, asked.seed, asked.top_heads) == (300, 7, 3, 2)
    assert (asked.neurons, asked.heads, asked.parts) == (["29.7"], ["L0H1"], ["curves", "heads"])
    assert found.shown == {"job": 5, "by_itself": False}
    drawn = str(controls(asked))
    assert "value='Lamp. Lamp.'" in drawn
    assert "persistence=False" in drawn, "a person's own text is not driven out"
    assert f"max={schemas.MAX_JOB_SEQUENCES}" in drawn
    assert "'job': 5" in str(induction.layout_of(found))


async def test_a_bare_address_shows_the_runs_fullest_results() -> None:
    full = {"parts": list(induction_state.PARTS)}
    own = service(job(6), job(5, "running", request=full), job(4, request=full), job(3, request=full),
                  job(2, request=full, run=2), job(1, request=full, model="other"))  # fmt: skip
    found = await induction_jobs.opened(own)
    assert found.shown == {"job": 4, "by_itself": True}
    assert (await induction_jobs.opened(own, model="tiny", run="2")).shown == {"job": 2, "by_itself": True}
    assert (await induction_jobs.opened(own, model="tiny", run="9")).shown is None


@pytest.mark.parametrize("address", [{"seed": "1"}, {"neurons": "29.7"}, {"go": "1"}, {"job": "x", "source": "random"}])
async def test_an_address_that_asks_for_something_shows_no_job(address: dict[str, str]) -> None:
    found = await induction_jobs.opened(service(job()), **address)
    assert found == induction_jobs.Opened(induction_state.read(**address))


async def test_a_job_that_is_not_there_is_told() -> None:
    found = await induction_jobs.opened(service(job()), job="99")
    assert found.problem == "nothing at /jobs/99"
    assert "nothing at /jobs/99" in text_of(induction.layout_of(found))
    assert found.shown is None
    nobody = Service(models=lambda _: schemas.ModelList(models=[]))
    assert (await induction_jobs.opened(nobody)).shown is None


# ---- the list and the words above the results


async def test_the_list_has_the_models_jobs_and_rests_when_all_have_ended() -> None:
    found, told, at_rest = await induction_jobs.listed(service(job(2), job(1, model="other")), "tiny", None)
    assert "?job=2" in str(found)
    assert "?job=1" not in str(found)
    assert (told, at_rest) == (None, True)
    queued = service(job(3, "queued"), job(2))
    found, told, at_rest = await induction_jobs.listed(queued, "tiny", {"job": 3, "by_itself": False})
    assert "calibroscope worker" in text_of(told)
    assert not at_rest


async def test_a_shown_job_that_the_list_does_not_reach_is_asked_for() -> None:
    old = service(job(1))
    old.answers["jobs"] = lambda _: schemas.JobList(jobs=[])
    _, told, _ = await induction_jobs.listed(old, "tiny", {"job": 1, "by_itself": False})
    assert "Job 1 (finished)" in text_of(told)
    _, told, _ = await induction_jobs.listed(old, "tiny", {"job": 9, "by_itself": False})
    assert "nothing at /jobs/9" in text_of(told)
    found, told, at_rest = await induction_jobs.listed(Service(), "tiny", {"job": 1, "by_itself": False})
    assert "nothing at /jobs" in text_of(found)
    assert (told, at_rest) == (None, False)


def test_the_browsers_scripts_know_the_ids() -> None:
    names = ("base_stream.js", "page_jobs.js", "page_induction_streams.js")
    scripts = {name: (STATIC / name).read_text() for name in names}
    assert f'"{jobs_views.KEY}"' in scripts["base_stream.js"]
    assert f'"{jobs_views.KEY_BOX}"' in scripts["base_stream.js"]
    assert f'"{jobs_views.FAILED}"' in scripts["page_jobs.js"]
    for name in ("page_jobs.js", "page_induction_streams.js"):
        assert f'"{jobs_views.CHANGED}"' in scripts[name]
    for name in (ids.QUEUE, ids.SHOWN):
        assert f'"{name.removeprefix("induction-")}"' in scripts["page_induction_streams.js"]
