"""Tells the atlas that a run is being worked on, however long a shard takes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from backend.atlas.store import Atlas

log = structlog.get_logger(__name__)

_EVERY_SECONDS = 20


@contextmanager
def beating(atlas: Atlas, run: int) -> Iterator[None]:
    """While the body runs, beat for the run from a thread of its own."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_EVERY_SECONDS):
            try:
                atlas.runs.beat(run)
            except Exception as error:  # a missed beat must not end the work; the next one may succeed
                log.warning("heartbeat missed", run=run, error=str(error))

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
