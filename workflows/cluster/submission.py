"""From `-p name=value` to a Workflow: everything that can be refused here is, before anything is created.

Every parameter is submitted, defaults too: a retry that changes one of them in Argo keeps only those that
were submitted.
"""

import difflib
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from run_config.errors import ConfigError
from run_config.installation import LABEL_VALUE, QUALIFIED_NAME, Installation
from run_config.parameters import BY_NAME, TEMPLATES, Parameter, Role, Type, lines, parse, unknown_name
from workflows.cluster.errors import AlreadyThereError, ClusterError, UnreachableError
from workflows.cluster.templates import CONTROLLER_LABEL, Api, Argument, Template

ARGO_TEMPLATE_LABEL = "workflows.argoproj.io/workflow-template"
"""What Argo itself puts on a workflow that was made from a template."""

SUBMISSION = "detr-workflows/submission"
"""Annotation that tells our own workflow from another one of the same name, when an answer was lost."""

# What Kubernetes takes for generated names: no vowels, so no words.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LOCAL = ("/", "./", "../", "~", "file://")
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Submitted:
    """A workflow that the cluster has."""

    name: str
    namespace: str
    uid: str
    folder: str | None
    """Where the run will lie; None where the template does not say."""


def arguments(
    template: Template, given: Mapping[str, str], installation: Installation | None, *, typed_here: bool = True
) -> dict[str, str]:
    """Name → text of every parameter, checked.

    `typed_here`: on this machine, so that a path may be one of its files.
    Raises ConfigError: one sentence a mistake, a line each.
    """
    mistakes = [unknown_name(name, template.arguments) for name in given if name not in template.arguments]
    store = given.get("store") or (installation.store if installation else "")
    if typed_here:
        for name, text in given.items():
            mistakes += _local_paths(name, text, store)
    texts = {
        one.name: one.default for one in template.arguments.values() if one.default is not None and not one.from_cluster
    }
    texts |= {name: text.replace("\r\n", "\n").strip() for name, text in given.items() if name in template.arguments}
    if template.ours and installation and "store" in template.arguments and not texts.get("store"):
        texts["store"] = installation.store
    mistakes += _invalid(template, texts)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    if template.ours and installation is not None:
        _require_allowed(texts, installation)
    return texts


def _invalid(template: Template, texts: Mapping[str, str]) -> list[str]:
    """What a value is by itself, or is not."""
    mistakes: list[str] = []
    known = [one for one in TEMPLATES[template.name] if one.name in template.arguments] if template.ours else []
    try:
        parse({one.name: texts[one.name] for one in known if one.name in texts}, known)
    except ConfigError as error:
        mistakes += str(error).splitlines()
    checked = {one.name for one in known}
    for argument in template.arguments.values():
        # Of ours only the choices: the chart's may be fewer than all, as those of the node pools.
        if not any(line.startswith((f"{argument.name} ", f"{argument.name}:")) for line in mistakes):
            mistakes += _mistakes(argument, texts.get(argument.name), may_be_empty=argument.name in checked)
    return mistakes


def _mistakes(argument: Argument, text: str | None, *, may_be_empty: bool) -> list[str]:
    """What a template that says no more than names, defaults and choices can refuse."""
    if text is None:
        missing = not (may_be_empty or argument.from_cluster)
        return [f"{argument.name} is missing: give it with -p {argument.name}=…"] if missing else []
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        return [f"{argument.name}: {text[:80]!r} has a control character; type it again."]
    if argument.choices and text not in argument.choices and (text or not may_be_empty):
        near = difflib.get_close_matches(text, argument.choices, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return [f"{argument.name} must be one of {', '.join(argument.choices)}, not {text[:80]!r}.{hint}"]
    return []


def _require_allowed(texts: Mapping[str, str], installation: Installation) -> None:
    """What the step `check` would refuse a minute later: pool, GPUs, places."""
    mistakes: list[str] = []
    try:
        installation.allowed(texts)
    except ConfigError as error:
        mistakes.append(str(error))
    pool = next((one for one in installation.node_pools if one.name == texts.get("sys-node-pool")), None)
    wanted = texts.get("gpu-count", "0")
    if pool is not None and int(wanted) > pool.gpu_count:
        mistakes.append(f"gpu-count must be at most {pool.gpu_count} in the pool {pool.name}, not {wanted}.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _local_paths(name: str, text: str, store: str) -> list[str]:
    """A sentence for every path of this machine: a cluster cannot see them."""
    parameter = BY_NAME.get(name)
    if parameter is None:
        return []
    if parameter.file_suffixes and text.endswith(parameter.file_suffixes):
        sentence = (
            f"{name}: {text!r} is a file of this machine, which a cluster cannot see; name one of "
            f"{', '.join(parameter.choices)} and put your changes into -p overrides='key=value …'."
        )
        return [sentence]
    if parameter.type not in (Type.LOCATION, Type.LOCATIONS):
        return []
    return [_upload_first(parameter, line, store) for line in lines(text) if _is_local(line)]


def _is_local(line: str) -> bool:
    if line.startswith(_LOCAL) or line in (".", ".."):
        return True
    # A key below the store looks the same; whoever has such a file here meant it.
    return "://" not in line and Path(line).exists()


def _upload_first(parameter: Parameter, line: str, store: str) -> str:
    if parameter.role is Role.STORE:
        return f"{parameter.name}: {line!r} is a folder of this machine, which a cluster cannot see; give s3://bucket/prefix."
    path = os.path.expanduser(line.removeprefix("file://"))  # noqa: PTH111 - as it was typed but for the ~
    bucket = store if store.startswith("s3://") else "s3://bucket/prefix"
    target = f"{bucket}/uploads/{Path(path).name or 'export'}"
    copy = "python -m object_store put-folder" if Path(path).is_dir() else "aws s3 cp"
    command = f"{copy} {shlex.quote(path)} {shlex.quote(target)}"
    hint = ""
    if not line.startswith(_LOCAL) and line not in (".", ".."):
        hint = f" If you mean the key below the store: {bucket}/{line}."
    return (
        f"{parameter.name}: {line!r} is a path of this machine, which a cluster cannot see. Upload it: {command}, "
        f"then give -p {shlex.quote(f'{parameter.name}={target}')}.{hint}"
    )


def workflow(
    template: Template,
    texts: Mapping[str, str],
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The Workflow to create. Entry point, labels of ours and everything else stay the template's.

    Raises ConfigError: a name that Kubernetes does not take.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: a name has up to 63 lower-case letters, digits and dashes inside.")
    # Chosen here and not by the cluster: asking again after a lost answer then makes no second run.
    name = name or f"{template.name[:57]}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"
    controller = {CONTROLLER_LABEL: template.controller} if template.controller else {}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name,
            "labels": {ARGO_TEMPLATE_LABEL: template.name, **controller, **(labels or {})},
            "annotations": {SUBMISSION: secrets.token_hex(8), **(annotations or {})},
        },
        "spec": {
            "workflowTemplateRef": {"name": template.name},
            "arguments": {"parameters": [{"name": key, "value": text} for key, text in texts.items()]},
        },
    }


def create(
    api: Api,
    body: Mapping[str, Any],
    folder: str | None,
    sleep: Callable[[float], None] = time.sleep,
) -> Submitted:
    """Create the Workflow, once, also where an answer gets lost on its way."""
    name = body["metadata"]["name"]

    def attempt() -> Mapping[str, Any]:
        try:
            return api.create(body)
        except AlreadyThereError as error:
            found = api.workflow(name)
            if _submission(found) == _submission(body):
                return found
            raise AlreadyThereError(
                f"there is already a workflow {name} in {api.namespace}, and a name is also the run's folder; choose "
                f"another, or continue that one: argo retry {name} -n {api.namespace}"
            ) from error

    retrying = Retrying(
        retry=retry_if_exception_type(UnreachableError),
        wait=wait_exponential(),
        stop=stop_after_attempt(_ATTEMPTS),
        sleep=sleep,
        reraise=True,
    )
    try:
        made = retrying(attempt)
    except UnreachableError as error:
        raise UnreachableError(
            f"{error}. Whether {name} was created is not known: `argo get {name} -n {api.namespace}` says"
        ) from error
    metadata = made.get("metadata") or {}
    if not metadata.get("uid"):
        raise ClusterError(f"{api.where} answered without a workflow; is it the address of Argo's API?")
    return Submitted(metadata["name"], api.namespace, metadata["uid"], folder)


def _submission(body: Mapping[str, Any]) -> str | None:
    value: str | None = (body["metadata"].get("annotations") or {}).get(SUBMISSION)
    return value


def run_folder(template: Template, texts: Mapping[str, str], name: str) -> str | None:
    """Where the run will lie in the store."""
    if not template.ours or not texts.get("store") or not texts.get("cvat-output-path"):
        return None
    return f"{texts['store'].rstrip('/')}/{texts['cvat-output-path']}/{name}"


def tags(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Labels or annotations from `key=value`.

    Raises ConfigError: what Kubernetes would not take.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not re.fullmatch(QUALIFIED_NAME, key):
            raise ConfigError(f"{option} {text!r} is not of the form key=value, such as team=inspection.")
        if option == "--label" and not re.fullmatch(LABEL_VALUE, value):
            raise ConfigError(
                f"--label {text!r}: a label's value has up to 63 letters, digits, dashes, dots and underscores; "
                "for other text take --annotation."
            )
        if key in found:
            raise ConfigError(f"{option} {key} is given twice.")
        found[key] = value
    return found
