"""The errors of stores, one class for each cause that a person can check.

The class alone decides what happens. A `PassingError` is retried until the retry time of the store is over
(`object_store.retry`); then the command lines exit with 75. Any other `StoreError` is raised at once with exit code 2:
the URL, the key, the credentials or the data are wrong. `ObjectChanged` is the exception: retrying the request is
useless, but running the whole command again helps, so its exit code is 75.
"""

# The exit codes of the command lines. They are repeated from run_config.exit_codes, which this package may not import.
WRONG_INPUT, PASSING_FAULT = 2, 75


class StoreError(Exception):
    """The store or the request is wrong. The message says what to check."""

    exit_code = WRONG_INPUT


class PassingError(StoreError):
    """A temporary fault: the same request may succeed later."""

    exit_code = PASSING_FAULT


class StoreUnavailable(PassingError):
    """The store is unreachable, overloaded, or still fails after all retries."""


class WrongBytes(StoreUnavailable):
    """The received bytes do not have the size or the checksum that the store states.

    `received` identifies the bytes. If every attempt receives the same bytes, they were not damaged in transit, and the
    error becomes `Corrupted`.
    """

    def __init__(self, message: str, received: str) -> None:
        super().__init__(message)
        self.received = received


class ObjectChanged(StoreError):
    """An object or file was replaced while it was read. Nothing was written. Run the whole command again."""

    exit_code = PASSING_FAULT


class InvalidUrl(StoreError):
    """A store URL is neither `s3://bucket/prefix` nor `file:///path`."""


class InvalidKey(StoreError):
    """A key could point outside a folder, or is not valid in every store."""


class NoSuchKey(StoreError):
    """There is no object with this key."""


class NoSuchBucket(StoreError):
    """There is no bucket with this name at this endpoint."""


class AlreadyExists(StoreError):
    """`if_absent` was requested, but the object exists."""


class AccessDenied(StoreError):
    """The credentials are valid, but do not permit this."""


class NoCredentials(StoreError):
    """No credentials were found, or their source failed."""


class WrongCredentials(StoreError):
    """The store rejects the access key, the signature or the session token."""


class WrongRegion(StoreError):
    """The bucket is in another region than the one that requests are signed for."""


class ClockSkew(StoreError):
    """The difference between the clocks of this machine and of the store is too large."""


class Corrupted(StoreError):
    """The store holds, or has stored, other bytes than it states. They are the same at each attempt."""
