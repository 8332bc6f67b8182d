"""Turn `OSError`s into `StoreError`s that name the file and what to check."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from object_store.errors import AccessDenied, StoreError, StoreUnavailable

_DISK = {errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ENOLCK}
_NETWORK = {errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET}
_CONNECTION = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN}
_BUSY = {errno.EAGAIN, errno.EINTR, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_PASSING = _DISK | _NETWORK | _CONNECTION | _BUSY
_FULL = {errno.ENOSPC, errno.EDQUOT}
_IN_THE_WAY = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}


@contextmanager
def file_errors(place: Path) -> Iterator[None]:
    """Raise a `StoreError` for each `OSError`. `place` is used when the error names no file."""
    try:
        yield
    except OSError as error:
        raise explain(error, place) from error


def explain(error: OSError, place: Path) -> StoreError:
    """Return the `StoreError` that explains an `OSError` to a person."""
    path = error.filename2 or error.filename or place
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreError(f"{path}: {reason}: free some space or choose another folder")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return AccessDenied(f"{path}: {reason}: check the owner and the permissions of it and its folder")
    if error.errno in _PASSING:
        return StoreUnavailable(f"{path}: {reason}: check the disk or network share")
    if error.errno in _IN_THE_WAY:
        return StoreError(f"{path}: {reason}: in a folder the same name cannot be both a file and a folder; rename one")
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(f"{path}: {reason}: a file name has at most 255 bytes")
    return StoreError(f"{path}: {reason}")
