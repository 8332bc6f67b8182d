"""A template that is ready to run: its steps in order, with all references checked before anything starts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

from workflows.errors import TemplateError
from workflows.local.manifest import (
    Arguments,
    Container,
    OutputArtifact,
    OutputParameter,
    Template,
    TemplateTask,
    parse_manifest,
)
from workflows.tags import PARAMETERS_JSON, RETRIES, tags

RUN_FOLDER = "{{workflow.parameters.cvat-output-path}}/{{workflow.name}}"
"""The folder for artifacts, below the store. The runner uploads the files of a step only to this folder."""

SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108 - where containers have them
"""Folders that exist on every machine. Our steps keep no results in them."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """An output parameter of a step: a file below $OUT, and the default if the file is missing."""

    name: str
    path: PurePosixPath
    default: str | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file or folder that a step writes below $OUT. It is uploaded to the same path in the run's folder."""

    name: str
    path: PurePosixPath
    optional: bool


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One container of the graph. Tags are not yet replaced.

    `env` holds the values in the template. Values from Secrets or ConfigMaps are read from the local environment.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    inputs: Mapping[str, str]
    outputs: tuple[OutputFile, ...]
    artifacts: tuple[Artifact, ...]
    out_mount: str | None
    """The path at which the template mounts the step's own folder, $OUT."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole template. `parameters`: name → default. None: a value is required."""

    name: str
    parameters: Mapping[str, str | None]
    steps: tuple[PlannedStep, ...]
    results: Mapping[str, str]
    single: frozenset[str] = frozenset()
    """Outputs of tasks that must be 1: numbers of pods. The tasks of several pods are not among the steps."""


def read_plan(text: str, where: str) -> Plan:
    """Read a rendered template.

    Raises TemplateError: naming the part that the local runner does not support.
    """
    manifest = parse_manifest(text, where)
    spec = manifest.spec
    templates = {template.name: template for template in spec.templates}
    main = templates.get(spec.entrypoint)
    if main is None or main.dag is None:
        raise TemplateError(f"{where}: the entrypoint {spec.entrypoint} must be a DAG among spec.templates")
    if main.inputs.parameters:
        raise TemplateError(f"{where}: the local runner does not support inputs of the entrypoint {main.name}")
    workflow = {f"workflow.parameters.{parameter.name}" for parameter in spec.arguments.parameters}
    workflow |= {"workflow.name", "workflow.uid", PARAMETERS_JSON}
    steps: dict[str, PlannedStep] = {}
    outputs: dict[str, set[str]] = {}
    single: set[str] = set()
    above = _ancestors(main.dag.tasks, where)
    # Each task after its dependencies, otherwise in the order of the template.
    for task in sorted(main.dag.tasks, key=lambda task: len(above[task.name])):
        reachable = workflow.union(*(outputs[name] for name in above[task.name]))
        if task.when or task.with_sequence is not None:
            single.add(_number_of_pods(task, reachable, where))
            outputs[task.name] = set()
            continue
        steps[task.name] = _step(task, templates.get(task.template), workflow, reachable, where)
        outputs[task.name] = {
            f"tasks.{task.name}.outputs.parameters.{output.name}" for output in steps[task.name].outputs
        }
    results = {output.name: _result(output, f"{where}: outputs of {main.name}") for output in main.outputs.parameters}
    _check_tags(results.values(), workflow.union(*outputs.values()), f"{where}: outputs of {main.name}")
    return Plan(
        manifest.metadata.name,
        {parameter.name: _default(parameter.value, parameter.default) for parameter in spec.arguments.parameters},
        tuple(steps.values()),
        results,
        frozenset(single),
    )


def _number_of_pods(task: TemplateTask, reachable: set[str], where: str) -> str:
    """The output that is the number of pods of a task, which this machine leaves out because it uses one."""
    where = f"{where}: task {task.name}"
    count = "" if task.with_sequence is None else task.with_sequence.count
    if task.when != f"{count} > 1" or not re.fullmatch(r"\{\{tasks\.[\w.-]+\}\}", count):
        raise TemplateError(
            f"{where}: the local runner supports `when` and `withSequence` only together, as a count of an earlier "
            "task's output and `when: COUNT > 1`"
        )
    _check_tags([count], reachable, where)
    return count[2:-2]


def _step(
    task: TemplateTask, template: Template | None, workflow: set[str], reachable: set[str], where: str
) -> PlannedStep:
    where = f"{where}: task {task.name}"
    if template is None or template.container is None:
        raise TemplateError(f"{where}: the template {task.template} must be a container among spec.templates")
    inputs = _inputs(task.arguments, template.inputs, where)
    _check_tags(inputs.values(), reachable, where)
    container = template.container
    mounts = _mounts(template, container, where)
    for variable in container.env:
        source = variable.value_from
        if source is not None and (source.secret_key_ref is None) == (source.config_map_key_ref is None):
            raise TemplateError(f"{where}: the variable {variable.name} must come from one secret or ConfigMap")
    mount = _out_mount(container, mounts, where)
    command = (*container.command, *container.args)
    env = {
        variable.name: variable.value
        for variable in container.env
        if variable.value_from is None and (variable.value == mount or not _within(variable.value, mounts))
    }
    known = workflow | {f"inputs.parameters.{name}" for name in inputs}
    if template.retry_strategy is not None:
        known.add(RETRIES)
    _check_tags((*command, *env.values()), known, where)
    for path in mounts:
        if any(re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w.-])", text) for text in command):
            raise TemplateError(f"{where}: an argument names {path}, which is another folder here; use $OUT")
    outputs = tuple(_output_file(output, mount, where) for output in template.outputs.parameters)
    artifacts = tuple(_artifact(artifact, mount, where) for artifact in template.outputs.artifacts)
    return PlannedStep(task.name, command, env, inputs, outputs, artifacts, mount)


def _inputs(arguments: Arguments, inputs: Arguments, where: str) -> dict[str, str]:
    """Name → text of a template's inputs, from the task's arguments and the defaults."""
    given = {argument.name: argument.value for argument in arguments.parameters}
    declared = {parameter.name: _default(parameter.value, parameter.default) for parameter in inputs.parameters}
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        raise TemplateError(f"{where}: the template has no input {', '.join(unknown)}")
    texts: dict[str, str] = {}
    for name, default in declared.items():
        text = _default(given.get(name), default)
        if text is None:
            raise TemplateError(f"{where}: the input {name} has no value")
        texts[name] = text
    return texts


def _default(value: str | None, default: str | None) -> str | None:
    return value if value is not None else default


def _mounts(template: Template, container: Container, where: str) -> dict[str, bool]:
    """Path → whether the volume is a new writable folder, for all mounts of the container."""
    volumes = {volume.name: volume for volume in template.volumes}
    mounts: dict[str, bool] = {}
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise TemplateError(f"{where}: the volume {mount.name} is not one of the template's own")
        kinds = [kind for kind in (volume.empty_dir, volume.config_map, volume.secret) if kind is not None]
        if len(kinds) != 1:
            raise TemplateError(f"{where}: the volume {mount.name} must be one of emptyDir, configMap and secret")
        mounts[mount.mount_path.rstrip("/")] = volume.empty_dir is not None
    return mounts


def _out_mount(container: Container, mounts: Mapping[str, bool], where: str) -> str | None:
    """The path at which the container mounts its own folder, $OUT. Other new folders must be in `SCRATCH`."""
    named = [variable.value for variable in container.env if variable.name == "OUT"]
    for path, fresh in mounts.items():
        if fresh and path not in (*named, *SCRATCH):
            raise TemplateError(
                f"{where}: the volume at {path} must be the folder in the variable OUT, or {' or '.join(SCRATCH)}"
            )
    return next((path for path, fresh in mounts.items() if fresh and path in named), None)


def _within(value: str, paths: Iterable[str]) -> bool:
    """Whether a value equals one of the paths or lies below it."""
    return any(value == path or value.startswith(f"{path}/") for path in paths)


def _output_file(output: OutputParameter, mount: str | None, where: str) -> OutputFile:
    source = output.value_from
    path = PurePosixPath(source.path or "")
    if source.path is None or mount is None or not path.is_relative_to(mount) or ".." in path.parts:
        raise TemplateError(f"{where}: the output {output.name} must come from a file below $OUT (valueFrom.path)")
    return OutputFile(output.name, path.relative_to(mount), source.default)


def _artifact(artifact: OutputArtifact, mount: str | None, where: str) -> Artifact:
    path = PurePosixPath(artifact.path)
    if mount is None or not path.is_relative_to(mount) or ".." in path.parts or path == PurePosixPath(mount):
        raise TemplateError(f"{where}: the artifact {artifact.name} must be below $OUT")
    relative = path.relative_to(mount)
    key = f"{RUN_FOLDER}/{relative}"
    if artifact.s3.key.removesuffix("/") != key or relative.parts[0] == "outputs":
        raise TemplateError(
            f"{where}: the artifact {artifact.name} must have the key {key}, under which the runner stores it"
        )
    return Artifact(artifact.name, relative, artifact.optional)


def _result(output: OutputParameter, where: str) -> str:
    if output.value_from.parameter is None or output.value_from.path is not None:
        raise TemplateError(f"{where}: {output.name} must come from a task's output (valueFrom.parameter)")
    return output.value_from.parameter


def _check_tags(texts: Iterable[str], known: set[str], where: str) -> None:
    for text in texts:
        try:
            unknown = [name for name in tags(text) if name not in known]
        except TemplateError as error:
            raise TemplateError(f"{where}: {error}") from error
        if unknown:
            raise TemplateError(f"{where}: {{{{{unknown[0]}}}}} has no value here")


def _ancestors(tasks: Sequence[TemplateTask], where: str) -> dict[str, set[str]]:
    """Task → all tasks that it depends on, directly or indirectly."""
    direct = {task.name: _depends(task, where) for task in tasks}
    if len(direct) != len(tasks):
        raise TemplateError(f"{where}: two tasks have the same name")
    for name, parents in direct.items():
        for parent in sorted(parents - direct.keys()):
            raise TemplateError(f"{where}: task {name} depends on {parent}, which is not a task")
    try:
        order = tuple(TopologicalSorter(direct).static_order())
    except CycleError as error:
        raise TemplateError(f"{where}: task {error.args[1][0]} waits for itself") from error
    above: dict[str, set[str]] = {}
    for name in order:
        above[name] = direct[name].union(*(above[parent] for parent in direct[name]))
    return above


def _depends(task: TemplateTask, where: str) -> set[str]:
    names = [name.strip() for name in task.depends.split("&&")] if task.depends.strip() else []
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][-\w]*", name):
            raise TemplateError(
                f"{where}: task {task.name}: the local runner supports only names joined by && in "
                f"depends, not {task.depends!r}"
            )
    return {*names, *task.dependencies}
