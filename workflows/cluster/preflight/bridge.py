"""Preflight: the bridge to CVAT, by what its own `/readyz` says about CVAT and the service account there."""

from collections.abc import Iterator

from run_config.parameters import BRIDGE_TEMPLATES
from workflows.cluster.errors import ClusterError, ForbiddenError
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown
from workflows.cluster.preflight.snapshot import Snapshot

PORT = 8080


def bridge(snapshot: Snapshot) -> Iterator[Finding]:
    """Check that the bridge is ready, and that CVAT's service account has the rights that runs need."""
    if not any(name in snapshot.trees for name in BRIDGE_TEMPLATES):
        return
    service = f"{snapshot.config_map}-bridge"
    subject = "bridge to CVAT"
    try:
        answer = snapshot.cluster.service_json(service, PORT, "readyz")
    except ForbiddenError as error:
        yield unknown(subject, str(error), f"look at /readyz of the service {service}")
        return
    except ClusterError as error:
        yield fail(subject, f"is not ready: {error}", f"look at `kubectl logs deployment/{service}` and at its /readyz")
        return
    yield ok(subject, "is ready")
    account = str(answer.get("account") or "not known")
    match account:
        case "ok":
            yield ok("CVAT's service account", "may export and annotate")
        case "not known":
            yield unknown("CVAT's service account", "could not be checked", f"look at the log of {service}")
        case _:
            yield fail("CVAT's service account", account[:500], "see docs/cvat.md, an account and its token")
