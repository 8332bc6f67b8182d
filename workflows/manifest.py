"""The part of an Argo WorkflowTemplate that the local runner understands, as typed records.

Whatever a record does not name is refused, so a template never runs here with half of its meaning.
"""

from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from workflows.errors import TemplateError


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


class Outputs(Part):
    """`outputs`."""

    parameters: tuple[OutputParameter, ...] = ()


class EnvironmentVariable(Part):
    """One entry of `env`."""

    name: str
    value: str = ""


class VolumeMount(Part):
    """One entry of `volumeMounts`."""

    name: str
    mount_path: str


class EmptyDir(Part):
    """A fresh folder for each step."""


class Volume(Part):
    """One entry of a template's `volumes`."""

    name: str
    empty_dir: EmptyDir


class Container(Part):
    """A process: its image stands for the programs that are installed beside this one."""

    image: str
    command: tuple[str, ...] = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: tuple[EnvironmentVariable, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()


class Task(Part):
    """One node of the graph."""

    name: str
    template: str
    depends: str = ""
    dependencies: tuple[str, ...] = ()
    arguments: Arguments = Arguments()


class Dag(Part):
    """The graph."""

    tasks: tuple[Task, ...] = Field(min_length=1)


class Template(Part):
    """A container, or the graph of them."""

    name: str
    container: Container | None = None
    dag: Dag | None = None
    inputs: Arguments = Arguments()
    outputs: Outputs = Outputs()
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


class Spec(Part):
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
                "parameters, output parameters and $OUT, and Argo runs everything else"
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
