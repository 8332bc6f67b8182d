"""Preflight: whether the store has the published weights of the default models, and how the last download ended."""

import shlex
from collections.abc import Iterator

from object_store import StoreError, open_store
from published_weights.stored import names
from run_config.installation import Installation
from run_config.parameters import WEIGHTS_TEMPLATE
from run_config.weights.catalogue import names_in, on_offer
from workflows.cluster.preflight.findings import Finding, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot
from workflows.cluster.preflight.store import PATIENCE_S, has_credentials, name_store
from workflows.cluster.run_metadata import template_of
from workflows.cluster.run_status import read_status

SUBJECT = "published weights"


def weights(snapshot: Snapshot) -> Iterator[Finding]:
    """Look for the weights of the default models in the store."""
    if WEIGHTS_TEMPLATE not in snapshot.templates or snapshot.installation is None:
        return  # other checks say so
    wanted = _wanted(snapshot, snapshot.installation)
    missing = _missing(snapshot, snapshot.installation, wanted)
    if missing is None:
        yield unknown(
            SUBJECT,
            f"the store cannot be read from here, so whether it has {', '.join(wanted)} is not known",
            f"`{_command(snapshot, wanted)}` brings those that are missing",
        )
    elif missing:
        yield warn(
            SUBJECT,
            f"the store has no {', '.join(missing)}: runs cannot start from them",
            f"`{_command(snapshot, missing)}` brings them",
        )
    else:
        yield ok(SUBJECT, f"the store has {', '.join(wanted)}")


def _wanted(snapshot: Snapshot, installation: Installation) -> list[str]:
    """The default of the parameter `weights`, and the weights of the default model if they are published."""
    default = _default(snapshot, WEIGHTS_TEMPLATE, "weights")
    model = _default(snapshot, "detr-train", "model")
    published = on_offer(installation.weights.allowed_licences)
    return list(dict.fromkeys([*names_in(default), *([model] if model in published else [])]))


def _default(snapshot: Snapshot, template: str, name: str) -> str:
    found = snapshot.templates.get(template)
    argument = found.arguments.get(name) if found else None
    return (argument.default if argument else None) or ""


def _missing(snapshot: Snapshot, installation: Installation, wanted: list[str]) -> list[str] | None:
    """The wanted weights that the store does not have. None: the caller cannot read the store."""
    if not has_credentials() or snapshot.entries is None:
        return None
    name_store(snapshot.entries)
    try:
        there = set(names(open_store(installation.store, retry_for_s=PATIENCE_S)))
    except StoreError:
        return None
    return [name for name in wanted if name not in there]


def _command(snapshot: Snapshot, wanted: list[str]) -> str:
    given = shlex.quote(f"weights={' '.join(wanted)}")
    return f"detr-workflows submit {WEIGHTS_TEMPLATE} --namespace {snapshot.namespace} -p {given}"


def downloads(snapshot: Snapshot) -> Iterator[Finding]:
    """Say why the last download failed, if it did."""
    found = [one for one in snapshot.cluster.workflows() if template_of(one) == WEIGHTS_TEMPLATE]
    last = max(found, key=lambda one: str(one["metadata"].get("creationTimestamp") or ""), default=None)
    status = read_status(last) if last is not None else None
    if status is not None and status.reason():
        yield warn(
            f"download {status.name}",
            " ".join(status.reason().split()),
            "a mirror or a proxy is set in the chart's values (weights.endpoint, weights.mirror, "
            "roles.weights.extraEnv); without internet: `detr-workflows weights import`",
        )
