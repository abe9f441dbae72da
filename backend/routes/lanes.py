"""Lanes: those who read the atlas, those who write to it and those who wait for the model do not hold each other up.

A request holds a thread while the atlas answers it, and Python runs one thread at a time: forty readers at once would
leave the model a fortieth of it. So only a few requests of a lane are worked on at once; the others wait without a
thread, first come, first served, and beyond a limit they are turned away at once. Whoever closes the connection while
waiting gives the place back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakKeyDictionary

import anyio
from fastapi import Request

from backend.live.queue import EngineBusy, LeftTheLine

READING = 2
"""Readers that are worked on at once: one, and one more for while the first waits for the disk. Python runs one at a
time in any case, and each further one that wants to run makes a model's steps, which are short, wait longer."""
SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python from another. A model's pass is thousands of short steps, and before each the model
waits so long for whoever is busy: with 5 ms, which is the default, one busy reader doubled or tripled the time of a
text; with this it could not be told from none."""
_MOST_READERS = 256
WRITING = 2
_MOST_WRITERS = 4
_MOST_FOLLOWERS = 64
"""Streams of jobs' events at the same time."""
_SPARE_THREADS = 16
"""Beyond what the lanes need: for files, and for the steps of what streams."""


class LaneFull(EngineBusy):
    """Too many requests of a kind wait already."""

    def __init__(self, what: str, waiting: int, retry_after: int) -> None:
        message = (
            f"{waiting} requests wait already {what}, as many as may: this one would have place {waiting + 1} in the "
            f"line. Try again in {retry_after} s."
        )
        super().__init__(waiting + 1, waiting, retry_after, message)


class Lane:
    """So many requests at once; others wait in order."""

    def __init__(self, what: str, width: int, most_waiting: int, retry_after: int = 2) -> None:
        """what: they wait for, as in "to read the atlas"."""
        self._what, self._width, self._most_waiting, self._retry_after = what, width, most_waiting, retry_after
        # One for each event loop: a service may be asked in several, as tests do.
        self._limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, anyio.CapacityLimiter] = WeakKeyDictionary()

    @asynccontextmanager
    async def hold(self, request: Request) -> AsyncIterator[None]:
        """Wait for a place, and keep it as long as the body runs.

        Raises:
            LaneFull: too many wait already.
            LeftTheLine: the client has closed the connection while it waited.
        """
        limiter, holder = self._limiter(), object()  # not the task: it may ask this service itself
        try:
            limiter.acquire_on_behalf_of_nowait(holder)
        except anyio.WouldBlock:
            if (waiting := limiter.statistics().tasks_waiting) >= self._most_waiting:
                raise LaneFull(self._what, waiting, self._retry_after) from None
            await _unless_gone(request, limiter, holder)
        try:
            yield
        finally:
            limiter.release_on_behalf_of(holder)

    def _limiter(self) -> anyio.CapacityLimiter:
        loop = asyncio.get_running_loop()
        if loop not in self._limiters:
            self._limiters[loop] = anyio.CapacityLimiter(self._width)
        return self._limiters[loop]


async def _unless_gone(request: Request, limiter: anyio.CapacityLimiter, holder: object) -> None:
    got = False
    with anyio.CancelScope() as scope:
        async with watched(request, scope.cancel):
            await limiter.acquire_on_behalf_of(holder)
            got = True
    if not got:
        raise LeftTheLine


@asynccontextmanager
async def watched(request: Request, gone: Callable[[], None]) -> AsyncIterator[None]:
    """Call `gone` if the client closes the connection before the body has ended. What it has sent must be read already,
    unless nobody wants it."""
    watch = asyncio.create_task(_watch(request, gone))
    try:
        yield
    finally:
        watch.cancel()


async def _watch(request: Request, gone: Callable[[], None]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone()


def reading() -> Lane:
    """Of those who read the atlas."""
    return Lane("to read the atlas", READING, _MOST_READERS)


def writing() -> Lane:
    """Of those who write to the atlas over HTTP."""
    return Lane("to write to the atlas", WRITING, _MOST_WRITERS, retry_after=5)


class Followers:
    """Those who follow a job; each holds a place as long as its connection is open."""

    def __init__(self) -> None:
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """
        Raises:
            LaneFull: as many follow as may.
        """
        if self._open >= _MOST_FOLLOWERS:
            raise LaneFull("for a job's events", self._open, retry_after=30)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def threads(queue_limit: int) -> int:
    """How many threads there must be, so that no lane can take those of another."""
    return READING + WRITING + queue_limit + _SPARE_THREADS
