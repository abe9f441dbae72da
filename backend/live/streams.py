"""Work in progress that yields: each step waits its turn at the model, so it holds up nobody for longer than a step."""

import time
import weakref
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from backend.core.errors import CalibroscopeError
from backend.live.queue import EngineBusy

Step = TypeVar("Step")
Result = TypeVar("Result")


class ModelPutAway(CalibroscopeError):
    """The model that was at work has made room for another one."""

    def __init__(self, again: str) -> None:
        super().__init__(f"Another model was asked for and took this one's place in memory. {again}")


class InTurn(Protocol):
    """Does work when its turn at the model comes."""

    def __call__(self, work: Callable[[], Result], /) -> Result: ...


class StreamLimit:
    """How many streams of a kind may be open at once: each keeps memory, and they share the model's time."""

    def __init__(self, most: int, refusal: Callable[[int], EngineBusy]) -> None:
        """refusal: what is raised where so many are open."""
        self._most, self._refusal, self._lock = most, refusal, Lock()
        self.open = 0

    def take(self) -> None:
        """
        Raises:
            EngineBusy: as many are open as may be.
        """
        with self._lock:
            if self.open >= self._most:
                raise self._refusal(self.open)
            self.open += 1

    def give_back(self) -> None:
        """Make room for another."""
        with self._lock:
            self.open -= 1


class LiveStream(Generic[Step]):
    """An iterator's items, a step at a time. Close it when nobody listens any more."""

    def __init__(self, items: Iterator[Step], in_turn: InTurn, ready: Callable[[], None], limit: StreamLimit) -> None:
        """
        Args:
            ready: raises where the model that the items come from is no longer in memory.
            limit: has given a place, which closing the stream gives back.
        """
        self._items, self._in_turn, self._ready = items, in_turn, ready
        self._began = time.monotonic()
        self.steps = 0
        # Also when the answer is never read and this object is only forgotten.
        self._release: Any = weakref.finalize(self, limit.give_back)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def step(self) -> Step | None:
        """The next item, or None at the end.

        Raises:
            ModelPutAway: the model is no longer in memory.
        """
        item = self._in_turn(self._next)
        self.steps += item is not None
        return item

    def _next(self) -> Step | None:
        self._ready()
        return next(self._items, None)

    def close(self) -> None:
        """Make room for another stream. Closing twice is harmless."""
        self._release()
