"""Jobs in the atlas: queued once, taken once, kept part by part."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from backend.atlas import jobs
from backend.atlas.database import NotInAtlas
from backend.atlas.jobs import TooManyJobs
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


def test_the_change_of_activation_joins_a_finished_run_and_changes_nothing_else(atlas: Atlas) -> None:
    run = atlas.runs.begin(replace(PLAN, seed=5)).id
    with atlas.runs.writing() as writer:
        writer.set_neurons(run, 1, {"weight_norm": np.array([1.0, 2.0, 3.0])})
    atlas.runs.finish(run)
    before = atlas.runs.get(run)
    atlas.jobs.add_induction_change(run, np.array([0.5, -1.0, 0.0]), np.array([0.1, np.nan, 0.2]))
    found = atlas.neurons.columns(run, ["weight_norm", "induction_change", "induction_change_se"])
    assert found["weight_norm"].tolist() == [1.0, 2.0, 3.0]
    assert found["induction_change"].tolist() == [0.5, -1.0, 0.0]
    assert found["induction_change_se"][[0, 2]].tolist() == [0.1, 0.2]
    assert np.isnan(found["induction_change_se"][1])
    assert atlas.runs.get(run) == replace(before, revision=before.revision + 1)
