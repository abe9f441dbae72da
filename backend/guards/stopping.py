"""Stopping the service: nobody who waits for the model, and no stream that stays open, keeps it from ending."""

import socket
from collections.abc import Callable

import uvicorn

LAST_SECONDS = 5
"""For answers that are under way, and before streams are cut off."""


class StoppingServer(uvicorn.Server):
    """Uvicorn's server waits until every request is answered; some wait for a model that is just being loaded."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        """stopping: called when the service is asked to stop, before the open requests are waited for."""
        config.timeout_graceful_shutdown = LAST_SECONDS
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
