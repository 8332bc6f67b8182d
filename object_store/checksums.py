"""What an ETag says about the bytes.

The ETag of an object that was uploaded in one piece is the MD5 of its bytes; in parts, it has another form.
With a managed encryption key (SSE-KMS, SSE-C) it looks like an MD5 and is none.
"""

import hashlib
import re
from collections.abc import Iterable

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
