"""Check whether a run can work in a namespace, with the caller's own permissions, and say what to fix.

Nothing is changed and no pod is started. What the caller may not see is `unknown`, never `ok`.
"""

from collections.abc import Callable, Iterator

from workflows.cluster.errors import ClusterError, ForbiddenError, NoSuchKindError
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.preflight import bridge, installation, namespace, rights, room, store, weights
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown
from workflows.cluster.preflight.snapshot import Snapshot, look

CHECKS: tuple[tuple[str, Callable[[Snapshot], Iterator[Finding]]], ...] = (
    ("your rights", rights.caller),
    ("templates", installation.templates),
    ("controller", installation.controller),
    ("settings", installation.settings),
    ("artifacts", installation.artifacts),
    ("service account", rights.service_accounts),
    ("secrets", rights.secrets),
    ("images", namespace.images),
    ("pools", namespace.pools),
    ("room", room.room),
    ("quota", namespace.quotas),
    ("limits", namespace.limit_ranges),
    ("pod security", namespace.pod_security),
    ("store", store.store),
    (weights.SUBJECT, weights.weights),
    ("downloads of weights", weights.downloads),
    ("bridge to CVAT", bridge.bridge),
)


def preflight(cluster: Kubernetes) -> Iterator[Finding]:
    """Yield each finding as soon as it is known. Without an API, a namespace or Argo, the other checks are skipped."""
    # Even a caller without the right to read the namespace gets an answer, so this shows that API and login work.
    try:
        there = cluster.has_namespace()
    except ClusterError as error:
        yield fail("API", str(error), "fix the access to the cluster: `kubectl get namespaces` must work")
        return
    yield ok("API", f"{cluster.where} answers ({cluster.access.source})")
    if there is False:
        yield fail(
            "namespace",
            f"there is no namespace {cluster.namespace}",
            "give the namespace of the installation with --namespace",
        )
        return
    try:
        snapshot = look(cluster)
    except NoSuchKindError:
        yield fail(
            "Argo", "its kinds are not defined in the cluster", "install Argo Workflows, controller and definitions"
        )
        return
    except ClusterError as error:
        yield unknown("Argo", str(error), "ask for the chart's role for clients (rbac.clientSubjects)")
        return
    yield ok("Argo", "its kinds are defined")
    for subject, check in CHECKS:
        yield from _seen(subject, check, snapshot)


def _seen(subject: str, check: Callable[[Snapshot], Iterator[Finding]], snapshot: Snapshot) -> Iterator[Finding]:
    try:
        yield from check(snapshot)
    except ForbiddenError as error:
        yield unknown(subject, str(error), "ask somebody with the permission to run this too")
    except ClusterError as error:
        yield unknown(subject, str(error), "run this again")
