"""The part of an Argo WorkflowTemplate that the local runner understands, as typed records.

Whatever changes what a run computes is understood, or it is not named here and therefore refused: a
template never runs here with half of its meaning. What only says where and how a pod runs in a cluster
is named, with its type, in the classes that end in `InCluster`, and let pass.
"""

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from workflows.errors import TemplateError
from workflows.outcome import OF_ARGO

Tree = Mapping[str, Any]
"""A mapping that is let pass whatever it holds: nothing in it reaches a process."""


class Part(BaseModel):
    """A mapping of the template."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class Argument(Part):
    """A parameter: of the workflow, of a task, or an input of a template."""

    name: str
    value: str | None = None
    default: str | None = None
    description: str | None = None
    enum: tuple[str, ...] = ()


class Arguments(Part):
    """`arguments` and `inputs`."""

    parameters: tuple[Argument, ...] = ()


class ValueFrom(Part):
    """Where an output parameter comes from: a file of a container, or another task's output."""

    path: str | None = None
    parameter: str | None = None
    default: str | None = None


class OutputParameter(Part):
    """One entry of `outputs.parameters`."""

    name: str
    value_from: ValueFrom


class Nothing(Part):
    """A mapping that is there and empty, `{}`."""


class Archive(Part):
    """How an artifact is packed: not at all, as the runner uploads files."""

    none: Nothing


class Key(Part):
    """Where an artifact lies in the repository that the cluster has."""

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
    """A key of a secret or ConfigMap that need not be there: here it is not."""

    name: str
    key: str
    optional: Literal[True]


class ValueOfObject(Part):
    """Where a variable's value comes from in a cluster."""

    secret_key_ref: KeyOfObject | None = None
    config_map_key_ref: KeyOfObject | None = None


class EnvironmentVariable(Part):
    """One entry of `env`. With `value_from` the person's own variable stands."""

    name: str
    value: str = ""
    value_from: ValueOfObject | None = None


class VolumeMount(Part):
    """One entry of `volumeMounts`."""

    name: str
    mount_path: str
    read_only: bool = False


class EmptyDir(Part):
    """A fresh folder for each step; where it lies and how large it may be is the cluster's."""

    medium: str = ""
    size_limit: str | None = None


class ObjectVolume(Part):
    """Files from a ConfigMap or secret that need not be there: here they are not."""

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
    """What of a container only says how its pod runs."""

    image_pull_policy: str | None = None
    resources: Tree | None = None
    security_context: Tree | None = None


class Container(ContainerInCluster):
    """A process: its image stands for the programs that are installed beside this one."""

    image: str
    command: tuple[str, ...] = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: tuple[EnvironmentVariable, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()


class TemplateTask(Part):
    """One node of the graph."""

    name: str
    template: str
    depends: str = ""
    dependencies: tuple[str, ...] = ()
    arguments: Arguments = Arguments()


class Dag(Part):
    """The graph."""

    tasks: tuple[TemplateTask, ...] = Field(min_length=1)


class PatchedContainer(Part):
    """What a patch may say of a container: nothing that a step's process sees."""

    name: str
    env: tuple[Tree, ...] = ()
    resources: Tree | None = None
    security_context: Tree | None = None
    volume_mounts: tuple[Tree, ...] = ()

    @field_validator("env")
    @classmethod
    def _of_argo_alone(cls, env: tuple[Tree, ...], info: ValidationInfo) -> tuple[Tree, ...]:
        """Argo's own containers do not exist on a laptop; a step's variables belong into its template."""
        if env and info.data.get("name") not in OF_ARGO:
            raise ValueError("a variable of a step")
        return env


class PodSpecPatch(Part):
    """What a patch of a pod may hold: it is text, and could change any field."""

    active_deadline_seconds: int | None = None
    affinity: Tree | None = None
    automount_service_account_token: bool | None = None
    containers: tuple[PatchedContainer, ...] = ()
    init_containers: tuple[PatchedContainer, ...] = ()
    node_selector: Mapping[str, str] | None = None
    priority_class_name: str | None = None
    runtime_class_name: str | None = None
    scheduler_name: str | None = None
    security_context: Tree | None = None
    termination_grace_period_seconds: int | None = None
    tolerations: tuple[Tree, ...] = ()
    topology_spread_constraints: tuple[Tree, ...] = ()
    volumes: tuple[Tree, ...] = ()


def _understood_patch(text: str | None) -> str | None:
    """Let a patch pass that changes nothing of a process."""
    if text:
        try:
            PodSpecPatch.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise ValueError(f"it is not YAML: {' '.join(str(error).split())}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: the local runner does not know it") from error
    return text


class TemplateInCluster(Part):
    """What of a template only says where and how its pods run, and how often they are tried."""

    active_deadline_seconds: str | int | None = None
    affinity: Tree | None = None
    archive_location: Tree | None = None
    automount_service_account_token: bool | None = None
    metadata: Tree | None = None
    metrics: Tree | None = None
    node_selector: Mapping[str, str] | None = None
    pod_spec_patch: str | None = None
    priority_class_name: str | None = None
    retry_strategy: Tree | None = None
    scheduler_name: str | None = None
    security_context: Tree | None = None
    service_account_name: str | None = None
    synchronization: Tree | None = None
    timeout: str | None = None
    tolerations: tuple[Tree, ...] = ()

    _patch = field_validator("pod_spec_patch")(_understood_patch)


class Template(TemplateInCluster):
    """A container, or the graph of them."""

    name: str
    container: Container | None = None
    dag: Dag | None = None
    inputs: Arguments = Arguments()
    outputs: StepOutputs = StepOutputs()
    volumes: tuple[Volume, ...] = ()


class Metadata(Part):
    """Names and notes; labels and annotations change nothing here."""

    name: str
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class WorkflowMetadata(Part):
    """What Argo would write on each workflow; nothing here."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class SpecInCluster(Part):
    """What of the body is for Argo and its pods alone; the exit handler is not run here."""

    active_deadline_seconds: int | None = None
    affinity: Tree | None = None
    archive_logs: bool | None = None
    artifact_repository_ref: Tree | None = None
    automount_service_account_token: bool | None = None
    executor: Tree | None = None
    image_pull_secrets: tuple[Tree, ...] = ()
    metrics: Tree | None = None
    node_selector: Mapping[str, str] | None = None
    on_exit: str | None = None
    pod_gc: Tree | None = Field(default=None, alias="podGC")
    pod_metadata: Tree | None = None
    pod_priority_class_name: str | None = None
    pod_spec_patch: str | None = None
    scheduler_name: str | None = None
    security_context: Tree | None = None
    service_account_name: str | None = None
    synchronization: Tree | None = None
    tolerations: tuple[Tree, ...] = ()
    ttl_strategy: Tree | None = None

    _patch = field_validator("pod_spec_patch")(_understood_patch)


class Spec(SpecInCluster):
    """The body."""

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
    """Read one YAML document; `where` names it in messages.

    Raises TemplateError: no YAML, or a part that is missing, of the wrong type or not known here.
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
                f"{where}: the local runner does not know {place}; it runs a DAG of containers with "
                "parameters, outputs and $OUT, and Argo runs everything else"
            ) from error
        raise TemplateError(f"{where}: {place or 'the document'}: {first['msg']}") from error


def _place(tree: Any, location: tuple[int | str, ...]) -> str:  # noqa: ANN401 - any YAML
    """`spec.templates[train].retryStrategy`: items of lists go by their names where they have one."""
    text = ""
    for key in location:
        if isinstance(key, int):
            tree = tree[key]
            text += f"[{tree['name'] if isinstance(tree, dict) and 'name' in tree else key}]"
        else:
            tree = tree.get(key) if isinstance(tree, dict) else None
            text += f".{key}" if text else key
    return text
