"""Retry requests to CVAT while it is unreachable, with exponential back-off."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential

from cvat_client.errors import CvatUnavailableError
from run_config.exit_codes import PASSING_FAULT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """Back-off: the first and the longest pause in seconds, and the factor between two pauses."""

    first_s: float = 0.3
    longest_s: float = 15.0
    factor: float = 1.6

    def pauses(self) -> Iterator[float]:
        """Yield the pauses in seconds, without end."""
        pause = self.first_s
        while True:
            yield pause
            pause = min(pause * self.factor, self.longest_s)


class Patience:
    """Retries while CVAT is unreachable, for at most `longest_s` seconds per request."""

    def __init__(self, longest_s: float, pace: Pace, say: Callable[[str], None]) -> None:
        self._longest_s, self._pace, self._say = longest_s, pace, say

    def ask(self, question: Callable[[], T], *, pace: Pace | None = None) -> T:
        """Return the result of `question`. CvatUnavailableError: out of time. Other errors are raised at once."""
        told = ""

        def tell(attempt: RetryCallState) -> None:
            nonlocal told
            error = str(attempt.outcome.exception() if attempt.outcome else "")
            if error != told:
                self._say(f"{error}; asking again for up to {self._longest_s:.0f} s")
                told = error

        pace = pace or self._pace
        retrying = Retrying(
            retry=retry_if_exception(_passes),
            wait=wait_exponential(multiplier=pace.first_s, exp_base=pace.factor, max=pace.longest_s),
            stop=stop_before_delay(self._longest_s),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(question)
        except CvatUnavailableError as error:
            if not _passes(error):
                raise
            raise CvatUnavailableError(
                f"{error}, for {self._longest_s:.0f} s now: the step ends and is retried"
            ) from error


def _passes(error: BaseException) -> bool:
    return isinstance(error, CvatUnavailableError) and error.exit_code == PASSING_FAULT
