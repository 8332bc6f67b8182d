"""Preflight: whether each step's pod fits on some node at all.

A step is compared with everything that a node offers, because other pods will end and release their resources.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from run_config.installation import NodePool
from workflows.cluster.nodes import allocatable, untolerated
from workflows.cluster.objects import Node
from workflows.cluster.pod_needs import EXPRESSION, PodNeeds
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot

ON_DEMAND = "no problem if nodes are added on demand; else"


def room(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the requests of every step with the nodes that it may run on."""
    nodes = snapshot.cluster.nodes()
    pods = [pod for needs in snapshot.needs.values() for pod in needs.pods]
    # A finding about a step of several templates is reported once.
    problems = dict.fromkeys(finding for pod in pods for finding in _step(snapshot, pod, nodes))
    unseen = dict(_without_nodes(snapshot, pods, nodes))
    yield from problems
    if pods and not problems:
        fits = "every step with suitable nodes fits on one of them" if unseen else ""
        yield ok("room", fits or "every step fits on one of the nodes that it may run on")
    for pool, steps in unseen.items():
        yield unknown(
            f"room in pool {pool}",
            f"no current node accepts {' or '.join(steps)}, so there is nothing to compare",
            "see the line about the pool; compare the machines that it will get with roles.train.resources",
        )


def _step(snapshot: Snapshot, pod: PodNeeds, nodes: Sequence[Node]) -> Iterator[Finding]:
    if not _goes_to_a_pool(pod):
        yield from _placed(pod, _asks(pod, None), _with_labels(nodes, pod.node_selector), None)
    elif snapshot.installation is None:
        yield unknown(f"room for {pod.step}", "its nodes are in the settings", "see the line about the ConfigMap")
    else:
        for pool in snapshot.installation.node_pools:
            if not _nobody_takes(snapshot, pod, pool, nodes):
                yield from _placed(pod, _asks(pod, pool), _of_pool(snapshot, pod, pool, nodes), pool)


def _without_nodes(
    snapshot: Snapshot, pods: Sequence[PodNeeds], nodes: Sequence[Node]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield pools without any usable node for a step, and those steps. The finding about the pool names the reason."""
    for pool in snapshot.installation.node_pools if snapshot.installation else ():
        steps = {pod.step for pod in pods if _goes_to_a_pool(pod) and _nobody_takes(snapshot, pod, pool, nodes)}
        if steps:
            yield pool.name, sorted(steps)


def _goes_to_a_pool(pod: PodNeeds) -> bool:
    return any(value.startswith(EXPRESSION) for value in pod.node_selector.values())


def _of_pool(snapshot: Snapshot, pod: PodNeeds, pool: NodePool, nodes: Sequence[Node]) -> list[Node]:
    assert snapshot.installation is not None
    return _with_labels(nodes, {**pod.node_selector, snapshot.installation.node_pool_label: pool.label_value})


def _nobody_takes(snapshot: Snapshot, pod: PodNeeds, pool: NodePool, nodes: Sequence[Node]) -> bool:
    open_to = _open_to(pod, _of_pool(snapshot, pod, pool, nodes))
    return not open_to or bool(_nowhere(_asks(pod, pool), open_to))


def _open_to(pod: PodNeeds, nodes: Sequence[Node]) -> list[Node]:
    """The nodes whose taints the pod tolerates."""
    return [node for node in nodes if not untolerated(node, pod.tolerations)]


def _nowhere(asks: Mapping[str, Decimal], nodes: Sequence[Node]) -> list[str]:
    """The devices that none of the nodes has."""
    return [resource for resource in asks if "/" in resource and not any(allocatable(node, resource) for node in nodes)]


def _asks(pod: PodNeeds, pool: NodePool | None) -> Mapping[str, Decimal]:
    """The smallest request of the pod, by resource."""
    asks: dict[str, Decimal] = {}
    for resource in sorted(pod.resources):
        amount = pod.total("requests", resource)
        if resource.startswith(EXPRESSION):
            if pool is None:
                continue
            asks[pool.gpu_resource] = min(amount, Decimal(pool.gpu_count))
        else:
            asks[resource] = amount
    return {resource: amount for resource, amount in asks.items() if amount}


def _with_labels(nodes: Sequence[Node], selector: Mapping[str, str]) -> list[Node]:
    wanted = {key: value for key, value in selector.items() if not value.startswith(EXPRESSION)}
    return [node for node in nodes if wanted.items() <= (node.metadata.labels or {}).items()]


def _placed(
    pod: PodNeeds, asks: Mapping[str, Decimal], nodes: Sequence[Node], pool: NodePool | None
) -> Iterator[Finding]:
    """Yield a finding if the pod fits on none of the nodes."""
    subject = f"room for {pod.step}" + (f" in pool {pool.name}" if pool else "")
    role = f"roles.{pod.role}" if pod.role else "the step's role"
    open_to = _open_to(pod, nodes)
    nowhere = _nowhere(asks, open_to)
    if not nodes:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(pod.node_selector.items()))
        lacking = f"no node has the labels {labels}" if labels else "there is no node"
        yield warn(subject, lacking, f"{ON_DEMAND} fix {role}.nodeSelector or pods.nodeSelector in the chart's values")
    elif not open_to:
        taints = sorted({taint for node in nodes for taint in untolerated(node, pod.tolerations)})
        yield warn(
            subject,
            f"every node that it may run on has a taint that it does not tolerate: {', '.join(taints)}",
            f"{ON_DEMAND} add tolerations to {role}.tolerations or pods.tolerations in the chart's values",
        )
    elif nowhere:
        yield warn(
            subject,
            f"no node that it may run on has {', '.join(nowhere)}",
            f"{ON_DEMAND} install the device plugin, or set parameters.gpu-count.default to 0 to train on the CPU",
        )
    else:
        best = max(open_to, key=lambda node: _fit(node, asks))
        if _fit(best, asks) < 1:
            has = {resource: allocatable(best, resource) for resource in asks}
            yield fail(
                subject,
                f"asks for {_listed(asks)}; the largest node that it may run on, {best.metadata.name}, "
                f"has {_listed(has)}",
                f"lower {role}.resources in the chart's values, or add a larger node",
            )


def _fit(node: Node, asks: Mapping[str, Decimal]) -> Decimal:
    """How many such pods the node can hold, by its scarcest resource. Below 1: none."""
    return min((allocatable(node, resource) / amount for resource, amount in asks.items()), default=Decimal(1))


def _listed(amounts: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{resource} {_shown(resource, amount)}" for resource, amount in amounts.items())


def _shown(resource: str, amount: Decimal) -> str:
    """Format an amount. Bytes are rounded, because nodes have uneven numbers of them."""
    if resource in ("memory", "ephemeral-storage"):
        return f"{float(amount) / 2**30:.4g}Gi"
    return f"{amount.normalize():f}"
