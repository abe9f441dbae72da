"""The one line to the model: who may wait in it, whose turn it is, and what becomes of those who leave.

A model uses all cores for one request; two at once would both be slower and need twice the memory. So requests wait in
line, first come, first served. The line is bounded twice, by how many wait and by how long the last of them would wait;
whoever would be beyond that is told so at once, with the place that it would have had.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from backend.core.errors import CalibroscopeError

Result = TypeVar("Result")

_TURNS_REMEMBERED = 16
_LONGEST_RETRY = 60


class EngineBusy(CalibroscopeError):
    """No room for another request now."""

    def __init__(self, place: int, limit: int, retry_after: int = 2, message: str | None = None) -> None:
        """
        Args:
            place: which one it would have been, from 1.
            limit: how many there is room for now.
            message: what is said instead of the sentence about requests that wait for the model.
        """
        self.place, self.limit, self.retry_after = place, limit, retry_after
        super().__init__(
            message
            or f"{place - 1} requests wait for the model already: this one would have place {place} in the line, which "
            f"has room for {limit} now. Try again in {retry_after} s."
        )


class LineClosed(CalibroscopeError):
    """The service is being stopped."""

    def __init__(self) -> None:
        super().__init__("The service is being stopped: nothing more is asked of the model.")


class LeftTheLine(CalibroscopeError):
    """Whoever asked has gone before the turn came."""

    def __init__(self) -> None:
        super().__init__("The request was given up before its turn came.")


class Place:
    """A place in the line, from when a request comes until its turn is over or it leaves."""

    def __init__(self, line: "Line") -> None:
        self._line, self._lock, self._left = line, threading.Lock(), False
        self._waits: Future[Any] | None = None

    def turn(self, work: Callable[[], Result]) -> Result:
        """Wait for the turn, and do all that the request needs of the model in it. The place is given back after.

        Raises:
            LeftTheLine: whoever asked has gone meanwhile.
            LineClosed: the service is being stopped.
        """
        try:
            with self._lock:
                if self._left:
                    raise LeftTheLine
                waits = self._waits = self._line.submit(work)
            result: Result = waits.result()
            return result
        except CancelledError:
            raise LeftTheLine from None
        finally:
            self.leave()

    def leave(self) -> None:
        """Give the place back: what has not begun is not done. Leaving twice is harmless."""
        with self._lock:
            if self._left:
                return
            self._left = True
            if self._waits is not None:
                self._waits.cancel()
        self._line.vacate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class _Turn(NamedTuple):
    outcome: "Future[Any]"
    work: Callable[[], Any]
    when_free: bool = False
    """It lets all others go first."""


class Line:
    """Work for one thread, in order of arrival."""

    def __init__(self, limit: int, patience: float = math.inf) -> None:
        """limit: places; patience: seconds until the last in line has its answer, as far as recent turns tell."""
        self._limit, self._patience = limit, patience
        self._lock = threading.Lock()
        self._places, self._closed, self._aside = 0, False, 0.0
        self._took: deque[float] = deque(maxlen=_TURNS_REMEMBERED)
        self._running: Future[Any] | None = None
        self._queue: SimpleQueue[_Turn | None] = SimpleQueue()
        # A daemon: a model that is being fetched or loaded must not keep a stopped service from ending.
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Places that are taken, that of the running turn included."""
        return self._places

    @property
    def turn_seconds(self) -> float:
        """How long recent turns took, in the mean; 0 before the first."""
        took = list(self._took)
        return sum(took) / len(took) if took else 0.0

    def join(self) -> Place:
        """A place at the end of the line.

        Raises:
            EngineBusy: there is none, or the wait would be too long.
            LineClosed: the service is being stopped.
        """
        with self._lock:
            if self._closed:
                raise LineClosed
            wait = (self._places + 1) * self.turn_seconds
            if self._places >= self._limit or (self._places and wait > self._patience):
                retry_after = min(max(math.ceil(wait), 1), _LONGEST_RETRY)
                raise EngineBusy(self._places + 1, min(self._limit, self._places), retry_after)
            self._places += 1
        return Place(self)

    def turn(self, work: Callable[[], Result], *, admitted: bool = False) -> Result:
        """Do work when its turn comes; at once, where it is asked for within a turn.

        Args:
            admitted: a further step of what was let in before; it waits like the others but is not turned away.

        Raises:
            EngineBusy: there is no place.
            LineClosed: the service is being stopped.
        """
        if threading.current_thread() is self._thread:
            return work()
        with self._further() if admitted else self.join() as place:
            return place.turn(work)

    def _further(self) -> Place:
        with self._lock:
            self._places += 1
        return Place(self)

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """The outcome of work, for which a place is held."""
        waits: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise LineClosed
            self._queue.put(_Turn(waits, work))
        return waits

    def when_free(self, work: Callable[[], object]) -> "Future[object]":
        """Do work that nobody waits for, once nobody waits for anything else. It takes no place, and what it takes of
        time says nothing about other turns."""
        outcome: Future[object] = Future()
        with self._lock:
            if self._closed:
                outcome.cancel()
            else:
                self._queue.put(_Turn(outcome, work, when_free=True))
        return outcome

    def vacate(self) -> None:
        """Somebody's place is free again."""
        with self._lock:
            self._places -= 1

    def set_aside(self, seconds: float) -> None:
        """Part of the running turn does not tell how long turns take: a model was loaded in it."""
        self._aside += seconds

    def close(self) -> None:
        """Let nobody wait any longer: neither those in line, nor the one whose turn it is, whatever is being done."""
        with self._lock:
            self._closed = True
        with suppress(Empty):
            while (turn := self._queue.get_nowait()) is not None:
                _settle(turn.outcome, error=LineClosed())
        self._queue.put(None)
        if (running := self._running) is not None:
            _settle(running, error=LineClosed())

    def _serve(self) -> None:
        while (turn := self._queue.get()) is not None:
            if turn.when_free and not self._queue.empty():
                self._put_back(turn)
            else:
                self._do(turn)
            del turn  # or the last answer would be kept until the next request

    def _put_back(self, turn: _Turn) -> None:
        """Behind those who came meanwhile; a line that is closed has ended with what it had."""
        with self._lock:
            if self._closed:
                turn.outcome.cancel()
            else:
                self._queue.put(turn)

    def _do(self, turn: _Turn) -> None:
        if not turn.outcome.set_running_or_notify_cancel():
            return
        self._running, self._aside, began = turn.outcome, 0.0, time.monotonic()
        try:
            result = turn.work()
        except BaseException as error:
            _settle(turn.outcome, error=error)
        else:
            _settle(turn.outcome, result=result)
        self._running = None
        if not turn.when_free:
            self._took.append(max(time.monotonic() - began - self._aside, 0.0))


def _settle(waits: "Future[Any]", *, result: Any = None, error: BaseException | None = None) -> None:
    """Tell an outcome, unless one has been told: that the service is being stopped."""
    with suppress(InvalidStateError):
        if error is None:
            waits.set_result(result)
        else:
            waits.set_exception(error)
