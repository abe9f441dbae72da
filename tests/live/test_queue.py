"""The line to the model: in order, bounded in number and in time, and left by who does not wait any longer."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backend.live.queue import EngineBusy, LeftTheLine, Line, LineClosed


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line(3)
    yield line
    line.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


@contextmanager
def occupied(line: Line) -> Iterator[threading.Event]:
    """The model at work for somebody, until the body ends or the event is set."""
    go_on, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        assert go_on.wait(30)

    thread = threading.Thread(target=lambda: line.turn(work))
    thread.start()
    assert began.wait(30)
    try:
        yield go_on
    finally:
        go_on.set()
        thread.join(30)


def test_turns_are_taken_in_the_order_of_arrival_one_at_a_time(line: Line) -> None:
    done: list[int] = []
    with ThreadPoolExecutor(2) as people, occupied(line):
        asked = []
        for person in range(2):
            asked.append(people.submit(line.turn, lambda person=person: done.append(person)))
            until(lambda: line.waiting == 2 + person)  # noqa: B023 - asked at once
        assert done == []
    assert [one.result(20) for one in asked] == [None, None]
    assert done == [0, 1]
    assert line.waiting == 0


def test_beyond_the_limit_one_is_refused_at_once_with_the_place(line: Line) -> None:
    with occupied(line):
        places = [line.join(), line.join()]
        began = time.monotonic()
        with pytest.raises(EngineBusy, match=r"3 requests wait.*place 4 in the line, which has room for 3") as refused:
            line.join()
        assert time.monotonic() - began < 1
        assert (refused.value.place, refused.value.limit) == (4, 3)
        assert refused.value.retry_after >= 1
        places[0].leave()
        places[0].leave()
        with line.join(), pytest.raises(EngineBusy):
            line.join()
        places[1].leave()
    assert line.waiting == 0


def test_a_wait_that_would_be_too_long_is_refused_though_there_are_places() -> None:
    line = Line(100, patience=0.5)
    line.turn(lambda: time.sleep(0.4))
    with occupied(line), pytest.raises(EngineBusy, match=r"place 2 .* room for 1 now"):
        line.join()
    line.join().leave()  # nobody waits: however long it takes, it is tried
    line.close()


def test_loading_a_model_does_not_count_as_a_long_turn() -> None:
    line = Line(100, patience=0.5)
    loading = 0.4

    def load() -> None:
        time.sleep(loading)
        line.set_aside(loading)

    line.turn(load)
    assert line.turn_seconds < 0.2
    line.close()


def test_what_has_been_left_is_not_done(line: Line) -> None:
    done: list[str] = []
    with ThreadPoolExecutor(2) as people, occupied(line):
        leaving, staying = line.join(), line.join()
        left = people.submit(leaving.turn, lambda: done.append("left"))
        stayed = people.submit(staying.turn, lambda: done.append("stayed"))
        until(lambda: leaving._waits is not None and staying._waits is not None)
        leaving.leave()
        with pytest.raises(LeftTheLine):
            left.result(20)
        assert line.waiting == 2
    stayed.result(20)
    assert done == ["stayed"]
    with pytest.raises(LeftTheLine):
        leaving.turn(lambda: done.append("too late"))
    assert (done, line.waiting) == (["stayed"], 0)


def test_a_turn_within_a_turn_is_the_same_turn(line: Line) -> None:
    with line.join() as place:
        assert place.turn(lambda: line.turn(lambda: (line.waiting, "inner"))) == (1, "inner")


def test_an_error_is_passed_on_and_the_line_moves(line: Line) -> None:
    with pytest.raises(ZeroDivisionError):
        line.turn(lambda: 1 / 0)
    assert line.turn(lambda: "next") == "next"
    assert line.waiting == 0


def test_nothing_of_an_answer_is_kept(line: Line) -> None:
    class Answer: ...

    answer = line.turn(Answer)
    gone = weakref.ref(answer)
    del answer
    gc.collect()
    until(lambda: gone() is None)


def test_closing_lets_nobody_wait(line: Line) -> None:
    """Not even the one whose turn it is: a model may take a minute to be loaded."""
    with ThreadPoolExecutor(3) as people:
        began, go_on = threading.Event(), threading.Event()

        def work() -> bool:
            began.set()
            return go_on.wait(30)

        running = people.submit(line.turn, work)
        assert began.wait(20)
        waiting = people.submit(line.turn, lambda: "never")
        until(lambda: line.waiting == 2)
        line.close()
        for one in (running, waiting):
            with pytest.raises(LineClosed, match="being stopped"):
                one.result(20)
        with pytest.raises(LineClosed):
            line.join()
        with pytest.raises(LineClosed):
            line.turn(lambda: "never", admitted=True)
        go_on.set()
    until(lambda: not line._thread.is_alive())
    assert line.waiting == 0


def test_work_for_when_nobody_waits_lets_all_go_first_and_takes_no_place(line: Line) -> None:
    done: list[str] = []
    with ThreadPoolExecutor(2) as people, occupied(line):
        rest = line.when_free(lambda: done.append("rest"))
        assert line.waiting == 1
        asked = [people.submit(line.turn, lambda: done.append("person")) for _ in range(2)]
        until(lambda: line._queue.qsize() == 3)
    for one in asked:
        one.result(20)
    rest.result(20)
    assert done == ["person", "person", "rest"]


def test_work_for_when_nobody_waits_does_not_lengthen_the_wait_that_people_are_given() -> None:
    line = Line(100, patience=0.5)
    line.when_free(lambda: time.sleep(0.6)).result(20)
    assert line.turn(lambda: line.turn_seconds) == 0
    line.close()
    assert line.when_free(lambda: None).cancelled()
