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
        self._answers: dict[Hashable, tuple[float, T]] = {}
        self._under_way: dict[Hashable, asyncio.Task[T]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The cached answer for `key`, or the result of `ask`."""
        found = self._answers.get(key)
        if found is not None and found[0] > self._clock():
            return found[1]
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(self._asked(key, ask))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # A cancelled caller must not cancel the request for the others.
        return await asyncio.shield(task)

    def forget(self, key: Hashable) -> None:
        """Drop the answer for `key`, after a change."""
        self._answers.pop(key, None)
        self._under_way.pop(key, None)

    def clear(self) -> None:
        """Drop all answers."""
        self._answers.clear()
        self._under_way.clear()

    async def _asked(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        until = self._clock() + self._keep_s
        answer = await ask()
        if self._under_way.get(key) is asyncio.current_task():
            self._make_room()
            self._answers[key] = (until, answer)
        return answer

    def _ended(self, key: Hashable, task: asyncio.Task[T]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it if no caller waits any more

    def _make_room(self) -> None:
        """Drop expired answers, to free memory, and the oldest ones above `most`."""
        now = self._clock()
        if now < self._swept + self._keep_s and len(self._answers) < self._most:
            return
        self._swept = now
        self._answers = {key: value for key, value in self._answers.items() if value[0] > now}
        while len(self._answers) >= self._most:
            del self._answers[next(iter(self._answers))]
