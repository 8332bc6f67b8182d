"""What a node offers, and which pods it keeps away."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity  # type: ignore[import-untyped]  # the stubs lack it

from workflows.cluster.objects import Node

Tolerations = Sequence[Mapping[str, Any]]

_KEEP_PODS_AWAY = ("NoSchedule", "NoExecute")


def is_ready(node: Node) -> bool:
    """Whether the scheduler would put a pod there at all."""
    if node.spec.unschedulable:
        return False
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or ())


def labels_of(node: Node) -> Mapping[str, str]:
    """Its labels."""
    return node.metadata.labels or {}


def allocatable(node: Node, resource: str) -> Decimal:
    """What all its pods together may ask for. A resource that a node does not name it does not have."""
    return quantity((node.status.allocatable or {}).get(resource))


def quantity(text: str | None) -> Decimal:
    """A quantity of Kubernetes, such as `500m` or `2Gi`, as a number; 0 for None. ValueError: it is malformed."""
    return Decimal(0) if text is None else Decimal(parse_quantity(text))


def untolerated(node: Node, tolerations: Tolerations) -> list[str]:
    """Its taints that keep a pod with these tolerations away."""
    return [
        f"{taint.key}={taint.value or ''}:{taint.effect}"
        for taint in node.spec.taints or ()
        # A node that is not ready or closed carries such a taint for that time; that is said already.
        if taint.effect in _KEEP_PODS_AWAY and not taint.key.startswith("node.kubernetes.io/")
        if not any(_tolerates(toleration, taint.key, taint.value or "", taint.effect) for toleration in tolerations)
    ]


def untolerated_by_any(node: Node, pods: Iterable[Tolerations]) -> set[str]:
    """Its taints that keep at least one of several pods away."""
    return {taint for tolerations in pods for taint in untolerated(node, tolerations)}


def _tolerates(toleration: Mapping[str, Any], key: str, value: str, effect: str) -> bool:
    if toleration.get("effect") not in (None, "", effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value
