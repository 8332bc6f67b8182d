"""The node pools of an installation as they are now: nodes, GPUs, how many runs each takes.

Nodes and the pods of other namespaces are seen only by those who may list them; what is not seen is
None here and said to be unknown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightkube.resources.core_v1 import Node, Pod
from lightkube.utils.quantity import parse_quantity

from run_config.installation import Installation, NodePool
from workflows.cluster.errors import ForbiddenError
from workflows.cluster.kubernetes import Kind, Kubernetes, Workflow

UNLIMITED = 1_000_000
"""What the chart gives a pool without a limit where others have one."""

_KEEP_PODS_AWAY = ("NoSchedule", "NoExecute")
_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool. None is what the caller may not see."""

    name: str
    title: str
    label: str
    gpu_resource: str
    gpu_count: int
    """The most that one run may ask for."""
    limit: int | None
    """Training pods at a time; None where there is no limit."""
    held: int | None
    waiting: int | None
    nodes: int | None = None
    nodes_ready: int | None = None
    """Ready, and not closed to new pods."""
    gpus: int | None = None
    """On the nodes that are ready."""
    gpus_free: int | None = None
    largest_free: int | None = None
    """The most that are free on one node: a pod cannot take from two."""
    not_tolerated: tuple[str, ...] = ()
    """Taints that would keep every training pod away from a node."""


def pool_states(cluster: Kubernetes, installation: Installation, entries: Mapping[str, str]) -> list[PoolState]:
    """Every pool of the installation; `entries` are those of its ConfigMap."""
    nodes, pods = _seen(cluster, Node), _seen(cluster, Pod)
    holding, waiting = _semaphores(cluster)
    tolerations = [toleration for pool in installation.node_pools for toleration in pool.tolerations]
    states = []
    for pool in installation.node_pools:
        key = f"pool.{pool.name}"
        state = PoolState(
            name=pool.name,
            title=pool.title,
            label=f"{installation.node_pool_label}={pool.label_value}",
            gpu_resource=pool.gpu_resource,
            gpu_count=pool.gpu_count,
            limit=_limit(pool, entries.get(key)),
            held=None if holding is None else holding[key],
            waiting=None if waiting is None else waiting[key],
        )
        if nodes is not None:
            own = [one for one in nodes if _labels(one).get(installation.node_pool_label) == pool.label_value]
            state = _with_nodes(state, own, pods, tolerations)
        states.append(state)
    return states


def _seen(cluster: Kubernetes, kind: type[Kind]) -> list[Kind] | None:
    try:
        return cluster.listed(kind, everywhere=True)
    except ForbiddenError:
        return None


def _limit(pool: NodePool, text: str | None) -> int | None:
    """The number that the controller counts against: it is read while it runs, and may differ from the settings."""
    number = int(text) if text is not None and text.strip().isdigit() else pool.limit
    return None if number is None or number >= UNLIMITED else number


def _semaphores(cluster: Kubernetes) -> tuple[Counter[str] | None, Counter[str] | None]:
    """Key of the ConfigMap → how many steps hold it, and how many wait for it."""
    try:
        workflows = cluster.listed(Workflow)
    except ForbiddenError:
        return None, None
    holding: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for workflow in workflows:
        semaphore = ((workflow.get("status") or {}).get("synchronization") or {}).get("semaphore") or {}
        for counter, part in ((holding, "holding"), (waiting, "waiting")):
            for one in semaphore.get(part) or ():
                # `namespace/ConfigMap/name/pool.small`
                key = str(one.get("semaphore", "")).rpartition("/")[2]
                # Those who wait name whom they wait for; each workflow waits with one step at a time.
                counter[key] += len(one.get("holders") or ()) if part == "holding" else 1
    return holding, waiting


def _with_nodes(
    state: PoolState, nodes: Sequence[Node], pods: Sequence[Pod] | None, tolerations: Sequence[Mapping[str, Any]]
) -> PoolState:
    ready = [node for node in nodes if is_ready(node)]
    free = None
    if pods is not None:
        free = [_allocatable(node, state.gpu_resource) - _taken(node, pods, state.gpu_resource) for node in ready]
    return replace(
        state,
        nodes=len(nodes),
        nodes_ready=len(ready),
        gpus=sum(_allocatable(node, state.gpu_resource) for node in ready),
        gpus_free=None if free is None else sum(free),
        largest_free=None if free is None else max(free, default=0),
        not_tolerated=tuple(sorted({taint for node in nodes for taint in _untolerated(node, tolerations)})),
    )


def is_ready(node: Node) -> bool:
    """Whether the scheduler would put a pod there at all."""
    if node.spec is not None and node.spec.unschedulable:
        return False
    conditions = (node.status.conditions if node.status else None) or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _labels(node: Node) -> Mapping[str, str]:
    return (node.metadata.labels if node.metadata else None) or {}


def _allocatable(node: Node, resource: str) -> int:
    return _whole(((node.status.allocatable if node.status else None) or {}).get(resource))


def _taken(node: Node, pods: Iterable[Pod], resource: str) -> int:
    name = node.metadata.name if node.metadata else None
    return sum(
        _asked(pod, resource)
        for pod in pods
        if pod.spec is not None and pod.spec.nodeName == name and not (pod.status and pod.status.phase in _OVER)
    )


def _asked(pod: Pod, resource: str) -> int:
    """What a pod reserves: its containers together, or its hungriest init container."""
    assert pod.spec is not None
    main = [_whole((one.resources.limits or {}).get(resource)) for one in pod.spec.containers if one.resources]
    first = [
        _whole((one.resources.limits or {}).get(resource)) for one in pod.spec.initContainers or () if one.resources
    ]
    return max(sum(main), max(first, default=0))


def _whole(quantity: str | None) -> int:
    return int(parse_quantity(quantity) or 0)


def _untolerated(node: Node, tolerations: Sequence[Mapping[str, Any]]) -> list[str]:
    taints = (node.spec.taints if node.spec else None) or []
    return [
        f"{taint.key}={taint.value or ''}:{taint.effect}"
        for taint in taints
        # A node that is not ready or closed carries such a taint for that time; that is said already.
        if taint.effect in _KEEP_PODS_AWAY and not taint.key.startswith("node.kubernetes.io/")
        if not any(_tolerates(toleration, taint.key, taint.value or "", taint.effect) for toleration in tolerations)
    ]


def _tolerates(toleration: Mapping[str, Any], key: str, value: str, effect: str) -> bool:
    if toleration.get("effect") not in (None, "", effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", key)
    return toleration.get("key") == key and (toleration.get("value") or "") == value


HEAD = ("POOL", "TITLE", "NODES", "GPUS", "A RUN TAKES", "RUNS", "TAINTS")


def table(states: Sequence[PoolState]) -> list[str]:
    """The pools as lines of text."""
    rows = [HEAD, *(_row(state) for state in states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if any(state.nodes is None for state in states):
        lines.append("nodes unknown: no right to list nodes")
    elif any(state.gpus_free is None for state in states):
        lines.append("free GPUs unknown: no right to list the pods of all namespaces")
    if any(state.held is None for state in states):
        lines.append("runs unknown: no right to list the workflows of the namespace")
    return lines


def _row(state: PoolState) -> tuple[str, ...]:
    if state.nodes is None:
        nodes = gpus = taints = "unknown"
    else:
        nodes = f"{state.nodes_ready} of {state.nodes} ready" if state.nodes else "none"
        gpus = f"{state.gpus}, " + ("free unknown" if state.gpus_free is None else f"{state.gpus_free} free")
        taints = f"not tolerated: {', '.join(state.not_tolerated)}" if state.not_tolerated else "tolerated"
        if not state.nodes:
            taints = "-"
    return (state.name, state.title or "-", nodes, gpus, f"up to {state.gpu_count}", _runs(state), taints)


def _runs(state: PoolState) -> str:
    """How many runs hold the pool, of how many that it takes at a time."""
    if state.limit is None:
        return "no limit"
    if state.held is None:
        return f"unknown of {state.limit}"
    return f"{state.held} of {state.limit}" + (f", {state.waiting} waiting" if state.waiting else "")
