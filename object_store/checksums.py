"""What an ETag says about the bytes.

The ETag of an object that was uploaded in one piece is the MD5 of its bytes; in parts, it is the MD5 of
the parts' MD5s and their number. With a managed encryption key (SSE-KMS, SSE-C) it is neither.
"""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

HASHED_AT_ONCE = 2

_MD5 = re.compile(r"[0-9a-f]{32}")


def md5_in(etag: str | None) -> str | None:
    """Return the MD5 that the ETag has the form of, if any."""
    return etag if etag is not None and _MD5.fullmatch(etag) else None


def md5_of(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the MD5 of the chunks in hex. It guards against accidents, not against people."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


class PartsDigest:
    """Computes the ETag of an upload in parts beside the upload; a context manager."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(HASHED_AT_ONCE, thread_name_prefix="object-store-md5")
        self._digests: list[Future[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, part: bytes) -> None:
        """Take the next part; few wait here, so that memory stays bounded."""
        if len(self._digests) >= HASHED_AT_ONCE:
            self._digests[-HASHED_AT_ONCE].result()
        self._digests.append(self._threads.submit(_md5_bytes, part))

    def contradicts(self, etag: str | None) -> bool:
        """Whether an ETag of the usual form for this number of parts states other bytes.

        Stores that form their ETags in another way are not judged.
        """
        digest = md5_of(future.result() for future in self._digests)
        usual = re.fullmatch(r"([0-9a-f]{32})-(\d+)", etag or "")
        return bool(usual and int(usual[2]) == len(self._digests) and usual[1] != digest)


def _md5_bytes(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
