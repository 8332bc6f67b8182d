"""Preflight: whether the namespace and the nodes accept our pods."""

import re
from collections.abc import Iterator
from decimal import Decimal

from run_config.wording import shortened
from workflows.cluster.errors import ForbiddenError, NotThereError
from workflows.cluster.nodes import quantity
from workflows.cluster.objects import ResourceQuota
from workflows.cluster.pod_needs import PodNeeds
from workflows.cluster.pools import PoolState, pool_states, training_pods
from workflows.cluster.preflight.findings import Finding, fail, ok, unknown, warn
from workflows.cluster.preflight.snapshot import Snapshot

IMAGE = re.compile(
    r"(?P<name>[a-z0-9]+([._-]+[a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)
PULL_PROBLEMS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
OURS = {"app.kubernetes.io/part-of": "detr-workflows"}
LEVEL = "pod-security.kubernetes.io/enforce"


def images(snapshot: Snapshot) -> Iterator[Finding]:
    """Check image references, pull secrets and failed pulls of our pods. Nothing is pulled."""
    for image in sorted({image for needs in snapshot.needs.values() for image in needs.images}):
        match = IMAGE.fullmatch(image)
        if match is None:
            yield fail(f"image {image}", "is not a valid image reference", "fix images.* in the chart's values")
        elif not match["digest"] and match["tag"] in (None, "latest"):
            yield warn(
                f"image {image}", "has no fixed tag, so nodes may run different versions", "set a tag or a digest"
            )
        else:
            yield ok(f"image {image}", "is well-formed")
    yield from _pull_secrets(snapshot)
    yield from _failed_pulls(snapshot)


def _pull_secrets(snapshot: Snapshot) -> Iterator[Finding]:
    names = {name for needs in snapshot.needs.values() for name in needs.pull_secrets}
    for account in {needs.service_account for needs in snapshot.needs.values()}:
        try:
            names |= {one.name for one in snapshot.cluster.service_account(account).image_pull_secrets or ()}
        except (ForbiddenError, NotThereError):
            continue  # reported by the check of service accounts
    for name in sorted(names - {""}):
        subject = f"pull secret {name}"
        try:
            kind = snapshot.cluster.secret(name).type
        except NotThereError:
            yield fail(subject, f"is not in {snapshot.namespace}", f"kubectl create secret docker-registry {name} …")
        except ForbiddenError:
            yield unknown(subject, "you may not read it", "a first run shows whether images are pulled")
        else:
            if kind in ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"):
                yield ok(subject, "is there")
            else:
                yield fail(subject, f"is of type {kind}", "create it with `kubectl create secret docker-registry`")


def _failed_pulls(snapshot: Snapshot) -> Iterator[Finding]:
    try:
        pods = snapshot.cluster.pods(OURS)
    except ForbiddenError:
        yield unknown("image pulls", "you may not list pods", "`argo get` shows a step that waits for its image")
        return
    stuck: dict[str, list[str]] = {}
    for pod in pods:
        for status in [*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ())]:
            waiting = status.state.waiting
            if waiting is not None and waiting.reason in PULL_PROBLEMS:
                stuck.setdefault(f"{status.image}: {waiting.reason}", []).append(pod.metadata.name)
    for what, names in sorted(stuck.items()):
        yield fail(
            "image pulls",
            f"{', '.join(sorted(set(names))[:3])} cannot get {what}",
            "push the image, or fix registry, tag and pull secret",
        )
    if not stuck:
        yield ok("image pulls", "no pod of ours waits for an image")


def pools(snapshot: Snapshot) -> Iterator[Finding]:
    """Check nodes, GPUs and taints of the node pools."""
    if snapshot.installation is None or snapshot.entries is None:
        yield unknown("pools", "the settings cannot be read", "see the line about the ConfigMap")
        return
    states = pool_states(
        snapshot.cluster, snapshot.installation, snapshot.entries, training_pods(snapshot.needs.values())
    )
    if not states:
        yield warn(
            "pools",
            "the installation has none: training runs on any node with a GPU",
            "list them in nodePools of the chart's values, so that people can choose",
        )
    for state in states:
        yield _pool(state)
        if state.nodes_tainted and len(state.nodes_tainted) < (state.nodes_ready or 0):
            yield warn(
                f"taints of pool {state.name}",
                f"training pods do not tolerate {', '.join(state.not_tolerated or ())}, so they do not run on "
                f"{shortened(state.nodes_tainted)}",
                "no problem if intended; else add tolerations to the pool in the chart's values",
            )


def _pool(state: PoolState) -> Finding:
    subject = f"pool {state.name}"
    if state.nodes is None or state.gpus is None:
        return unknown(subject, "you may not list nodes", "ask the operator of the cluster, or start a short run there")
    if state.nodes == 0:
        return warn(
            subject,
            f"no node has the label {state.label}",
            "no problem if nodes are added on demand; else fix labelValue, see `kubectl get nodes --show-labels`",
        )
    problem = None
    if state.nodes_ready == 0:
        problem = fail(
            subject, f"none of its {state.nodes} nodes is ready for pods", "`kubectl describe node` says why"
        )
    elif state.not_tolerated is None or state.nodes_tainted is None:
        problem = unknown(
            subject,
            "its nodes have taints, and the tolerations of training pods are unknown",
            "see the lines about the templates",
        )
    elif len(state.nodes_tainted) == state.nodes_ready:
        problem = fail(
            subject,
            f"training pods do not tolerate {', '.join(state.not_tolerated)}, so they cannot run on any ready node",
            "add tolerations to the pool in the chart's values",
        )
    return problem or _gpus(subject, state, state.gpus)


def _gpus(subject: str, state: PoolState, gpus: int) -> Finding:
    """The finding about GPUs, for a pool whose nodes accept our pods."""
    nodes = f"{state.nodes_ready} of {state.nodes} nodes ready"
    if state.nodes_tainted:
        nodes += f", {len(state.nodes_tainted)} of them behind a taint"
    if state.gpu_count == 0:
        return ok(subject, f"{nodes}, no GPUs requested")
    if gpus == 0:
        return fail(subject, f"{nodes}, none has {state.gpu_resource}", "install the device plugin, or fix gpuResource")
    if state.largest_free is None:
        return unknown(
            subject, f"{nodes}, {gpus} GPUs, free GPUs unknown", "you may not list the pods of all namespaces"
        )
    if state.largest_free == 0:
        return warn(subject, f"{nodes}, all {gpus} GPUs are in use", "a run will wait until one is free")
    return ok(subject, f"{nodes}, {state.gpus_free} of {gpus} GPUs free")


def quotas(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the free part of the namespace's quotas with the pods of the templates."""
    found = snapshot.cluster.resource_quotas()
    if not found:
        yield ok("quota", "none")
    for quota in found:
        subject = f"quota {quota.metadata.name}"
        if quota.spec.scopes or quota.spec.scope_selector:
            yield unknown(subject, "applies to some pods only", "compare it with the templates' resources")
            continue
        problems = list(_quota_problems(snapshot, quota, subject))
        yield from problems or [ok(subject, "has room for every step")]


def _quota_problems(snapshot: Snapshot, quota: ResourceQuota, subject: str) -> Iterator[Finding]:
    hard, used = quota.status.hard or quota.spec.hard or {}, quota.status.used or {}
    for key, text in hard.items():
        limit, taken = quantity(text), quantity(used.get(key))
        if key in ("pods", "count/pods"):
            needs = {"a step": Decimal(1)}
        else:
            kind, _, resource = key.rpartition(".") if "/" not in key else key.partition(".")
            kind = kind or "requests"
            if kind not in ("requests", "limits") or resource == "storage" or key.startswith("count/"):
                continue
            needs = {pod.step: pod.total(kind, resource) for pod in _pods(snapshot)}
            bare = _without(snapshot, kind, resource)
            if bare and resource in ("cpu", "memory"):
                yield warn(
                    subject,
                    f"counts {key}, which {bare} does not set",
                    "set the value of the step in the chart, or add a LimitRange with a default to the namespace",
                )
        step, most = max(needs.items(), key=lambda item: item[1], default=("", Decimal(0)))
        if most > limit:
            yield fail(subject, f"{step} needs {key} {_shown(most)}, but the quota is {text}", "raise the quota")
        elif most > limit - taken:
            yield warn(
                subject,
                f"{step} needs {key} {_shown(most)}, {_shown(limit - taken)} of {text} is left",
                "a run will wait until others end, or raise the quota",
            )


def _pods(snapshot: Snapshot) -> list[PodNeeds]:
    return [pod for needs in snapshot.needs.values() for pod in needs.pods]


def _without(snapshot: Snapshot, kind: str, resource: str) -> str:
    """The first container without a value for a resource that a quota counts. The API rejects its pod."""
    for pod in _pods(snapshot):
        for one in pod.containers:
            if resource not in one.limits and (kind == "limits" or resource not in one.requests):
                return f"{pod.step}/{one.name}"
    return ""


def _shown(number: Decimal) -> str:
    for power, unit in ((30, "Gi"), (20, "Mi")):
        if number >= 2**power and number % 2**20 == 0:
            return f"{float(number) / 2**power:.4g}{unit}"
    return f"{number.normalize():f}"


def limit_ranges(snapshot: Snapshot) -> Iterator[Finding]:
    """Check the limits that the namespace sets for a container or a pod."""
    found = snapshot.cluster.limit_ranges()
    problems: list[Finding] = []
    for one in found:
        for item in one.spec.limits or ():
            if item.type not in ("Container", "Pod"):
                continue
            for bound, texts in (("max", item.max or {}), ("min", item.min or {})):
                for resource, text in texts.items():
                    problems += _outside(snapshot, f"limit range {one.metadata.name}", item.type, bound, resource, text)
    yield from problems or [ok("limit ranges", "none" if not found else "every container is within them")]


def _outside(snapshot: Snapshot, subject: str, kind: str, bound: str, resource: str, text: str) -> Iterator[Finding]:
    """The first of our pods that a limit would reject."""
    wanted = quantity(text)
    for pod in _pods(snapshot):
        values: list[tuple[str, Decimal]]
        side = "limits" if bound == "max" else "requests"
        if kind == "Pod":
            values = [(pod.step, pod.total(side, resource))]
        else:
            values = [(f"{pod.step}/{one.name}", pod.value(one, side, resource)) for one in pod.containers]
        for place, value in values:
            # A missing value gets the default of the limit range, which is within its limits.
            if value and (value > wanted if bound == "max" else value < wanted):
                yield fail(
                    subject,
                    f"{place} asks for {resource} {_shown(value)}, the {bound}imum is {text}",
                    "change the range, or the step's resources in the chart's values",
                )
                return


def pod_security(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the Pod Security level that the namespace enforces with our pods."""
    level = snapshot.cluster.namespace_labels().get(LEVEL, "privileged")
    problems = sorted({f"{pod.step}: {problem}" for pod in _pods(snapshot) for problem in pod.unrestricted})
    if level == "restricted" and problems:
        yield fail(
            "pod security",
            f"the namespace enforces restricted, but {'; '.join(problems[:3])}",
            "keep the chart's security contexts and its patch for Argo's containers",
        )
    else:
        yield ok("pod security", f"the namespace enforces {level}, and all pods comply")
