"""Turn a path that a person typed into the URL of an object or a prefix.

Only the text is used and nothing is opened, so the rule is the same on a laptop and in a cluster. Every URL has exactly
one spelling, so that prefixes can be compared as texts.
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from run_config.errors import ConfigError

SCHEMES = ("s3", "file")

PUBLISHED_WEIGHTS = "weights"
"""The folder of a store with published weights. Only `detr-workflows weights` writes there."""


def store_url(text: str) -> str:
    """The URL of a store's root, without a trailing slash. A plain local path becomes a `file://` URL."""
    if "://" not in text:
        return Path(os.path.abspath(Path(text).expanduser())).as_uri()  # noqa: PTH100 - links are kept as they are
    return checked_url(text)


def resolve(text: str, store: str) -> str:
    """Turn `text` into a URL: a URL is kept, an absolute path becomes `file://`, anything else is a key below `store`.

    An absolute path is normalised as a shell does it.

    Raises ConfigError: when the scheme is unknown, the bucket is missing, or the URL or key `leads_elsewhere`.
    """
    if "://" in text:
        return checked_url(text)
    if text.startswith("/"):
        return Path(os.path.normpath("/" + text.lstrip("/"))).as_uri()
    key = key_below_store(text)
    return f"{store.rstrip('/')}/{quote(key) if store.startswith('file://') else key}"


def key_below_store(text: str) -> str:
    """A key or prefix, without a trailing slash.

    Raises ConfigError: when the key is empty or absolute, or `leads_elsewhere`.
    """
    if text.startswith("/") or "://" in text:
        raise ConfigError(f"{text!r} must be a key below the store, such as workflow-data/output, not an absolute path")
    key = text.rstrip("/")
    if leads_elsewhere(key):
        raise ConfigError(f"{text!r} must be a key below the store, without empty parts, '.' or '..'")
    return key


def key_to_write(text: str) -> str:
    """As `key_below_store`, for a prefix that runs write to.

    Raises ConfigError: also when it lies in the folder of published weights, from which every run may start.
    """
    key = key_below_store(text)
    if is_below(unquote(key), PUBLISHED_WEIGHTS):
        raise ConfigError(
            f"{text!r}: only `detr-workflows weights` and the template detr-weights write to {PUBLISHED_WEIGHTS}/; "
            "choose another prefix"
        )
    return key


def leads_elsewhere(path: str) -> bool:
    """Whether a part of the path is empty, `.` or `..`, also percent-encoded.

    Such a path may be another place than its text says, and lie outside the prefix that it begins with.
    """
    return "" in path.split("/") or not {".", ".."}.isdisjoint(unquote(path).split("/"))


def is_below(place: str, prefix: str) -> bool:
    """Whether a URL or key equals `prefix` or lies below it. Only whole parts of a path are compared."""
    place, prefix = place.rstrip("/"), prefix.rstrip("/")
    return place == prefix or place.startswith(f"{prefix}/")


def overlaps(one: str, other: str) -> bool:
    """Whether two URLs are equal or one lies below the other. Percent-encoding is ignored."""
    one, other = unquote(one), unquote(other)
    return is_below(one, other) or is_below(other, one)


def local_path(url: str) -> Path | None:
    """The local path of a `file://` URL. None: another scheme."""
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def checked_url(text: str) -> str:
    """Normalise an `s3://` or `file://` URL: no trailing slash, and only necessary percent-encoding.

    Raises ConfigError: when the scheme is another, the bucket or an absolute path is missing, or the path
    `leads_elsewhere`.
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
    # In a file URL, a percent-encoded slash is a slash of the path.
    if leads_elsewhere(path) or (scheme == "file" and "" in unquote(path).split("/")):
        raise ConfigError(f"{text!r} must not have a part '..' or '.', or an empty one: write the path without it")
    return f"{scheme}://{quote(unquote_to_bytes(rest)) if scheme == 'file' else rest}"
