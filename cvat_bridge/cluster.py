"""Asynchronous access to the cluster: requests run in threads, and responses are cached for seconds."""

import heapq
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from cvat_bridge.runs.run_labels import USER_LABEL
from cvat_bridge.short_cache import ShortCache
from cvat_bridge.templates.catalog import Fill, OfferedTemplate, read_offered_template
from cvat_client.settings import Controls
from run_config.installation import Installation, NodePool
from workflows.cluster import submission
from workflows.cluster.errors import ClusterError, NotThereError
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.pools import PoolState, find_training_pods, pool_states
from workflows.cluster.run_metadata import USED_BY
from workflows.cluster.run_status import FINISHED
from workflows.cluster.templates import find_config_map

log = logging.getLogger(__name__)

Tree = dict[str, Any]
_TEMPLATES_S, _POOLS_S, _RUNS_S = 10.0, 15.0, 2.0
_THREADS = 16
_PAGE = 50
"""Runs per request to Kubernetes. A whole run takes tens of kilobytes."""

MOST_LISTED = 500
"""Limit of listed runs with the same labels, newest first. Finished runs stay for weeks."""


@dataclass(frozen=True, slots=True)
class PoolChoice:
    """A node pool as a choice in the form. `available`: whether a run would start now. None: unknown.

    `gpus`: the largest number of GPUs that one run may request.
    """

    value: str
    title: str
    detail: str
    available: bool | None
    label_value: str
    gpus: int = 1


class Cluster:
    """The templates, pools and runs of one namespace."""

    def __init__(self, kubernetes: Kubernetes, installation: Installation, controls: Controls) -> None:
        self._kubernetes = kubernetes
        self._installation = installation
        self._controls = controls
        self._in_thread = partial(anyio.to_thread.run_sync, limiter=anyio.CapacityLimiter(_THREADS))
        self._templates: ShortCache[list[OfferedTemplate]] = ShortCache(_TEMPLATES_S)
        self._pools: ShortCache[list[PoolChoice]] = ShortCache(_POOLS_S)
        self._lists: ShortCache[list[Tree]] = ShortCache(_RUNS_S)
        self._runs: ShortCache[Tree] = ShortCache(_RUNS_S)

    @property
    def namespace(self) -> str:
        """The namespace in which runs are created."""
        return self._kubernetes.namespace

    async def templates(self) -> list[OfferedTemplate]:
        """The templates offered in CVAT, in the order of the form."""
        return await self._templates.get("all", lambda: self._in_thread(self._read_templates))

    async def template(self, name: str) -> OfferedTemplate | None:
        """One offered template. None: there is none with this name."""
        return next((one for one in await self.templates() if one.name == name), None)

    async def pools(self) -> list[PoolChoice]:
        """The node pools. If the bridge may read nodes, also whether they have free capacity."""
        return await self._pools.get("all", lambda: self._in_thread(self._read_pools))

    async def runs(self, labels: Mapping[str, str]) -> list[Tree]:
        """At most MOST_LISTED runs with these labels, newest first."""
        key = tuple(sorted(labels.items()))
        return await self._lists.get(key, lambda: self._in_thread(self._read_runs, labels))

    async def run(self, name: str) -> Tree | None:
        """One run that the bridge created. None: there is none with this name."""
        try:
            found = await self._runs.get(name, lambda: self._in_thread(self._read_run, name))
        except NotThereError:
            return None
        labels = found["metadata"].get("labels") or {}
        return found if USER_LABEL in labels else None

    async def fresh(self, name: str) -> Tree | None:
        """One run, read without the cache."""
        self._runs.forget(name)
        return await self.run(name)

    async def fresh_runs(self, labels: Mapping[str, str]) -> list[Tree]:
        """The same as `runs`, read without the cache."""
        return await self._in_thread(self._read_runs, labels)

    async def running_of(self, user: int) -> list[Tree]:
        """The unfinished runs of a user, read without the cache."""
        return await self._in_thread(self._read_running, {USER_LABEL: str(user)})

    async def create(self, body: Mapping[str, Any]) -> Tree:
        """Create a run. Does nothing if the same submission has created it before."""
        await self._in_thread(submission.create, self._kubernetes, body, None)
        self._lists.clear()
        self._runs.forget(body["metadata"]["name"])
        return dict(body)

    async def stop(self, name: str) -> None:
        """Stop a run. Its exit handler still runs."""
        await self._in_thread(self._kubernetes.patch, name, {"spec": {"shutdown": "Stop"}})
        self._lists.clear()
        self._runs.forget(name)

    def _read_templates(self) -> list[OfferedTemplate]:
        found = []
        for tree in self._kubernetes.templates(USED_BY):
            try:
                offered = read_offered_template(tree)
            except (KeyError, TypeError, ValueError) as error:
                # An invalid template must not hide the others.
                log.warning("a template cannot be offered", extra={"template": str(tree["metadata"]["name"])})
                log.debug("its fault: %s", error)
                continue
            if offered is not None:
                found.append(offered)
        return sorted(found, key=_place_in_the_form)

    def _read_run(self, name: str) -> Tree:
        return _without_bulk(self._kubernetes.workflow(name))

    def _read_runs(self, labels: Mapping[str, str]) -> list[Tree]:
        return heapq.nlargest(
            MOST_LISTED, self._each_run(labels), key=lambda one: str(one["metadata"].get("creationTimestamp"))
        )

    def _read_running(self, labels: Mapping[str, str]) -> list[Tree]:
        return [one for one in self._each_run(labels, unfinished=True) if unfinished(one)]

    def _each_run(self, labels: Mapping[str, str], *, unfinished: bool = False) -> Iterator[Tree]:
        """Yield the runs with these labels without their bulk, page by page."""
        return map(_without_bulk, self._kubernetes.workflows({**USED_BY, **labels}, unfinished=unfinished, page=_PAGE))

    def _read_pools(self) -> list[PoolChoice]:
        states = self._read_states() if self._controls.nodes and self._installation.node_pools else {}
        choices = []
        for pool in self._installation.node_pools:
            room, available = _room(states.get(pool.name))
            detail = "; ".join(part for part in (_machine(pool), room) if part)
            choices.append(
                PoolChoice(pool.name, pool.title or pool.name, detail, available, pool.label_value, pool.gpu_count)
            )
        return choices

    def _read_states(self) -> dict[str, PoolState]:
        """The state of each pool by name. Empty if it cannot be read: runs can be started anyway."""
        try:
            entries = self._kubernetes.settings(find_config_map(self._kubernetes))
            training = find_training_pods(self._kubernetes)
            found = pool_states(self._kubernetes, self._installation, entries, training)
        except ClusterError as error:
            log.warning("the room in node pools is not known: %s", error)
            return {}
        return {state.name: state for state in found}


def _place_in_the_form(offered: OfferedTemplate) -> tuple[bool, bool, str]:
    """Sort key: our templates first, and training before annotating. The form preselects the first one."""
    return not offered.template.ours, offered.filled(Fill.MODEL) is not None, offered.title.casefold()


def _without_bulk(workflow: Mapping[str, Any]) -> Tree:
    """The run without Argo's copy of the template. Only its steps' names are kept, and which have several pods.

    The copy takes nine tenths of a run, and runs are cached in memory.
    """
    tree = dict(workflow)
    tree["metadata"] = {key: value for key, value in tree["metadata"].items() if key != "managedFields"}
    status = tree.get("status") or {}
    stored = status.get("storedWorkflowTemplateSpec") or {}
    entry = stored.get("entrypoint")
    tasks = [
        {key: task[key] for key in ("name", "withSequence") if key in task}
        for one in stored.get("templates") or ()
        if one.get("name") == entry
        for task in (one.get("dag") or {}).get("tasks") or ()
    ]
    lean = {"entrypoint": entry, "templates": [{"name": entry, "dag": {"tasks": tasks}}]} if tasks else {}
    tree["status"] = {
        **{key: value for key, value in status.items() if not key.startswith("stored")},
        **({"storedWorkflowTemplateSpec": lean} if lean else {}),
    }
    return tree


def unfinished(workflow: Mapping[str, Any]) -> bool:
    """Whether the run has not ended."""
    return (workflow.get("status") or {}).get("phase") not in FINISHED


def _machine(pool: NodePool) -> str:
    """A pool as the installation describes it, such as `g4dn.xlarge, 1 GPU`."""
    gpus = "no GPU" if not pool.gpu_count else "1 GPU" if pool.gpu_count == 1 else f"{pool.gpu_count} GPUs"
    return f"{pool.label_value}, {gpus}"


def _room(state: PoolState | None) -> tuple[str, bool | None]:
    """The free capacity of a pool as text, and whether a run would start now. None: unknown."""
    if state is None or state.nodes is None:
        return "", None
    held = "" if state.limit is None or state.held is None else f"{state.held} of {state.limit} runs"
    full = state.limit is not None and state.held is not None and state.held >= state.limit
    if not state.gpu_count:
        ready = f"{state.nodes_ready} machines ready"
        return ", ".join(part for part in (ready, held) if part), bool(state.nodes_ready) and not full
    if state.gpus_free is None or state.gpus is None:
        return held, False if full else None
    text = f"{max(0, state.gpus_free)} of {state.gpus} GPUs free" if state.gpus else "no machine is ready now"
    return ", ".join(part for part in (text, held) if part), (state.largest_free or 0) > 0 and not full
