"""Upload one object: small ones with one request, large ones in parallel parts.

An object appears when its last byte has arrived: S3 shows neither half a request nor unfinished parts.
Every request is signed with the SHA-256 of its bytes, which the server checks. What it then says it has is
compared with what was sent: by MD5 where the ETag is one, else by size.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import obstore
import obstore.exceptions

from object_store.checksums import md5_in, md5_of
from object_store.errors import Corrupted, ObjectChanged, StoreUnavailable
from object_store.interface import Progress
from object_store.s3_connection import S3Connection
from object_store.s3_errors import answer_in

SINGLE_UPLOAD_BYTES = 8 << 20
PART_BYTES = 8 << 20
PARTS_AT_ONCE = 8
MOST_PARTS = 10_000  # S3's limit
CONFLICT_ATTEMPTS = 6


def upload_file(connection: S3Connection, path: Path, full_key: str, url: str, progress: Progress) -> str | None:
    """Copy a file to the bucket; return its ETag if the size is still to be checked, else None."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size <= SINGLE_UPLOAD_BYTES:
            data = file.read(SINGLE_UPLOAD_BYTES + 1)
            _check_unchanged(file, before, len(data), url)
            etag = put_with_patience(connection, full_key, url, data, if_absent=False)
            progress(len(data))
            return None if md5_in(etag) and connection.etag_is_md5 else etag
        return _upload_parts(connection, file, full_key, url, progress)


def put_with_patience(connection: S3Connection, full_key: str, url: str, data: bytes, *, if_absent: bool) -> str | None:
    """Write an object with one request, verify its ETag and return it."""
    for attempts_left in reversed(range(CONFLICT_ATTEMPTS)):
        try:
            with connection.errors(url):
                etag = _put_once(connection, full_key, data, if_absent=if_absent)
            break
        except StoreUnavailable as error:
            # Another conditional write is on its way: S3 asks to try again, obstore does not.
            conflict = answer_in(str(error.__cause__)).code == "ConditionalRequestConflict"
            if not conflict or not attempts_left:
                raise
            time.sleep(random.uniform(0, 0.1 * 2 ** (CONFLICT_ATTEMPTS - attempts_left)))  # noqa: S311 jitter
    wanted = md5_in(etag) if connection.etag_is_md5 else None
    if wanted is not None and wanted != md5_of([data]):
        _refuse_unless_encrypted(connection, full_key, url)
    return etag


def _put_once(connection: S3Connection, full_key: str, data: bytes, *, if_absent: bool) -> str | None:
    mode: Literal["create", "overwrite"] = "create" if if_absent else "overwrite"
    try:
        return _bare(obstore.put(connection.writer, full_key, data, mode=mode, use_multipart=False)["e_tag"])
    except obstore.exceptions.AlreadyExistsError as error:
        # Where the answer to our own successful request was lost, its repetition meets our own object.
        if re.search(r"\bretries: [1-9]", str(error)):
            found = _bare(obstore.head(connection.reader, full_key)["e_tag"])
            if found == md5_of([data]):
                return found
        raise


def _upload_parts(connection: S3Connection, file: BinaryIO, full_key: str, url: str, progress: Progress) -> str | None:
    """Upload in parallel parts and return the ETag.

    obstore signs each part with its SHA-256, and the server refuses a part that arrives otherwise. An MD5
    of our own beside it costs a fifth of the speed where processors are few, and would find nothing more.
    """
    before = os.fstat(file.fileno())
    part_bytes = max(PART_BYTES, -(-before.st_size // MOST_PARTS))

    def parts() -> Iterator[bytes]:
        sent = 0
        # A file that grows as fast as it is read must not be read for ever.
        while sent <= before.st_size and (part := file.read(part_bytes)):
            yield part
            # obstore asks for the next part when there is room for it: this one is on its way.
            sent += len(part)
            progress(len(part))
        # An error here makes obstore abort the upload: nothing appears.
        _check_unchanged(file, before, sent, url)

    with connection.errors(url):
        result = obstore.put(
            connection.writer,
            full_key,
            parts(),
            use_multipart=True,
            chunk_size=part_bytes,
            max_concurrency=max(1, min(PARTS_AT_ONCE, PARTS_AT_ONCE * PART_BYTES // part_bytes)),
        )
    return _bare(result["e_tag"])


def _check_unchanged(file: BinaryIO, before: os.stat_result, size: int, url: str) -> None:
    after = os.fstat(file.fileno())
    if size != before.st_size or (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
        raise ObjectChanged(f"{file.name} changed while it was read: nothing was written to {url}")


def _refuse_unless_encrypted(connection: S3Connection, full_key: str, url: str) -> None:
    """After a mismatch: an error, unless the bucket's encryption explains it."""
    with connection.errors(url):
        if connection.encrypts(full_key):
            connection.etag_is_md5 = False
            return
    raise Corrupted(
        f"{url}: the store's MD5 is not that of the bytes that were sent: check proxies between here and "
        "the store, and write it again"
    )


def _bare(etag: str | None) -> str | None:
    """Return an ETag without its quotes."""
    return etag.strip('"') if etag else None
