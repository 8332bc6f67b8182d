"""How a path that a person typed becomes the URL of an object or a prefix.

Only text is looked at: nothing is opened, so the rule is the same on a laptop and in a cluster. Every URL that comes
from here has one spelling, so that "is it below this prefix" can be answered by comparing texts.
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from run_config.errors import ConfigError

SCHEMES = ("s3", "file")


def store_url(text: str) -> str:
    """The URL of a store's root, without a slash at its end; a plain local path becomes `file://`."""
    if "://" not in text:
        return Path(os.path.abspath(Path(text).expanduser())).as_uri()  # noqa: PTH100 - links are kept as they are
    return checked_url(text)


def resolve(text: str, store: str) -> str:
    """The URL of what `text` names: a URL as it is, an absolute path as `file://`, else a key below `store`.

    An absolute path is normalised as a shell does it. Raises ConfigError: an unknown scheme, no bucket, or a URL or key
    that `leads_elsewhere`.
    """
    if "://" in text:
        return checked_url(text)
    if text.startswith("/"):
        return Path(os.path.normpath("/" + text.lstrip("/"))).as_uri()
    key = key_below_store(text)
    return f"{store.rstrip('/')}/{quote(key) if store.startswith('file://') else key}"


def key_below_store(text: str) -> str:
    """A key or prefix, without slashes at its ends.

    Raises ConfigError: a key that is empty or absolute, or `leads_elsewhere`.
    """
    if text.startswith("/") or "://" in text:
        raise ConfigError(f"{text!r} must be a key below the store, such as workflow-data/output, not an absolute path")
    key = text.rstrip("/")
    if leads_elsewhere(key):
        raise ConfigError(f"{text!r} must be a key below the store, without empty parts, '.' or '..'")
    return key


def leads_elsewhere(path: str) -> bool:
    """Whether a part of a path is empty, `.` or `..`, also percent-encoded.

    Such a path may be another place than its text says, and lie outside the prefix that it begins with.
    """
    return "" in path.split("/") or not {".", ".."}.isdisjoint(unquote(path).split("/"))


def is_below(place: str, prefix: str) -> bool:
    """Whether a URL or key is `prefix` or lies below it: whole parts of a path count."""
    place, prefix = place.rstrip("/"), prefix.rstrip("/")
    return place == prefix or place.startswith(f"{prefix}/")


def overlaps(one: str, other: str) -> bool:
    """Whether one of two URLs is the other or lies below it, whatever is percent-encoded."""
    one, other = unquote(one), unquote(other)
    return is_below(one, other) or is_below(other, one)


def local_path(url: str) -> Path | None:
    """The local path of a `file://` URL; None for any other."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def checked_url(text: str) -> str:
    """An `s3://` or `file://` URL in its one spelling: no slash at its end, and only needed percent-encoding.

    Raises ConfigError: another scheme, no bucket, no absolute path, or a path that `leads_elsewhere`.
    """
    scheme, _, rest = text.partition("://")
    if scheme not in SCHEMES:
        raise ConfigError(f"{text!r}: the scheme must be one of s3:// and file://, not {scheme}://")
    if scheme == "file" and not rest.startswith("/"):
        raise ConfigError(f"{text!r}: a file URL has three slashes and an absolute path, file:///data/export.zip")
    if not rest.strip("/"):
        if scheme == "s3":
            raise ConfigError(f"{text!r} names no bucket: s3://bucket/prefix")
        return "file:///"
    rest = rest.rstrip("/")
    path = rest.removeprefix("/") if scheme == "file" else rest
    # A percent-encoded slash of a file URL is a slash in the path that it stands for.
    if leads_elsewhere(path) or (scheme == "file" and "" in unquote(path).split("/")):
        raise ConfigError(f"{text!r} must not have a part '..' or '.', or an empty one: write the path without it")
    return f"{scheme}://{quote(unquote_to_bytes(rest)) if scheme == 'file' else rest}"
