"""The resources that a node offers, and the pods that it keeps away."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity  # type: ignore[import-untyped]  # the stubs lack it

from workflows.cluster.objects import Node

Tolerations = Sequence[Mapping[str, Any]]

_KEEP_PODS_AWAY = ("NoSchedule", "NoExecute")


def is_ready(node: Node) -> bool:
    """Whether the scheduler may place new pods on the node."""
    if node.spec.unschedulable:
        return False
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or ())


def allocatable(node: Node, resource: str) -> Decimal:
    """The total that all pods of the node may request. A resource that the node does not list is 0."""
    return quantity((node.status.allocatable or {}).get(resource))


def quantity(text: str | None) -> Decimal:
    """Parse a Kubernetes quantity, such as `500m` or `2Gi`. None gives 0. Raises ValueError: when it is malformed."""
    return Decimal(0) if text is None else Decimal(parse_quantity(text))


def untolerated(node: Node, tolerations: Tolerations) -> list[str]:
    """The taints of the node that keep a pod with these tolerations away."""
    return [
        f"{taint.key}={taint.value or ''}:{taint.effect}"
        for taint in node.spec.taints or ()
        # Nodes that are not ready or cordoned have such a taint temporarily; other findings report this.
        if taint.effect in _KEEP_PODS_AWAY and not taint.key.startswith("node.kubernetes.io/")
        if not any(_tolerates(toleration, taint.key, taint.value or "", taint.effect) for toleration in tolerations)
    ]


def untolerated_by_any(node: Node, pods: Iterable[Tolerations]) -> set[str]:
    """The taints of the node that keep at least one of several pods away."""
    return {taint for tolerations in pods for taint in untolerated(node, tolerations)}


def _tolerates(toleration: Mapping[str, Any], key: str, value: str, effect: str) -> bool:
    if toleration.get("effect") not in (None, "", effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value
