"""Check that a folder is writable before a long job whose results go there: a full or read-only disk fails at once."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from run_config.errors import ConfigError

# A full disk may still accept a new name or a tiny file, so the probe is larger.
PROBE_BYTES = 64 << 10

_ADVICE = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EACCES: "check the owner and the permissions of the folder, or choose another",
    errno.EPERM: "check the owner and the permissions of the folder, or choose another",
    errno.ENOTDIR: "a file is in the way; choose another folder",
    errno.EEXIST: "a file is in the way; choose another folder",
    errno.ENAMETOOLONG: "choose a shorter path; a file name has at most 255 bytes",
}


def require_writable(folder: Path, what: str) -> None:
    """Write a small file into the folder and remove it again, with all folders that were created for it.

    Raises ConfigError: beginning with `what`, such as `--out`, when the folder cannot be created or written.
    """
    made: list[Path] = []
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.append(place)
        _write_and_remove(folder / f".partial-{secrets.token_hex(8)}")
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        advice = _ADVICE.get(number or 0, "choose another folder")
        raise ConfigError(f"{what}: {folder} cannot be written: {reason}; {advice}") from error
    finally:
        for place in reversed(made):
            with contextlib.suppress(OSError):  # another process may have put a file there
                place.rmdir()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that never stands half-written under its name. A pipe or device stays what it is. Raises OSError."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    partial = path.with_name(f".partial-{secrets.token_hex(8)}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write_and_remove(probe: Path) -> None:
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    try:
        data = bytes(PROBE_BYTES)
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)  # some file systems report only here that they are full
    finally:
        os.close(handle)
        probe.unlink()
