"""The runs of an installation: who started what, its state, AP and GPU hours.

None is a value that cannot be read: the store needs credentials, and pods need the permission to list them.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from object_store import ObjectStore, StoreError, open_store
from run_config.parameters import TEMPLATES
from run_config.weights.automatic import AUTO
from run_config.wording import aligned, shortened
from workflows.cluster.ap_so_far import read_ap
from workflows.cluster.errors import ForbiddenError
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.pod_needs import ROLE_LABEL, TRAINING
from workflows.cluster.run_metadata import SUBJECT, USED_BY, USER_NAME, annotation, argument, folder, label, template_of
from workflows.cluster.run_status import RunStatus, WorkflowNode, read_status

PAGE = 50
"""Runs per request to Kubernetes. A whole run takes tens of kilobytes."""

NODE_ID = "workflows.argoproj.io/node-id"
"""Annotation of a pod: its node in the status of the workflow."""

_CREATORS = tuple(f"workflows.argoproj.io/creator{kind}" for kind in ("-preferred-username", "-email", ""))
"""Labels that Argo's server sets, the most readable first."""

_STORE_RETRY_S = 2.0
_WIDEST = 36
UNKNOWN = "–"  # noqa: RUF001 - a dash, as tables have it
HEAD = ("NAME", "WHO", "MODEL", "DATA", "STATE", "AP", "GPU HOURS", "REASON")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. None: the value cannot be read, or there is none yet."""

    name: str
    template: str
    created: str
    who: str | None
    model: str | None
    """The preset, or the place of a trained model."""
    data: str | None
    """Tasks or a project of CVAT, exports, or a prepared set."""
    state: str
    ap: float | None
    """The AP of the finished run, or its latest AP on the validation split."""
    gpu_hours: float | None
    """The hours of all attempts of training pods, times their GPUs."""
    reason: str
    """Why the run failed, or what it waits for."""


class LatestAp:
    """Reads the AP of unfinished runs in the store. After the first `error` it reads nothing more.

    `no_access`: the error of the first read. Empty: the store may be read.
    """

    def __init__(self, no_access: str = "") -> None:
        self._no_access = no_access
        self.error = ""
        self._stores: dict[str, ObjectStore] = {}

    def of(self, run: Mapping[str, Any]) -> float | None:
        """The latest AP of a run of our templates. None: it cannot be read, or is not measured yet."""
        url, place = argument(run, "store"), folder(run)
        if not url or not place or template_of(run) not in TEMPLATES:
            return None
        self.error = self.error or self._no_access
        if self.error:
            return None
        try:
            if url not in self._stores:
                self._stores[url] = open_store(url, retry_for_s=_STORE_RETRY_S)
            found = read_ap(self._stores[url], place)
        except StoreError as error:
            self.error = str(error)
            return None
        return None if found is None else found.value


def read_runs(cluster: Kubernetes, latest_ap: LatestAp, wanted: Callable[[RunRow], bool], most: int) -> list[RunRow]:
    """The newest `most` runs that are wanted, newest first. `wanted` gets rows without AP and GPU hours."""
    trees = sorted(filter(_is_run, cluster.workflows(page=PAGE)), key=_created, reverse=True)
    runs = [(tree, status, _row(tree, status)) for tree in trees for status in [read_status(tree)]]
    runs = [run for run in runs if wanted(run[2])][:most]
    begun = _begun(cluster) if any(not status.finished for _, status, _ in runs) else {}
    rows = []
    for tree, status, row in runs:
        training = _training(tree, status)
        gpus = argument(tree, "gpu-count")
        seconds = _gpu_seconds(training, int(gpus) if gpus.isdecimal() else 0, begun)
        hours = None if seconds is None else seconds / 3600
        ap = _final_ap(status)
        if ap is None and training:
            ap = latest_ap.of(tree)
        rows.append(replace(row, ap=ap, gpu_hours=hours))
    return rows


def table(rows: Sequence[RunRow]) -> list[str]:
    """Format the runs as lines of text."""
    return aligned([HEAD, *(_cells(row) for row in rows)])


def _cells(row: RunRow) -> tuple[str, ...]:
    ap = UNKNOWN if row.ap is None else f"{row.ap:.3f}"
    hours = UNKNOWN if row.gpu_hours is None else f"{row.gpu_hours:.1f}"
    who, model, data = (_short(text) for text in (row.who, row.model, row.data))
    return (row.name, who, model, data, row.state, ap, hours, row.reason)


def _short(text: str | None) -> str:
    """The end of a long text: places differ there."""
    text = text or UNKNOWN
    return text if len(text) <= _WIDEST else f"…{text[1 - _WIDEST :]}"


def _is_run(tree: Mapping[str, Any]) -> bool:
    """Whether it is a run. Argo sets no labels on a workflow that waited for the controller's limit of workflows."""
    return USED_BY.items() <= (tree["metadata"].get("labels") or {}).items() or template_of(tree) in TEMPLATES


def _created(tree: Mapping[str, Any]) -> str:
    return str(tree["metadata"].get("creationTimestamp") or "")


def _row(tree: Mapping[str, Any], status: RunStatus) -> RunRow:
    named = (label(tree, name).replace(".at.", "@") for name in _CREATORS)
    exports = shortened(argument(tree, "cvat-annotation-path").split(), 1)
    subject = annotation(tree, SUBJECT) or argument(tree, "cvat-subject")
    return RunRow(
        name=status.name,
        template=template_of(tree),
        created=_created(tree),
        who=annotation(tree, USER_NAME) or next(filter(None, named), None),
        model=_model(tree, status) or argument(tree, "trained-model") or argument(tree, "weights") or None,
        data=subject or exports or argument(tree, "prepared-set") or None,
        state=status.state,
        ap=None,
        gpu_hours=None,
        reason=" ".join((status.reason() or status.waits_for()).split()),
    )


def _model(tree: Mapping[str, Any], status: RunStatus) -> str:
    """The parameter `model`; in place of `auto` what the step `check` chose, as soon as it has."""
    given = argument(tree, "model")
    return (status.output("model") or given) if given == AUTO else given


def _final_ap(status: RunStatus) -> float | None:
    # Another template's output of this name may be any text.
    with contextlib.suppress(KeyError, ValueError):
        return float(status.results["ap"])
    return None


def _training(tree: Mapping[str, Any], status: RunStatus) -> list[WorkflowNode]:
    """All attempts of steps that run in a node pool. Those of third-party templates are known by their GPUs."""
    templates = ((tree.get("status") or {}).get("storedWorkflowTemplateSpec") or {}).get("templates") or ()
    roles = {one["name"]: ((one.get("metadata") or {}).get("labels") or {}).get(ROLE_LABEL) for one in templates}
    pods = [node for node in status.nodes.values() if node.type == "Pod"]
    return [node for node in pods if roles.get(node.template_name) == TRAINING or _counted(node)]


def _counted(node: WorkflowNode) -> int:
    """GPU seconds that Argo has counted. Besides CPU, memory and disk, names of resources have a domain."""
    return sum(seconds for resource, seconds in node.resources_duration.items() if "/" in resource)


def _gpu_seconds(training: Sequence[WorkflowNode], gpus: int, begun: Mapping[str, datetime] | None) -> float | None:
    """The seconds of all attempts, times their GPUs. `begun`: node id → start of a running pod. None: unknown."""
    total = 0.0
    for node in training:
        if node.resources_duration:
            total += _counted(node)
        elif gpus and node.finished_at and node.started_at:
            # The pod was deleted before Argo saw its end. This includes the time in which it waited for a node.
            end, start = map(datetime.fromisoformat, (node.finished_at, node.started_at))
            total += gpus * (end - start).total_seconds()
        elif gpus and node.phase == "Running":
            if begun is None:
                return None
            if node.id in begun:
                total += gpus * (datetime.now(UTC) - begun[node.id]).total_seconds()
    return total


def _begun(cluster: Kubernetes) -> dict[str, datetime] | None:
    """Node id → the time at which the step in its pod started. None: the caller may not list pods."""
    try:
        pods = cluster.pods({ROLE_LABEL: TRAINING})
    except ForbiddenError:
        return None
    return {
        (pod.metadata.annotations or {}).get(NODE_ID, ""): container.state.running.started_at
        for pod in pods
        for container in pod.status.container_statuses or ()
        if container.name == "main" and container.state.running and container.state.running.started_at
    }
