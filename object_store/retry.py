"""Retry requests after temporary faults, for all kinds of stores and clients.

The class of the error alone decides whether a request is retried (`object_store.errors`).
"""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from object_store.errors import Corrupted, PassingError, WrongBytes

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
# If this many attempts receive the same wrong bytes, the store itself holds them.
IDENTICAL_TRIES = 3

logger = logging.getLogger(__name__)


def retried(request: Callable[[], T], retry_for_s: float, kind: type[PassingError] = PassingError) -> T:
    """Return the result of `request`. Retry it after errors of `kind`, until `retry_for_s` seconds after the first
    error.

    The last attempt begins before that time is over. Wrong bytes are read up to three times regardless of the time.

    A loop around requests that are already retried sets `kind` to the errors that are left for it.

    Raises Corrupted: when three attempts in a row give the same wrong bytes.
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
                    raise Corrupted(f"{error}; {IDENTICAL_TRIES} attempts gave the same result") from error
            raise

    def left_s() -> float:
        return give_up_at - time.monotonic() if give_up_at is not None else retry_for_s

    def stop(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return left_s() <= 0 and not (isinstance(error, WrongBytes) and len(received) < IDENTICAL_TRIES)

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.info("attempt %d failed, retrying: %s", state.attempt_number, error)

    try:
        return attempt()  # most requests need no loop, which takes longer than a small object's bytes
    except kind as error:
        failed = [error]

    def again() -> T:
        if failed:
            raise failed.pop()  # the first attempt of the loop was made above
        return attempt()

    loop = Retrying(
        retry=retry_if_exception_type(kind),
        stop=stop,
        wait=lambda state: max(0.0, min(pause(state), left_s())),
        before_sleep=say,
        reraise=True,
    )
    return loop(again)
