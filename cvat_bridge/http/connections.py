"""Limits on connections that uvicorn does not have: a request must arrive, or the connection is closed.

uvicorn closes a connection that is idle after an answer (`timeout_keep_alive`). It waits without end for a first
request, for the rest of a request's headers, and for a body that nobody reads any more. How long a body may take
while somebody does read it is decided where it is read.
"""

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle


class BoundedConnection(H11Protocol):
    """A connection that is closed when no complete request is under way for `request_timeout_s`.

    The time starts when the connection opens, and again with the first byte that follows an answer. Further bytes do
    not extend it. It stops once a request's headers are complete.
    """

    request_timeout_s: ClassVar[float] = 30.0

    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time for the first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the time where the data completes a request's headers, else start it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
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
