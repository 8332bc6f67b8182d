"""The current state of an installation's node pools: nodes, GPUs and runs.

Only callers with permission to list them see nodes and the pods of other namespaces. Everything else is None, and shown
as unknown.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from run_config.installation import Installation, NodePool
from run_config.parameters import TEMPLATES
from run_config.wording import aligned, shortened
from workflows.cluster.errors import ForbiddenError, NotThereError
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.nodes import (
    Tolerations,
    allocatable,
    is_ready,
    labels_of,
    quantity,
    untolerated_by_any,
)
from workflows.cluster.objects import Container, Node, Pod
from workflows.cluster.pod_needs import TRAINING, PodNeeds, TemplateNeeds, needs_of

Seen = TypeVar("Seen")

UNLIMITED = 1_000_000
"""The chart's value for a pool without a limit, if another pool has a limit."""

_OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class PoolState:
    """The state of one pool. None: the caller may not see it."""

    name: str
    title: str
    label: str
    gpu_resource: str
    gpu_count: int
    """The largest number of GPUs that one run may request."""
    limit: int | None
    """The largest number of training pods at a time. None: no limit."""
    held: int | None
    waiting: int | None
    nodes: int | None = None
    nodes_ready: int | None = None
    """The number of nodes that are ready and not cordoned."""
    nodes_tainted: tuple[str, ...] | None = ()
    """The ready nodes whose taints keep training pods away. None: the tolerations of training pods are unknown."""
    gpus: int | None = None
    """The number of GPUs on ready nodes that accept training pods."""
    gpus_free: int | None = None
    largest_free: int | None = None
    """The largest number of free GPUs on one node: a pod cannot use two nodes."""
    not_tolerated: tuple[str, ...] | None = ()
    """The taints of `nodes_tainted`. None: the tolerations of training pods are unknown."""


def training_pods(templates: Iterable[TemplateNeeds]) -> list[PodNeeds]:
    """The pods that run in a node pool."""
    return [pod for template in templates for pod in template.pods if pod.role == TRAINING]


def find_training_pods(cluster: Kubernetes) -> list[PodNeeds]:
    """The training pods of all templates that exist and may be read."""
    found = []
    for name in TEMPLATES:
        try:
            found.append(needs_of(cluster.template(name)))
        except (NotThereError, ForbiddenError):
            continue
    return training_pods(found)


def pool_states(
    cluster: Kubernetes, installation: Installation, entries: Mapping[str, str], training: Sequence[PodNeeds]
) -> list[PoolState]:
    """The state of every pool of the installation. `entries`: the data of its ConfigMap.

    `training`: the pods that run in a pool. If it is empty, only the tolerations of the pools are known, and not those
    that the chart may add.
    """
    nodes, pods = _seen(cluster.nodes), _seen(cluster.pods_everywhere)
    holding, waiting = _semaphores(cluster)
    tolerations: list[Tolerations] = [pod.tolerations for pod in training]
    if not training:
        tolerations = [[toleration for pool in installation.node_pools for toleration in pool.tolerations]]
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
            own = [one for one in nodes if labels_of(one).get(installation.node_pool_label) == pool.label_value]
            state = _with_nodes(state, own, pods, tolerations, whole=bool(training))
        states.append(state)
    return states


def _seen(read: Callable[[], list[Seen]]) -> list[Seen] | None:
    try:
        return read()
    except ForbiddenError:
        return None


def _limit(pool: NodePool, text: str | None) -> int | None:
    """The controller's limit. It reads the ConfigMap while it runs, so the limit may differ from the settings."""
    number = int(text) if text is not None and text.strip().isdigit() else pool.limit
    return None if number is None or number >= UNLIMITED else number


def _semaphores(cluster: Kubernetes) -> tuple[Counter[str] | None, Counter[str] | None]:
    """Key of the ConfigMap → number of steps that hold it, and number of steps that wait for it."""
    try:
        workflows = list(cluster.workflows(unfinished=True))
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
                # A waiting entry lists the holders it waits for. Each workflow waits with one step at a time.
                counter[key] += len(one.get("holders") or ()) if part == "holding" else 1
    return holding, waiting


def _with_nodes(
    state: PoolState,
    nodes: Sequence[Node],
    pods: Sequence[Pod] | None,
    tolerations: Sequence[Tolerations],
    *,
    whole: bool,
) -> PoolState:
    """Add the state of the nodes. `whole`: the tolerations of the training pods are completely known."""
    ready = [node for node in nodes if is_ready(node)]
    taints = {node.metadata.name: found for node in ready if (found := untolerated_by_any(node, tolerations))}
    known = whole or not taints
    usable = [node for node in ready if not whole or node.metadata.name not in taints]
    free = None
    if pods is not None:
        free = [_gpus(node, state.gpu_resource) - _taken(node, pods, state.gpu_resource) for node in usable]
    return replace(
        state,
        nodes=len(nodes),
        nodes_ready=len(ready),
        nodes_tainted=tuple(sorted(taints)) if known else None,
        gpus=sum(_gpus(node, state.gpu_resource) for node in usable),
        gpus_free=None if free is None else sum(free),
        largest_free=None if free is None else max(free, default=0),
        not_tolerated=tuple(sorted(set().union(*taints.values()))) if known else None,
    )


def _gpus(node: Node, resource: str) -> int:
    return int(allocatable(node, resource))


def _taken(node: Node, pods: Iterable[Pod], resource: str) -> int:
    return sum(
        _asked(pod, resource)
        for pod in pods
        if pod.spec.node_name == node.metadata.name and pod.status.phase not in _OVER
    )


def _asked(pod: Pod, resource: str) -> int:
    """The amount that a pod reserves: the sum over its containers, or its largest init container if larger."""

    def limits(containers: Iterable[Container] | None) -> list[int]:
        return [int(quantity((one.resources.limits or {}).get(resource))) for one in containers or ()]

    return max(sum(limits(pod.spec.containers)), max(limits(pod.spec.init_containers), default=0))


HEAD = ("POOL", "TITLE", "NODES", "GPUS", "GPUS PER RUN", "RUNS", "TAINTS")


def table(states: Sequence[PoolState]) -> list[str]:
    """Format the pools as lines of text."""
    lines = aligned([HEAD, *(_row(state) for state in states)])
    if any(state.nodes is None for state in states):
        lines.append("nodes unknown: no permission to list nodes")
    elif any(state.gpus_free is None for state in states):
        lines.append("free GPUs unknown: no permission to list the pods of all namespaces")
    if any(state.nodes is not None and state.not_tolerated is None for state in states):
        lines.append("taints unknown: the templates of the training pods are missing or cannot be read")
    if any(state.held is None for state in states):
        lines.append("runs unknown: no permission to list the workflows of the namespace")
    return lines


def _row(state: PoolState) -> tuple[str, ...]:
    if state.nodes is None:
        nodes = gpus = taints = "unknown"
    else:
        nodes = f"{state.nodes_ready} of {state.nodes} ready" if state.nodes else "none"
        gpus = f"{state.gpus}, " + ("free unknown" if state.gpus_free is None else f"{state.gpus_free} free")
        taints = _taints(state) if state.nodes else "-"
    return (state.name, state.title or "-", nodes, gpus, f"up to {state.gpu_count}", _runs(state), taints)


def _taints(state: PoolState) -> str:
    if state.not_tolerated is None or state.nodes_tainted is None:
        return "unknown"
    if not state.nodes_tainted:
        return "tolerated"
    return f"not tolerated: {', '.join(state.not_tolerated)} ({shortened(state.nodes_tainted)})"


def _runs(state: PoolState) -> str:
    """The number of runs in the pool, and its limit."""
    if state.limit is None:
        return "no limit"
    if state.held is None:
        return f"unknown of {state.limit}"
    return f"{state.held} of {state.limit}" + (f", {state.waiting} waiting" if state.waiting else "")
