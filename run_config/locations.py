"""How a path that a person typed becomes the URL of an object or a prefix.

Only text is looked at: nothing is opened, so the rule is the same on a laptop and in a cluster.
"""

import os
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from run_config.errors import ConfigError

SCHEMES = ("s3", "file")


def store_url(text: str) -> str:
    """The URL of a store's root, without a slash at its end; a plain local path becomes `file://`."""
    if "://" not in text:
        return Path(os.path.abspath(Path(text).expanduser())).as_uri()  # noqa: PTH100 - links are kept as they are
    return _checked_url(text)


def resolve(text: str, store: str) -> str:
    """The URL of what `text` names: a URL as it is, an absolute path as `file://`, else a key below `store`.

    Raises ConfigError: an unknown scheme, no bucket, or a key that leaves the store.
    """
    if "://" in text:
        return _checked_url(text)
    if text.startswith("/"):
        return Path(text).as_uri()
    key = key_below_store(text)
    return f"{store.rstrip('/')}/{quote(key) if store.startswith('file://') else key}"


def key_below_store(text: str) -> str:
    """A key or prefix, without slashes at its ends.

    Raises ConfigError: a key that is empty, absolute, or has a part `.` or `..`.
    """
    if text.startswith("/") or "://" in text:
        raise ConfigError(f"{text!r} must be a key below the store, such as workflow-data/output, not an absolute path")
    key = text.rstrip("/")
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts):
        raise ConfigError(f"{text!r} must be a key below the store, without empty parts, '.' or '..'")
    return key


def local_path(url: str) -> Path | None:
    """The local path of a `file://` URL; None for any other."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _checked_url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise ConfigError(f"{text!r}: the scheme must be one of s3:// and file://, not {scheme}://")
    if scheme == "file" and not rest.startswith("/"):
        raise ConfigError(f"{text!r}: a file URL has three slashes and an absolute path, file:///data/export.zip")
    if not rest.strip("/") and scheme == "s3":
        raise ConfigError(f"{text!r} names no bucket: s3://bucket/prefix")
    if ".." in PurePosixPath(unquote(rest)).parts:
        raise ConfigError(f"{text!r} must not have a part '..'")
    return text.rstrip("/") if rest.strip("/") else text
