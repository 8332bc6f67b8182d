"""What the pods of a WorkflowTemplate need from the namespace: images, resources, secrets, permissions.

It is read from the template alone. A value that only a run sets, such as the number of GPUs, counts as 1, or as 0 if
the parameter's default is 0. Affinity is ignored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from workflows.cluster.nodes import quantity

ROLE_LABEL = "app.kubernetes.io/component"
"""Label of a step: its name among `roles` in the chart's values."""

TRAINING = "train"
"""The role of the steps that run in a node pool."""

EXPRESSION = "{{="
"""The prefix of a value that Argo evaluates when a run starts."""


@dataclass(frozen=True, slots=True)
class ContainerNeeds:
    """The resources of one container."""

    name: str
    image: str
    requests: Mapping[str, Decimal]
    limits: Mapping[str, Decimal]
    first: bool = False
    """Whether it is an init container, which runs before the others."""


@dataclass(frozen=True, slots=True)
class PodNeeds:
    """The pod of one step."""

    step: str
    containers: tuple[ContainerNeeds, ...]
    unrestricted: tuple[str, ...]
    """The requirements of Pod Security `restricted` that the pod does not meet."""
    role: str
    """Empty: the step names no role."""
    node_selector: Mapping[str, str]
    tolerations: tuple[Mapping[str, Any], ...]

    @property
    def resources(self) -> set[str]:
        """The names of all resources that its containers request."""
        return {name for one in self.containers for kind in (one.requests, one.limits) for name in kind}

    def total(self, kind: str, resource: str) -> Decimal:
        """The amount that the pod reserves: the sum over its containers, or its largest init container if larger."""
        beside = [self.value(one, kind, resource) for one in self.containers if not one.first]
        before = [self.value(one, kind, resource) for one in self.containers if one.first]
        return max(sum(beside, Decimal(0)), max(before, default=Decimal(0)))

    @staticmethod
    def value(container: ContainerNeeds, kind: str, resource: str) -> Decimal:
        """The amount of a resource of one container. A missing request equals the limit."""
        if kind == "requests":
            return container.requests.get(resource, container.limits.get(resource, Decimal(0)))
        return container.limits.get(resource, Decimal(0))


# Variables from secrets that a run does not need.
OPTIONAL_VARIABLES = ("AWS_SESSION_TOKEN", "WEBHOOK_URL")


@dataclass(frozen=True, slots=True)
class SecretNeeds:
    """A secret, and its keys that a run needs."""

    name: str
    keys: set[str] = field(default_factory=set)
    cvat_keys: set[str] = field(default_factory=set)
    """The keys that are for CVAT and not for the store."""


@dataclass(frozen=True, slots=True)
class TemplateNeeds:
    """What all pods of one WorkflowTemplate need."""

    name: str
    service_account: str
    pull_secrets: tuple[str, ...]
    pods: tuple[PodNeeds, ...]
    secrets: tuple[SecretNeeds, ...]

    @property
    def images(self) -> set[str]:
        """The images of our own containers."""
        return {one.image for pod in self.pods for one in pod.containers if one.image}


def needs_of(tree: Mapping[str, Any]) -> TemplateNeeds:
    """What the pods of a WorkflowTemplate need. `tree` is the template as the API returns it."""
    spec = tree.get("spec") or {}
    steps = [one for one in spec.get("templates") or () if one.get("container") or one.get("script")]
    secrets: dict[str, SecretNeeds] = {}
    for step in steps:
        for variable, reference in _required_secrets(step):
            secret = secrets.setdefault(reference["name"], SecretNeeds(reference["name"]))
            secret.keys.add(reference["key"])
            if variable.startswith("CVAT_"):
                secret.cvat_keys.add(reference["key"])
    return TemplateNeeds(
        name=tree["metadata"]["name"],
        service_account=spec.get("serviceAccountName") or "default",
        pull_secrets=tuple(one["name"] for one in spec.get("imagePullSecrets") or ()),
        pods=tuple(_pod(step, spec) for step in steps),
        secrets=tuple(secrets.values()),
    )


def _pod(step: Mapping[str, Any], spec: Mapping[str, Any]) -> PodNeeds:
    main = step.get("container") or step["script"]
    patches = [_patch(spec), _patch(step)]
    none = _zeros(spec)
    containers = [_container({**main, "name": "main"}, patches, "containers", none)]
    containers += [_container({"name": "wait"}, patches, "containers", none)]
    containers += [_container({"name": "init"}, patches, "initContainers", none, first=True)]
    labels = (step.get("metadata") or {}).get("labels") or {}
    # Argo uses the values of the workflow only if the step has none; it does not merge them. Patches come last.
    selector = dict(step.get("nodeSelector") or spec.get("nodeSelector") or {})
    tolerations = step.get("tolerations") or spec.get("tolerations") or ()
    for patch in patches:
        selector |= patch.get("nodeSelector") or {}
        tolerations = patch.get("tolerations") or tolerations
    return PodNeeds(
        step=step["name"],
        containers=tuple(containers),
        unrestricted=tuple(_unrestricted(step, spec, main, patches)),
        role=labels.get(ROLE_LABEL) or "",
        node_selector=selector,
        tolerations=tuple(tolerations),
    )


def _zeros(spec: Mapping[str, Any]) -> list[str]:
    """The parameters with the default 0, as expressions name them."""
    parameters = (spec.get("arguments") or {}).get("parameters") or ()
    return [f"workflow.parameters['{one['name']}']" for one in parameters if str(one.get("value")) == "0"]


def _patch(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """The patch of a pod. An invalid patch is ignored here: it fails when the run starts."""
    try:
        tree = yaml.safe_load(part.get("podSpecPatch") or "{}")
    except yaml.YAMLError:
        return {}
    return tree if isinstance(tree, dict) else {}


def _patched(name: str, patches: Sequence[Mapping[str, Any]], group: str) -> Iterator[Mapping[str, Any]]:
    for patch in patches:
        yield from (one for one in patch.get(group) or () if one.get("name") == name)


def _container(
    base: Mapping[str, Any],
    patches: Sequence[Mapping[str, Any]],
    group: str,
    none: Sequence[str],
    *,
    first: bool = False,
) -> ContainerNeeds:
    resources: dict[str, dict[str, Decimal]] = {"requests": {}, "limits": {}}
    for layer in (base, *_patched(base["name"], patches, group)):
        for kind, values in (layer.get("resources") or {}).items():
            if kind in resources:
                resources[kind] |= {name: _quantity(text, none) for name, text in values.items()}
    return ContainerNeeds(base["name"], base.get("image") or "", resources["requests"], resources["limits"], first)


def _quantity(text: Any, none: Sequence[str]) -> Decimal:  # noqa: ANN401 - what YAML gives
    try:
        return quantity(str(text))
    except ValueError:
        # `{{=asInt(workflow.parameters['gpu-count'])}}`
        return Decimal(0 if any(name in str(text) for name in none) else 1)


def _required_secrets(step: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield the name and the secret reference of each variable that a run needs."""
    main = step.get("container") or step.get("script") or {}
    for variable in main.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference and variable["name"] not in OPTIONAL_VARIABLES:
            yield variable["name"], reference


def _unrestricted(
    step: Mapping[str, Any], spec: Mapping[str, Any], main: Mapping[str, Any], patches: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Yield each requirement of the Pod Security level `restricted` that the pod does not meet."""
    pod = step.get("securityContext") or spec.get("securityContext") or {}
    contexts = {"main": [main.get("securityContext") or {}]}
    contexts["main"] += [one.get("securityContext") or {} for one in _patched("main", patches, "containers")]
    contexts["wait"] = [one.get("securityContext") or {} for one in _patched("wait", patches, "containers")]
    contexts["init"] = [one.get("securityContext") or {} for one in _patched("init", patches, "initContainers")]
    for name, layers in contexts.items():
        merged = {key: value for layer in layers for key, value in layer.items()}
        if merged.get("allowPrivilegeEscalation") is not False:
            yield f"{name} allows privilege escalation"
        if "ALL" not in ((merged.get("capabilities") or {}).get("drop") or ()):
            yield f"{name} keeps capabilities"
        if not (merged.get("runAsNonRoot") or pod.get("runAsNonRoot")):
            yield f"{name} may run as root"
        profile = merged.get("seccompProfile") or pod.get("seccompProfile") or {}
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name} has no seccomp profile"
