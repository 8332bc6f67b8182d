"""Bytes in and out of `s3://bucket/prefix` and `file:///path`: many at once, verified, never half there.

`open_store(url)` gives an `ObjectStore`; its methods are the whole interface and mean the same for both
kinds. Everything is synchronous and safe to call from several threads. What can go wrong is a
`StoreError` whose message names the URL and what to check. Knows nothing of data sets or training.
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
