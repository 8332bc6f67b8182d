"""Read checksums from ETags.

The ETag of an object that was uploaded with one request is the MD5 of its bytes. After an upload in parts it has
another form. With a managed encryption key (SSE-KMS, SSE-C) it looks like an MD5 but is not the MD5 of the bytes.
"""

import hashlib
import re
from collections.abc import Iterable

_MD5 = re.compile(r"[0-9a-f]{32}")


def md5_in(etag: str | None) -> str | None:
    """Return the ETag if it has the form of an MD5, else None."""
    return etag if etag is not None and _MD5.fullmatch(etag) else None


def md5_of(chunks: Iterable[bytes | memoryview]) -> str:
    """Return the MD5 of the chunks in hex. It detects accidental changes, not malicious ones."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
