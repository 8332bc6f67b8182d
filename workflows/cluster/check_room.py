"""Preflight: whether there is a node that each step's pod could ever fit on.

What other pods hold does not count, they end: a step is compared with all that a node offers.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from lightkube.resources.core_v1 import Node

from run_config.installation import NodePool
from workflows.cluster.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.nodes import allocatable, labels_of, name_of, untolerated
from workflows.cluster.pod_needs import EXPRESSION, PodNeeds
from workflows.cluster.scene import Scene

ON_DEMAND = "fine where nodes come on demand; else"


def room(scene: Scene) -> Iterator[Finding]:
    """The requests of every step against the nodes that it may go to."""
    nodes = scene.cluster.listed(Node)
    # A step that several templates have is said once.
    problems = dict.fromkeys(
        finding for needs in scene.needs.values() for pod in needs.pods for finding in _step(scene, pod, nodes)
    )
    if problems:
        yield from problems
    elif scene.needs:
        yield ok("room", "every step fits on one of the nodes that it may go to")


def _step(scene: Scene, pod: PodNeeds, nodes: Sequence[Node]) -> Iterator[Finding]:
    if not any(value.startswith(EXPRESSION) for value in pod.node_selector.values()):
        yield from _placed(pod, _asks(pod, None), _with_labels(nodes, pod.node_selector), None)
    elif scene.installation is None:
        yield unknown(f"room for {pod.step}", "its nodes are in the settings", "see the line about the ConfigMap")
    else:
        for pool in scene.installation.node_pools:
            selector = {**pod.node_selector, scene.installation.node_pool_label: pool.label_value}
            yield from _placed(pod, _asks(pod, pool), _with_labels(nodes, selector), pool)


def _asks(pod: PodNeeds, pool: NodePool | None) -> Mapping[str, Decimal]:
    """The least that the pod asks for, by resource."""
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
    return [node for node in nodes if wanted.items() <= labels_of(node).items()]


def _placed(
    pod: PodNeeds, asks: Mapping[str, Decimal], nodes: Sequence[Node], pool: NodePool | None
) -> Iterator[Finding]:
    """A problem, if there is one. Of a pool without nodes, without GPUs or behind taints its own line tells."""
    subject = f"room for {pod.step}" + (f" in pool {pool.name}" if pool else "")
    role = f"roles.{pod.role}" if pod.role else "the step's role"
    open_to = [node for node in nodes if not untolerated(node, pod.tolerations)]
    nowhere = [
        resource for resource in asks if "/" in resource and not any(allocatable(node, resource) for node in open_to)
    ]
    if pool is not None and (not open_to or nowhere):
        return
    if not nodes:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(pod.node_selector.items()))
        lacking = f"no node has the labels {labels}" if labels else "there is no node"
        yield warn(subject, lacking, f"{ON_DEMAND} mend {role}.nodeSelector or pods.nodeSelector in the chart's values")
    elif not open_to:
        taints = sorted({taint for node in nodes for taint in untolerated(node, pod.tolerations)})
        yield warn(
            subject,
            f"every node that it may go to has a taint that it does not tolerate: {', '.join(taints)}",
            f"{ON_DEMAND} add tolerations to {role}.tolerations or pods.tolerations in the chart's values",
        )
    elif nowhere:
        yield warn(
            subject,
            f"no node that it may go to has {', '.join(nowhere)}",
            f"{ON_DEMAND} install the device plugin, or set parameters.gpu-count.default to 0 to train on the CPU",
        )
    else:
        best = max(open_to, key=lambda node: _fit(node, asks))
        if _fit(best, asks) < 1:
            has = {resource: allocatable(best, resource) for resource in asks}
            yield fail(
                subject,
                f"asks for {_listed(asks)}; the largest node that it may go to, {name_of(best)}, has {_listed(has)}",
                f"lower {role}.resources in the chart's values, or add a larger node",
            )


def _fit(node: Node, asks: Mapping[str, Decimal]) -> Decimal:
    """How many such pods the node could hold, by the resource that is scarcest; below 1: none."""
    return min((allocatable(node, resource) / amount for resource, amount in asks.items()), default=Decimal(1))


def _listed(amounts: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{resource} {_shown(resource, amount)}" for resource, amount in amounts.items())


def _shown(resource: str, amount: Decimal) -> str:
    """Bytes as people read them: nodes have odd numbers of them."""
    if resource in ("memory", "ephemeral-storage"):
        return f"{float(amount) / 2**30:.4g}Gi"
    return f"{amount.normalize():f}"
