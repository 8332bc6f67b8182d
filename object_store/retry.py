"""Repeat a request while its fault passes: the one loop for every kind of store and every client.

What passes is decided by the class of the error alone (`object_store.errors`).
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from object_store.errors import Corrupted, PassingError, WrongBytes

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
# Bytes that are wrong in the same way so often are wrong in the store.
IDENTICAL_TRIES = 3

logger = logging.getLogger(__name__)


def retried(request: Callable[[], T], retry_for_s: float, kind: type[PassingError] = PassingError) -> T:
    """Return what `request` returns; repeat it while it raises a passing error, for `retry_for_s` from the first.

    The last attempt begins before that time is over. Wrong bytes are read up to three times whatever the time;
    `Corrupted` is raised when they are the same each time. A loop around requests that are retried themselves
    names the `kind` of error that is left to it.
    """
    pause = wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)
    received: list[str] = []
    give_up_at: float | None = None

    def attempt() -> T:
        nonlocal give_up_at
        try:
            return request()
        except PassingError as error:
            if give_up_at is None:
                give_up_at = time.monotonic() + retry_for_s
            if isinstance(error, WrongBytes):
                received.append(error.received)
                if received[-IDENTICAL_TRIES:] == [error.received] * IDENTICAL_TRIES:
                    raise Corrupted(f"{error}; {IDENTICAL_TRIES} tries gave the same") from error
            raise

    def left_s() -> float:
        return give_up_at - time.monotonic() if give_up_at is not None else retry_for_s

    def stop(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return left_s() <= 0 and not (isinstance(error, WrongBytes) and len(received) < IDENTICAL_TRIES)

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.info("attempt %d failed and is repeated: %s", state.attempt_number, error)

    loop = Retrying(
        retry=retry_if_exception_type(kind),
        stop=stop,
        wait=lambda state: max(0.0, min(pause(state), left_s())),
        before_sleep=say,
        reraise=True,
    )
    return loop(attempt)
