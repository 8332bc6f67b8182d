"""Upload one object: small objects with one request, large objects in parallel parts.

An object appears only when its last byte has arrived: S3 shows neither partial requests nor unfinished parts. Every
request is signed with the SHA-256 of its bytes, which the server checks. The server's response is compared with what
was sent: by MD5 if the ETag is one, otherwise by size.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import obstore

from object_store.checksums import md5_in, md5_of
from object_store.errors import AlreadyExists, Corrupted, NoSuchKey, ObjectChanged, StoreError, StoreUnavailable
from object_store.interface import Progress
from object_store.parallel import Task, run_all
from object_store.s3_connection import S3Connection
from object_store.s3_download import Download
from object_store.s3_errors import answer_in, cut_short

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

SINGLE_UPLOAD_BYTES = 8 << 20
PART_BYTES = 16 << 20
PARTS_AT_ONCE = 4
MOST_PARTS = 10_000  # S3's limit


def upload_file(connection: S3Connection, path: Path, full_key: str, url: str, progress: Progress) -> str | None:
    """Copy a file to the bucket. Return its ETag if the size still has to be checked, else None."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size <= SINGLE_UPLOAD_BYTES:
            data = file.read(SINGLE_UPLOAD_BYTES + 1)
            _check_unchanged(file, before, len(data), url)
            etag = put_object(connection, full_key, url, data, if_absent=False)
            progress(len(data))
            return None if md5_in(etag) and connection.etag_is_md5 else etag
        return _upload_parts(connection, file, full_key, url, progress)


def put_object(connection: S3Connection, full_key: str, url: str, data: bytes, *, if_absent: bool) -> str | None:
    """Write an object with one request. Verify its ETag and return it."""
    mode: Literal["create", "overwrite"] = "create" if if_absent else "overwrite"
    maybe_written = False  # by an attempt whose response was lost

    def ask() -> str | None:
        nonlocal maybe_written
        try:
            with connection.errors(url):
                result = obstore.put(connection.writer, full_key, data, mode=mode, use_multipart=False)
        except AlreadyExists:
            # A retry of our own successful request finds our own object.
            stored = Download(connection, full_key, url)
            if maybe_written and stored.read_all() == data:
                return stored.etag
            raise
        except StoreUnavailable as error:
            # A conflict is reported before anything is written: another writer was first.
            if answer_in(str(error.__cause__)).code != "ConditionalRequestConflict":
                maybe_written = True
            raise
        return _bare(result["e_tag"])

    etag = connection.request(url, ask)
    wanted = md5_in(etag) if connection.etag_is_md5 else None
    if wanted is not None and wanted != md5_of([data]):
        _refuse_unless_encrypted(connection, full_key, url)
    return etag


def _upload_parts(connection: S3Connection, file: BinaryIO, full_key: str, url: str, progress: Progress) -> str | None:
    """Upload in parallel parts and return the ETag. Each part is retried separately.

    boto3 signs each part with its SHA-256, and the server refuses a part that differs. So an additional MD5 would find
    nothing more.
    """
    before = os.fstat(file.fileno())
    part_bytes = max(PART_BYTES, -(-before.st_size // MOST_PARTS))
    upload = _Multipart(connection, full_key, url)
    try:
        sent = 0

        def parts() -> Iterator[Task]:
            nonlocal sent
            # A file that grows as fast as it is read must not be read forever.
            while sent <= before.st_size and (part := file.read(part_bytes)):
                sent += len(part)
                yield partial(upload.put_part, -(-sent // part_bytes), part, progress)

        run_all(parts(), max(1, min(PARTS_AT_ONCE, PARTS_AT_ONCE * PART_BYTES // part_bytes)))
        _check_unchanged(file, before, sent, url)
        return upload.complete()
    except BaseException:
        upload.abort()
        raise


class _Multipart:
    """A started multipart upload. The object does not exist before `complete`."""

    def __init__(self, connection: S3Connection, full_key: str, url: str) -> None:
        self._connection, self._url = connection, url
        self._bucket, self._key = connection.bucket, full_key
        self._etags: dict[int, str] = {}

        def begin() -> str:
            answer = connection.client.create_multipart_upload(Bucket=self._bucket, Key=self._key)
            return self._stated(answer.get("UploadId"))

        self._id = connection.request(url, begin)

    def put_part(self, number: int, data: bytes, progress: Progress) -> Iterable[Task]:
        """Upload one part. Numbers begin at 1."""

        def ask() -> str:
            client = self._connection.client
            answer = client.upload_part(
                Bucket=self._bucket, Key=self._key, UploadId=self._id, PartNumber=number, Body=data
            )
            return self._stated(answer.get("ETag"))

        self._etags[number] = self._connection.request(self._url, ask)
        progress(len(data))
        return ()

    def complete(self) -> str:
        """Combine the parts into the object and return its ETag."""
        parts: list[CompletedPartTypeDef] = [
            {"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())
        ]
        maybe_done = False  # by an attempt whose response was lost

        def ask() -> str:
            nonlocal maybe_done
            client = self._connection.client
            try:
                with self._connection.errors(self._url):
                    answer = client.complete_multipart_upload(
                        Bucket=self._bucket, Key=self._key, UploadId=self._id, MultipartUpload={"Parts": parts}
                    )
            except StoreUnavailable:
                maybe_done = True
                raise
            except NoSuchKey:
                # The upload does not exist any more: our earlier attempt has completed it.
                if not maybe_done:
                    raise
                found = client.head_object(Bucket=self._bucket, Key=self._key)
                return self._stated(found.get("ETag"))
            maybe_done = True
            return self._stated(answer.get("ETag"))

        return self._connection.request(self._url, ask)

    def abort(self) -> None:
        """Remove the parts. If this fails too, a lifecycle rule of the bucket has to remove them."""
        with suppress(StoreError), self._connection.errors(self._url):
            self._connection.client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._id)

    def _stated(self, value: str | None) -> str:
        """Return a value that S3 always sends, without quotes. A truncated response lacks it."""
        if not value:
            raise cut_short(self._url, self._connection)
        return value.strip('"')


def _check_unchanged(file: BinaryIO, before: os.stat_result, size: int, url: str) -> None:
    after = os.fstat(file.fileno())
    if size != before.st_size or (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
        raise ObjectChanged(f"{file.name} changed while it was read: nothing was written to {url}")


def _refuse_unless_encrypted(connection: S3Connection, full_key: str, url: str) -> None:
    """After a mismatch: raise `Corrupted`, unless the encryption of the bucket explains it."""
    if connection.encrypts(full_key, url):
        connection.etag_is_md5 = False
        return
    raise Corrupted(
        f"{url}: the store's MD5 is not that of the bytes that were sent: check proxies between here and the store"
    )


def _bare(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None
