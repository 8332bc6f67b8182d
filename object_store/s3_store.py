"""`s3://`: a bucket, or a prefix of a bucket, as a store.

Memory: downloads go to the disk in chunks of 256 KiB, 16 at a time. Uploads need at most 16 small files of up to 8 MiB,
or the parts of one large file: 4 parts of 16 MiB being sent and one being read (80 MiB). `get_bytes` and `put_bytes`
hold the whole object.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import obstore
import obstore.exceptions

from object_store.errors import AlreadyExists, Corrupted, StoreError
from object_store.interface import ObjectInfo, ObjectStore, Progress
from object_store.keys import check_key, check_prefix, is_leftover, join
from object_store.parallel import Task
from object_store.partial_file import PartialFiles
from object_store.s3_connection import S3Connection
from object_store.s3_download import Download, read_range
from object_store.s3_errors import answer_in, cut_short
from object_store.s3_upload import SINGLE_UPLOAD_BYTES, put_object, upload_file

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ListObjectsV2RequestTypeDef

LIST_PAGE = 1000  # S3's limit for one response
DELETE_BATCH = 1000  # S3's limit for one request


class S3Store(ObjectStore):
    """All keys below `s3://bucket/prefix`."""

    workers = 16

    def __init__(self, connection: S3Connection, prefix: str) -> None:
        """`prefix` is already checked and has no trailing slash. "" means the whole bucket."""
        self._connection = connection
        self._prefix = prefix

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{join(self._connection.bucket, self._prefix)}"

    def child(self, prefix: str) -> Self:
        """Return the store whose root is `prefix` below this one."""
        return type(self)(self._connection, join(self._prefix, check_prefix(prefix)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects below the prefix in the order of the server, which S3 defines as sorted.

        Two kinds are left out: the empty "folders" that consoles create (keys with a trailing slash), and our own
        unfinished files. Keys that this package refuses elsewhere are listed unchanged.
        """
        start = len(self._prefix) + 1 if self._prefix else 0
        for info in self._list_full(join(self._prefix, check_prefix(prefix))):
            if not info.key.endswith("/") and not is_leftover(info.key):
                yield ObjectInfo(info.key[start:], info.size_bytes, info.etag, info.last_modified)

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        full, url = self._locate(key)

        def ask() -> ObjectInfo:
            try:
                meta = obstore.head(self._connection.reader, full)
            except (FileNotFoundError, obstore.exceptions.BaseError) as error:
                # A HEAD response has no body and so no error message. GET has one.
                if answer_in(str(error)).status not in range(400, 500):
                    raise
                meta = obstore.get(self._connection.reader, full).meta
            etag = (meta["e_tag"] or "").strip('"') or None
            return ObjectInfo(key, meta["size"], etag, meta["last_modified"])

        return self._connection.request(url, ask)

    def get_bytes(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Read a part of an object, or all of it, verified if the ETag is its MD5."""
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"not a range of bytes: {start} to {end}")
        full, url = self._locate(key)
        if start == 0 and end is None:
            return Download(self._connection, full, url).read_all()
        if end == start:
            self.head(key)  # a missing object is an error, even for an empty range
            return b""
        return read_range(self._connection, full, url, start, end)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write one object and verify it.

        `if_absent` uses `If-None-Match`. Old servers ignore that header, so the object is also looked up before the
        write. With such a server, only simultaneous writers can overwrite each other.
        """
        full, url = self._locate(key)
        if if_absent and self.exists(key):
            raise AlreadyExists(f"{url} exists")
        etag = put_object(self._connection, full, url, data, if_absent=if_absent)
        found = self.head(key)
        if found.etag == etag and found.size_bytes != len(data):
            raise Corrupted(f"{url} has {found.size_bytes} bytes after writing {len(data)}: check the server")
        # If another writer has replaced the object, this still describes what was written here.
        return ObjectInfo(key, len(data), etag, found.last_modified)

    def delete(self, keys: str | Iterable[str]) -> None:
        """Remove objects, a thousand with each request."""
        wanted = iter([keys] if isinstance(keys, str) else keys)
        while batch := [self._locate(key)[0] for key in islice(wanted, DELETE_BATCH)]:
            self._delete_batch(batch, self.url)

    def _delete_below(self, prefix: str) -> int:
        count = 0
        found = self._list_full(join(self._prefix, prefix))
        while batch := [info.key for info in islice(found, DELETE_BATCH)]:
            usual = [key for key in batch if _obstore_can_name(key)]
            if usual:
                self._delete_batch(usual, f"{self.url}/{prefix}")
            for key in set(batch).difference(usual):
                delete = partial(self._connection.client.delete_object, Bucket=self._connection.bucket, Key=key)
                self._connection.request(f"{self.url}/{prefix}", delete)
            count += sum(1 for key in batch if not key.endswith("/"))
        return count

    def _delete_batch(self, full_keys: Sequence[str], url: str) -> None:
        self._connection.request(url, lambda: obstore.delete(self._connection.writer, full_keys))

    def _list_full(self, prefix: str) -> Iterator[ObjectInfo]:
        """List with full keys, exactly as the server has them."""
        bucket, folder = self._connection.bucket, f"{prefix}/" if prefix else ""
        url = f"s3://{join(bucket, prefix)}"

        def ask() -> "ListObjectsV2OutputTypeDef":
            wanted: ListObjectsV2RequestTypeDef = {"Bucket": bucket, "Prefix": folder, "MaxKeys": LIST_PAGE}
            if token:
                wanted["ContinuationToken"] = token
            page = self._connection.client.list_objects_v2(**wanted)
            if "IsTruncated" not in page:
                raise cut_short(url, self._connection)  # boto3 reads a truncated response as an empty list
            return page

        token = ""
        while True:
            page = self._connection.request(url, ask)
            for entry in page.get("Contents", []):
                etag = entry.get("ETag", "").strip('"') or None
                yield ObjectInfo(entry["Key"], entry["Size"], etag, entry["LastModified"])
            following = page.get("NextContinuationToken", "")
            if not page.get("IsTruncated") or not following:
                return
            if following == token:
                raise StoreError(f"{url}: {self._connection.endpoint} lists the same page again: check the server")
            token = following

    def _download(
        self, wanted: str | ObjectInfo, path: Path, progress: Progress, files: PartialFiles
    ) -> Iterable[Task]:
        info = wanted if isinstance(wanted, ObjectInfo) else None
        full, url = self._locate(info.key if info else str(wanted))
        return Download(self._connection, full, url, info).to_file(path, progress, files)

    def _upload(self, path: Path, key: str, progress: Progress) -> None:
        full, url = self._locate(key)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise StoreError(f"{path} does not exist: nothing to copy to {url}") from None
        etag = upload_file(self._connection, path, full, url, progress)
        if etag is None:
            return  # verified by its checksum
        found = self.head(key)
        if found.etag == etag and found.size_bytes != status.st_size:
            raise Corrupted(f"{url} has {found.size_bytes} bytes, {path} has {status.st_size}: check the server")

    def _largest_single_upload(self) -> int:
        return SINGLE_UPLOAD_BYTES

    def _locate(self, key: str) -> tuple[str, str]:
        """Return the full key in the bucket, and the URL for messages."""
        return join(self._prefix, check_key(key)), f"{self.url}/{key}"


def _obstore_can_name(key: str) -> bool:
    """Whether obstore sends this key unchanged. It refuses or changes keys with unusual parts."""
    try:
        check_key(key)
    except StoreError:
        return False
    return True
