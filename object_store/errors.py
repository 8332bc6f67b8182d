"""What can go wrong with a store, one class per thing that a person would check.

The class alone decides what happens. A `PassingError` is retried until the patience of the store is used up
(`object_store.retry`), and the command lines then end with 75. Any other `StoreError` is raised at once: the
URL, the key, the credentials or the data are wrong, and the exit code is 2. `ObjectChanged` is the exception:
the same request cannot succeed, but the whole command can.
"""

# The contract of the command lines; run_config.exit_codes has the same numbers, which this package may not import.
WRONG_INPUT, PASSING_FAULT = 2, 75


class StoreError(Exception):
    """Something is wrong with the store or with what was asked of it; the message says what to check."""

    exit_code = WRONG_INPUT


class PassingError(StoreError):
    """A fault that passes: the same request may succeed later."""

    exit_code = PASSING_FAULT


class StoreUnavailable(PassingError):
    """The store cannot be reached, is overloaded, or failed after all retries."""


class WrongBytes(StoreUnavailable):
    """The bytes that arrived do not have the size or the checksum that the store states.

    `received` identifies them: where they are the same each time, they were not damaged on the way, and the
    error becomes `Corrupted`.
    """

    def __init__(self, message: str, received: str) -> None:
        super().__init__(message)
        self.received = received


class ObjectChanged(StoreError):
    """An object or file was replaced while it was read. Nothing was written; the whole command helps, run again."""

    exit_code = PASSING_FAULT


class InvalidUrl(StoreError):
    """A store URL that is neither `s3://bucket/prefix` nor `file:///path`."""


class InvalidKey(StoreError):
    """A key that could lead out of a folder, or that not every store can hold."""


class NoSuchKey(StoreError):
    """There is no object of this name."""


class NoSuchBucket(StoreError):
    """There is no bucket of this name at this endpoint."""


class AlreadyExists(StoreError):
    """`if_absent` was asked for, and the object is there."""


class AccessDenied(StoreError):
    """The credentials are good, but may not do this."""


class NoCredentials(StoreError):
    """No credentials were found, or the place that gives them failed."""


class WrongCredentials(StoreError):
    """The store refuses the access key, the signature or the session token."""


class WrongRegion(StoreError):
    """The bucket lies in another region than the one that requests are signed for."""


class ClockSkew(StoreError):
    """This machine's clock is too far from the store's."""


class Corrupted(StoreError):
    """The store itself holds, or has stored, other bytes than it states: they are the same at each try."""
