"""A timeout for incoming requests, which uvicorn lacks: a connection without a complete request is closed.

uvicorn closes a connection that is idle after a response (`timeout_keep_alive`). It waits without limit for the first
request, for the rest of a request's headers, and for a body that is no longer read. The code that reads a body sets
the time limit for it.
"""

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class BoundedConnection(H11Protocol):
    """A connection that is closed if a request's headers are not complete within `request_timeout_s`.

    The timer starts when the connection opens, and again with the first byte after a response. Further bytes do not
    extend it. It stops when the headers are complete.
    """

    request_timeout_s: ClassVar[float] = 30.0

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timer for the first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the timer if the data completes a request's headers, else start it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        being_answered = cycle is not None and not cycle.response_complete
        if being_answered or self.timeout_keep_alive_task is not None:
            self._stop()
        elif self._closing is None:
            self._closing = self.loop.call_later(self.request_timeout_s, self.transport.close)

    def _stop(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
