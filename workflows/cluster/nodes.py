"""What a node offers, and which pods it keeps away."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from lightkube.resources.core_v1 import Node
from lightkube.utils.quantity import parse_quantity

Tolerations = Sequence[Mapping[str, Any]]

_NAMED = 8
_KEEP_PODS_AWAY = ("NoSchedule", "NoExecute")


def is_ready(node: Node) -> bool:
    """Whether the scheduler would put a pod there at all."""
    if node.spec is not None and node.spec.unschedulable:
        return False
    conditions = (node.status.conditions if node.status else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def name_of(node: Node) -> str:
    """Its name."""
    return (node.metadata.name if node.metadata else None) or ""


def enumerated(names: Sequence[str]) -> str:
    """The nodes of a line: a cluster may have hundreds."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def labels_of(node: Node) -> Mapping[str, str]:
    """Its labels."""
    return (node.metadata.labels if node.metadata else None) or {}


def allocatable(node: Node, resource: str) -> Decimal:
    """What all its pods together may ask for. A resource that a node does not name it does not have."""
    text = ((node.status.allocatable if node.status else None) or {}).get(resource)
    return parse_quantity(text) or Decimal(0)


def untolerated(node: Node, tolerations: Tolerations) -> list[str]:
    """Its taints that keep a pod with these tolerations away."""
    taints = (node.spec.taints if node.spec else None) or []
    return [
        f"{taint.key}={taint.value or ''}:{taint.effect}"
        for taint in taints
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
