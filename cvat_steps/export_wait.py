"""Waiting: with a growing pause for CVAT to work, and with patience while CVAT is away."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cvat_client.errors import CvatUnavailableError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses in seconds, each longer than the one before."""

    first_s: float = 0.3
    longest_s: float = 15.0
    factor: float = 1.6

    def pauses(self) -> Iterator[float]:
        """Without an end."""
        pause = self.first_s
        while True:
            yield pause
            pause = min(pause * self.factor, self.longest_s)


class Patience:
    """Asks again while CVAT is away, for `save_for_s` seconds without one answer."""

    def __init__(self, save_for_s: float, pace: Pace, say: Callable[[str], None]) -> None:
        self._save_for_s, self._pace, self._say = save_for_s, pace, say

    def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises CvatUnavailableError when the time is over, whatever else at once."""
        until = time.monotonic() + self._save_for_s
        told = ""
        for pause in self._pace.pauses():
            try:
                return question()
            except CvatUnavailableError as error:
                if time.monotonic() + pause > until:
                    raise CvatUnavailableError(
                        f"{error}, for {self._save_for_s:.0f} s now: the step ends and is tried again"
                    ) from error
                if str(error) != told:
                    self._say(f"{error}; asking again for up to {self._save_for_s:.0f} s")
                    told = str(error)
            time.sleep(pause)
        raise AssertionError("pauses have no end")
