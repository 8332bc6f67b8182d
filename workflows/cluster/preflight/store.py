"""Preflight: whether the store answers, with the caller's own credentials.

The pods have other credentials, so this is only a hint. The step `check` tests with the right ones.
"""

import os
from collections.abc import Iterator, Mapping

from object_store import StoreError, open_store
from workflows.cluster.preflight.findings import Finding, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot

PATIENCE_S = 10.0
_OWN = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
_TELLS = "the step check tests this with the credentials of the pods"


def store(snapshot: Snapshot) -> Iterator[Finding]:
    """Request an object that need not exist."""
    if snapshot.installation is None or snapshot.entries is None:
        yield unknown("store", "the settings cannot be read", _TELLS)
        return
    url = snapshot.installation.store
    subject = f"store {url}"
    if not has_credentials():
        yield unknown(subject, "you have no credentials for it on this machine", _TELLS)
        return
    name_store(snapshot.entries)
    try:
        open_store(url, retry_for_s=PATIENCE_S).exists("detr-workflows-preflight")
    except StoreError as error:
        yield warn(subject, f"with your own credentials: {error}", _TELLS)
    else:
        yield ok(subject, "answers, with your own credentials")


def name_store(entries: Mapping[str, str]) -> None:
    """Set the address of the store in the environment of this process, from the installation's ConfigMap."""
    for variable, key in (("AWS_ENDPOINT_URL", "s3-endpoint"), ("AWS_REGION", "s3-region")):
        if entries.get(key):
            os.environ.setdefault(variable, entries[key])


def has_credentials() -> bool:
    """Whether this machine has credentials for a store. Without them, a client would search the network for them."""
    if any(os.environ.get(name) for name in _OWN):
        return True
    return any(os.path.exists(os.path.expanduser(os.environ.get(name) or path)) for name, path in _FILES)  # noqa: PTH110, PTH111
