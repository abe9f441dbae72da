"""Jobs in the atlas: queued once, taken once, kept part by part."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from backend.atlas import jobs
from backend.atlas.database import NotInAtlas
from backend.atlas.jobs import TooManyJobs
from backend.atlas.query import NeuronQuery
from backend.atlas.store import Atlas
from tests.atlas.plans import PLAN


@pytest.fixture
def atlas(tmp_path: Path) -> Iterator[Atlas]:
    with Atlas.open(tmp_path / "a.db") as opened:
        opened.runs.begin(PLAN)
        yield opened


def add(atlas: Atlas, seed: int = 0) -> int:
    return atlas.jobs.add("induction", "tiny", 1, {"seed": seed}).id


def test_jobs_are_taken_in_order_and_once(atlas: Atlas) -> None:
    first, second = add(atlas, 0), add(atlas, 1)
    taken = [atlas.jobs.take(), atlas.jobs.take(), atlas.jobs.take()]
    assert [job and job.id for job in taken] == [first, second, None]
    assert [job.status for job in atlas.jobs.newest(10)] == ["running", "running"]
    assert [job.id for job in atlas.jobs.newest(1)] == [second], "the newest first"


def test_the_same_request_waits_once_and_may_be_asked_again_when_it_has_ended(atlas: Atlas) -> None:
    first = add(atlas)
    assert add(atlas) == first
    assert add(atlas, 1) != first
    atlas.jobs.take()
    assert add(atlas) == first, "it runs"
    atlas.jobs.end(first, "finished")
    assert add(atlas) != first


def test_a_silent_workers_job_is_taken_up_with_what_it_has(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    job = add(atlas)
    atlas.jobs.take()
    atlas.jobs.keep_part(job, "start", ["{}"])
    assert atlas.jobs.take() is None, "its worker is alive"
    monkeypatch.setattr(jobs, "_SILENCE", timedelta(0))
    again = atlas.jobs.take()
    assert again is not None
    assert again.parts_done == ["start"]


def test_a_part_is_kept_once_and_in_order(atlas: Atlas) -> None:
    job = add(atlas)
    atlas.jobs.keep_part(job, "start", ['{"a": 1}'])
    atlas.jobs.keep_part(job, "heads", ['{"b": 2}', '{"c": 3}'])
    atlas.jobs.keep_part(job, "heads", ['{"d": 4}'])
    assert atlas.jobs.results(job) == ['{"a": 1}', '{"b": 2}', '{"c": 3}']
    assert atlas.jobs.results(job, start=2) == ['{"c": 3}']
    assert atlas.jobs.get(job).parts_done == ["start", "heads"]


def test_a_start_kept_before_its_summary_was_called_so_is_read_in_present_words(atlas: Atlas) -> None:
    job = add(atlas)
    start = {"kind": "start", "source": "random", "told": "20 sequences of “tokens”.", "repeats": 20}
    other = {"kind": "heads", "told": "no start"}
    atlas.jobs.keep_part(job, "start", [json.dumps(start), json.dumps(other)])
    read, left = (json.loads(payload) for payload in atlas.jobs.results(job))
    assert read == {"kind": "start", "source": "random", "summary": "20 sequences of “tokens”.", "repeats": 20}
    assert left == other


def test_a_cancelled_job_stops_its_worker_and_stays_cancelled(atlas: Atlas) -> None:
    waiting, running = add(atlas, 1), None
    assert atlas.jobs.cancel(waiting).status == "cancelled"
    running = add(atlas)
    atlas.jobs.take()
    assert atlas.jobs.report_progress(running, 0.5, "half")
    atlas.jobs.cancel(running)
    assert not atlas.jobs.report_progress(running, 0.6, "more")
    atlas.jobs.end(running, "finished")
    assert atlas.jobs.get(running).status == "cancelled"
    assert atlas.jobs.get(running).progress == 0.5


def test_an_ended_job_is_not_cancelled_and_an_interrupted_one_waits_again(atlas: Atlas) -> None:
    job = add(atlas)
    atlas.jobs.take()
    atlas.jobs.requeue(job)
    assert atlas.jobs.get(job).status == "queued"
    atlas.jobs.take()
    atlas.jobs.end(job, "failed", "the disk is full")
    ended = atlas.jobs.cancel(job)
    assert (ended.status, ended.message) == ("failed", "the disk is full")
    assert ended.finished_at is not None


def test_too_many_waiting_jobs_are_refused(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MOST_WAITING", 2)
    add(atlas, 1)
    add(atlas, 2)
    with pytest.raises(TooManyJobs, match="cancel one"):
        add(atlas, 3)
    assert add(atlas, 2), "the same one is there already"


def test_a_job_that_is_not_there_is_told(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlas, match="no job 7"):
        atlas.jobs.get(7)


def test_what_a_job_measures_of_neurons_is_shown_with_a_finished_run_and_changes_nothing_of_it(atlas: Atlas) -> None:
    run = atlas.runs.begin(replace(PLAN, seed=5)).id
    with atlas.runs.writing() as writer:
        writer.set_neurons(run, 1, {"weight_norm": np.array([1.0, 2.0, 3.0])})
    atlas.runs.finish(run)
    before, kept = atlas.runs.get(run), rows_of(atlas, "runs", "neurons")
    job = atlas.jobs.add("induction", "tiny", run, {}).id
    measured = {"induction_change": np.array([0.5, -1.0, 0.0]), "induction_change_se": np.array([0.1, np.nan, 0.2])}
    assert atlas.jobs.keep_part(job, "curves", [], neurons=measured)
    found = atlas.neurons.columns(run, ["weight_norm", *measured])
    assert found["weight_norm"].tolist() == [1.0, 2.0, 3.0]
    for name, column in measured.items():
        np.testing.assert_array_equal(found[name], column)
    assert rows_of(atlas, "runs", "neurons") == kept
    assert atlas.runs.get(run) == replace(before, revision=f"{before.revision}.{job}"), "pages fetch it again"
    assert atlas.runs.of_model("tiny")[0].revision == f"{before.revision}.{job}"


def test_neurons_are_sorted_and_filtered_by_what_a_job_measured(atlas: Atlas) -> None:
    with atlas.runs.writing() as writer:
        writer.set_neurons(1, 1, {"weight_norm": np.arange(5.0)})
    job = add(atlas)
    atlas.jobs.keep_part(job, "curves", [], neurons={"induction_change": np.array([3.0, np.nan, 1.0, 2.0, -1.0])})
    query = NeuronQuery(sort="-induction_change", where=["induction_change>-5"], columns=["induction_change"])
    rows, total = atlas.neurons.page(1, query)
    assert ([row.index for row in rows], total) == ([0, 3, 2, 4], 4)
    assert rows[0].metrics == {"induction_change": 3.0}
    assert [row.index for row in atlas.neurons.page(1, NeuronQuery(sort="induction_change"))[0]] == [4, 2, 3, 0, 1]


def test_results_of_neurons_go_with_the_job_that_others_take_up_and_a_later_jobs_replace_them(atlas: Atlas) -> None:
    with atlas.runs.writing() as writer:
        writer.set_neurons(1, 1, {"weight_norm": np.arange(5.0)})
    first, second = add(atlas, 0), add(atlas, 1)
    for job, value in ((first, 1.0), (second, 2.0)):
        atlas.jobs.keep_part(job, "curves", [], neurons={"induction_change": np.full(5, value)})
        assert atlas.neurons.columns(1, ["induction_change"])["induction_change"].tolist() == [value] * 5
    atlas.jobs.take_up(second, "newer code")
    assert np.isnan(atlas.neurons.columns(1, ["induction_change"])["induction_change"]).all()


def rows_of(atlas: Atlas, *tables: str) -> list[Any]:
    return [atlas._database.rows(text(f"SELECT * FROM {table}")) for table in tables]
