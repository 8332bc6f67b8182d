"""A cache with a lifetime of seconds, so that many open pages cause one request to CVAT or the cluster.

Callers with the same key share a running request and its error. Errors are not cached.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 10_000


class ShortCache(Generic[T]):
    """Key → answer, for `keep_s` seconds from the start of the request."""

    def __init__(self, keep_s: float, *, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._most = most
        self._swept = clock()
        self._answers: dict[Hashable, tuple[float, asyncio.Future[T]]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The cached answer for `key`, or the result of `ask`."""
        until, answer = self._answers.get(key, (0.0, None))
        if answer is None or (answer.done() and until <= self._clock()):
            self._make_room()
            answer = asyncio.ensure_future(ask())
            self._answers[key] = (self._clock() + self._keep_s, answer)
            answer.add_done_callback(lambda done: self._forget_failure(key, done))
        # A cancelled caller must not cancel the request for the others.
        return await asyncio.shield(answer)

    def forget(self, key: Hashable) -> None:
        """Drop the answer for `key`, after a change."""
        self._answers.pop(key, None)

    def clear(self) -> None:
        """Drop all answers."""
        self._answers.clear()

    def _forget_failure(self, key: Hashable, answer: asyncio.Future[T]) -> None:
        # `exception()` also tells asyncio that the error was seen, if no caller waits any more.
        failed = answer.cancelled() or answer.exception() is not None
        if failed and self._answers.get(key, (0.0, None))[1] is answer:
            del self._answers[key]

    def _make_room(self) -> None:
        """Drop expired answers, to free memory, and the oldest ones above `most`."""
        now = self._clock()
        if now < self._swept + self._keep_s and len(self._answers) < self._most:
            return
        self._swept = now
        self._answers = {key: kept for key, kept in self._answers.items() if kept[0] > now or not kept[1].done()}
        while len(self._answers) >= self._most:
            del self._answers[next(iter(self._answers))]
