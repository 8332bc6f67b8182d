"""Read and write objects in `s3://bucket/prefix` and `file:///path`: in parallel, verified and atomic.

`open_store(url)` returns an `ObjectStore`. Its methods are the whole interface and mean the same for both kinds of
store. All calls are synchronous and thread-safe. Errors are `StoreError`s whose message names the URL and what to
check. The package knows nothing about data sets or training.
"""

from object_store.errors import (
    AccessDenied,
    AlreadyExists,
    ClockSkew,
    Corrupted,
    InvalidKey,
    InvalidUrl,
    NoCredentials,
    NoSuchBucket,
    NoSuchKey,
    ObjectChanged,
    PassingError,
    StoreError,
    StoreUnavailable,
    WrongBytes,
    WrongCredentials,
    WrongRegion,
)
from object_store.interface import ObjectInfo, ObjectStore, Progress
from object_store.open_store import open_store

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "ClockSkew",
    "Corrupted",
    "InvalidKey",
    "InvalidUrl",
    "NoCredentials",
    "NoSuchBucket",
    "NoSuchKey",
    "ObjectChanged",
    "ObjectInfo",
    "ObjectStore",
    "PassingError",
    "Progress",
    "StoreError",
    "StoreUnavailable",
    "WrongBytes",
    "WrongCredentials",
    "WrongRegion",
    "open_store",
]
