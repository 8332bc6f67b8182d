"""The part of an Argo WorkflowTemplate that the local runner supports, as typed records.

The runner supports a field that changes the result of a run, or refuses it: no template runs with half of its meaning.
Fields that only say where and how a pod runs in a cluster are ignored. They are listed, with their types, in the
classes whose names end with `InCluster`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from workflows.errors import TemplateError
from workflows.outcome import OF_ARGO

Tree = Mapping[str, Any]
"""A mapping with any content that is ignored: nothing in it reaches a process."""


class Part(BaseModel):
    """A mapping of the template."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Argument(Part):
    """A parameter of the workflow or of a task, or an input of a template."""

    name: str
    value: str | None = None
    default: str | None = None
    description: str | None = None
    enum: tuple[str, ...] = ()


class Arguments(Part):
    """`arguments` and `inputs`."""

    parameters: tuple[Argument, ...] = ()


class ValueFrom(Part):
    """The source of an output parameter: a file of a container, or another task's output."""

    path: str | None = None
    parameter: str | None = None
    default: str | None = None


class OutputParameter(Part):
    """One entry of `outputs.parameters`."""

    name: str
    value_from: ValueFrom


class Nothing(Part):
    """An empty mapping, `{}`."""


class Archive(Part):
    """The archive strategy of an artifact. Only `none` is supported: the runner uploads files unpacked."""

    none: Nothing


class Key(Part):
    """The key of an artifact in the cluster's artifact repository."""

    key: str


class OutputArtifact(Part):
    """One entry of `outputs.artifacts`."""

    name: str
    path: str
    s3: Key
    archive: Archive
    optional: bool = False


class StepOutputs(Part):
    """`outputs`."""

    parameters: tuple[OutputParameter, ...] = ()
    artifacts: tuple[OutputArtifact, ...] = ()


class KeyOfObject(Part):
    """A key of an optional Secret or ConfigMap. It is missing on this machine."""

    name: str
    key: str
    optional: Literal[True]


class ValueOfObject(Part):
    """The source of a variable's value in a cluster."""

    secret_key_ref: KeyOfObject | None = None
    config_map_key_ref: KeyOfObject | None = None


class EnvironmentVariable(Part):
    """One entry of `env`. If it has `value_from`, the variable of the local environment is used."""

    name: str
    value: str = ""
    value_from: ValueOfObject | None = None


class VolumeMount(Part):
    """One entry of `volumeMounts`."""

    name: str
    mount_path: str
    read_only: bool = False


class EmptyDir(Part):
    """A new folder for each step. The medium and the size limit apply only in a cluster."""

    medium: str = ""
    size_limit: str | None = None


class ObjectVolume(Part):
    """Files from an optional ConfigMap or Secret. They are missing on this machine."""

    name: str | None = None
    secret_name: str | None = None
    optional: Literal[True]
    items: tuple[Tree, ...] = ()
    default_mode: int | None = None


class Volume(Part):
    """One entry of a template's `volumes`."""

    name: str
    empty_dir: EmptyDir | None = None
    config_map: ObjectVolume | None = None
    secret: ObjectVolume | None = None


class ContainerInCluster(Part):
    """The fields of a container that only say how its pod runs."""

    image_pull_policy: str | None = None
    resources: Tree | None = None
    security_context: Tree | None = None


class Container(ContainerInCluster):
    """A process. Instead of its image, the programs of the local Python environment are used."""

    image: str
    command: tuple[str, ...] = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: tuple[EnvironmentVariable, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()


class Sequence(Part):
    """A task for each number from 0 to below `count`."""

    count: str


class TemplateTask(Part):
    """One node of the graph. `with_sequence`: a share of the work for each pod, which is left out for one pod."""

    name: str
    template: str
    depends: str = ""
    dependencies: tuple[str, ...] = ()
    arguments: Arguments = Arguments()
    when: str = ""
    with_sequence: Sequence | None = None


class Dag(Part):
    """The graph."""

    tasks: tuple[TemplateTask, ...] = Field(min_length=1)
    target: str = ""  # all tasks, directly or as what others depend on


class PatchedContainer(Part):
    """The fields of a container that a patch may set. None of them affects the process of a step."""

    name: str
    env: tuple[Tree, ...] = ()
    resources: Tree | None = None
    security_context: Tree | None = None
    volume_mounts: tuple[Tree, ...] = ()

    @field_validator("env")
    @classmethod
    def _of_argo_alone(cls, env: tuple[Tree, ...], info: ValidationInfo) -> tuple[Tree, ...]:
        """Refuse variables of a step. Argo's own containers do not exist on a laptop, so theirs are ignored."""
        if env and info.data.get("name") not in OF_ARGO:
            raise ValueError("a variable of a step")
        return env


class PodInCluster(Part):
    """The fields that only say how pods run, and that the spec, its templates and patches have."""

    affinity: Tree | None = None
    automount_service_account_token: bool | None = None
    node_selector: Mapping[str, str] | None = None
    scheduler_name: str | None = None
    security_context: Tree | None = None
    tolerations: tuple[Tree, ...] = ()


class PodSpecPatch(PodInCluster):
    """The fields that a patch of a pod may have. A patch is text, and could otherwise change any field."""

    active_deadline_seconds: int | None = None
    containers: tuple[PatchedContainer, ...] = ()
    init_containers: tuple[PatchedContainer, ...] = ()
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    termination_grace_period_seconds: int | None = None
    topology_spread_constraints: tuple[Tree, ...] = ()
    volumes: tuple[Tree, ...] = ()


def _understood_patch(text: str | None) -> str | None:
    """Check that a patch changes nothing of a process."""
    if text:
        try:
            PodSpecPatch.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: the local runner does not support it") from error
    return text


class PatchedInCluster(PodInCluster):
    """The same for the spec and its templates, which can patch their pods."""

    metrics: Tree | None = None
    pod_spec_patch: str | None = None
    service_account_name: str | None = None
    synchronization: Tree | None = None

    _patch = field_validator("pod_spec_patch")(_understood_patch)


class TemplateInCluster(PatchedInCluster):
    """The fields of a template that only say where and how its pods run, and how often they are retried."""

    active_deadline_seconds: str | int | None = None
    archive_location: Tree | None = None
    metadata: Tree | None = None
    priority_class_name: str | None = None
    retry_strategy: Tree | None = None
    timeout: str | None = None


class Template(TemplateInCluster):
    """A container, or the graph."""

    name: str
    container: Container | None = None
    dag: Dag | None = None
    inputs: Arguments = Arguments()
    outputs: StepOutputs = StepOutputs()
    volumes: tuple[Volume, ...] = ()


class WorkflowMetadata(Part):
    """What Argo would write on each workflow. It is ignored here."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class Metadata(WorkflowMetadata):
    """Names, labels and annotations. Labels and annotations are ignored here."""

    name: str


class SpecInCluster(PatchedInCluster):
    """The fields of the spec that only matter for Argo and its pods. The exit handler does not run here."""

    active_deadline_seconds: int | None = None
    archive_logs: bool | None = None
    artifact_gc: Tree | None = Field(default=None, alias="artifactGC")
    artifact_repository_ref: Tree | None = None
    executor: Tree | None = None
    image_pull_secrets: tuple[Tree, ...] = ()
    on_exit: str | None = None
    pod_gc: Tree | None = Field(default=None, alias="podGC")
    pod_metadata: Tree | None = None
    pod_priority_class_name: str | None = None
    ttl_strategy: Tree | None = None


class Spec(SpecInCluster):
    """`spec`."""

    entrypoint: str
    templates: tuple[Template, ...]
    arguments: Arguments = Arguments()
    workflow_metadata: WorkflowMetadata | None = None


class WorkflowTemplate(Part):
    """One document."""

    api_version: Literal["argoproj.io/v1alpha1"]
    kind: Literal["WorkflowTemplate"]
    metadata: Metadata
    spec: Spec


def parse_manifest(text: str, where: str) -> WorkflowTemplate:
    """Parse one YAML document. `where` names it in messages.

    Raises TemplateError: when it is not YAML, or a field is missing, has the wrong type or is not supported.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TemplateError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return WorkflowTemplate.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = _place(tree, first["loc"])
        if first["type"] == "extra_forbidden":
            raise TemplateError(
                f"{where}: the local runner does not support {place}; it runs a DAG of containers with "
                "parameters, outputs and $OUT, and Argo runs everything else"
            ) from error
        raise TemplateError(f"{where}: {place or 'the document'}: {first['msg']}") from error


def _place(tree: Any, location: tuple[int | str, ...]) -> str:  # noqa: ANN401 - any YAML
    """The path of a field, such as `spec.templates[train].retryStrategy`, with the names of list items, if any."""
    text = ""
    for key in location:
        if isinstance(key, int):
            tree = tree[key]
            text += f"[{tree['name'] if isinstance(tree, dict) and 'name' in tree else key}]"
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
            text += f".{key}" if text else key
    return text
