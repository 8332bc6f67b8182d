"""Open the store of a URL."""

import re
from pathlib import Path
from urllib.parse import unquote

from object_store.errors import InvalidUrl, StoreError
from object_store.interface import ObjectStore
from object_store.keys import check_prefix
from object_store.local_store import LocalStore

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
RETRY_FOR_S = 60.0


def open_store(url: str | Path, *, retry_for_s: float = RETRY_FOR_S) -> ObjectStore:
    """Open `s3://bucket/prefix`, `file:///path` or a plain local path as the root of all keys.

    Nothing is read or written yet: a wrong bucket or missing credentials are reported at the first use. `retry_for_s`
    limits how long a request to S3 is retried after temporary faults.
    """
    text = str(url)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise InvalidUrl("the store's URL is empty: give s3://bucket/prefix, file:///path or a folder")
        return LocalStore(Path(text).expanduser())
    if scheme == "file":
        return LocalStore(_path_of_file_url(text, rest))
    if scheme == "s3":
        return _open_s3(text, rest, retry_for_s)
    raise InvalidUrl(f"{text}: only s3://bucket/prefix, file:///path and plain paths can be opened")


def _path_of_file_url(url: str, rest: str) -> Path:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidUrl(f"{url}: a file URL has three slashes and an absolute path: file:///path")
    return Path(unquote("/" + path))


def _open_s3(url: str, rest: str, retry_for_s: float) -> ObjectStore:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidUrl(f"{url}: {bucket!r} is not the name of a bucket: give s3://bucket/prefix")
    try:
        prefix = check_prefix(prefix)
    except StoreError as error:
        raise InvalidUrl(f"{url}: {error}") from None
    # boto3 and obstore take a third of a second to import, so they are imported only for S3.
    from object_store.s3_connection import S3Connection
    from object_store.s3_store import S3Store

    return S3Store(S3Connection(bucket, retry_for_s=retry_for_s), prefix)
