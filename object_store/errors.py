"""What can go wrong with a store, one class per thing that a person would check.

`exit_code` is the contract with the command lines: 2 means that the URL, the key, the credentials or the
data are wrong and a retry does not help; 75 means that the fault passes.
"""


class StoreError(Exception):
    """Something is wrong with the store or with what was asked of it; the message says what to check."""

    exit_code = 2


class StoreUnavailable(StoreError):
    """The store cannot be reached, is overloaded, or failed after all retries."""

    exit_code = 75


class ObjectChanged(StoreError):
    """An object or file was replaced while it was read. Nothing was written; reading again helps."""

    exit_code = 75


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
    """The bytes do not have the size or the checksum that the store states."""
