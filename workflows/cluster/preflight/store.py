"""Preflight: whether the store answers, with the caller's own credentials.

The pods have other credentials, so this is only a hint. The step `check` tests with the right ones.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

from workflows.cluster.preflight.findings import Finding, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot

PATIENCE_S = 60
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
    environment = store_variables(snapshot.entries) | os.environ
    command = [sys.executable, "-m", "object_store", "exists", url, "detr-workflows-preflight"]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, the store from the installation's settings
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        yield warn(subject, f"did not answer within {PATIENCE_S} s", "is it reachable from here? " + _TELLS)
        return
    if done.returncode == 0:
        yield ok(subject, "answers, with your own credentials")
        return
    sentence = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("error: ")
    yield warn(subject, f"with your own credentials: {sentence}", _TELLS)


def store_variables(entries: Mapping[str, str]) -> dict[str, str]:
    """The address of the store as environment variables, from the installation's ConfigMap."""
    known = {"AWS_ENDPOINT_URL": entries.get("s3-endpoint"), "AWS_REGION": entries.get("s3-region")}
    return {variable: text for variable, text in known.items() if text}


def has_credentials() -> bool:
    """Whether this machine has credentials for a store. Without them, a client would search the network for them."""
    if any(os.environ.get(name) for name in _OWN):
        return True
    return any(os.path.exists(os.path.expanduser(os.environ.get(name) or path)) for name, path in _FILES)  # noqa: PTH110, PTH111
