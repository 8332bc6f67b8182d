"""Turn `-p name=value` options into a Workflow, and refuse all detectable mistakes before anything is created.

All parameters are submitted, also those with default values: when Argo retries a run with a changed parameter, it keeps
only the submitted ones.
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
"""The label that Argo sets on a workflow that was created from a template."""

SUBMISSION = "detr-workflows/submission"
"""Annotation that identifies our own workflow among others of the same name, after a lost response."""

# The characters that Kubernetes uses for generated names. There are no vowels, so that no words appear.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LOCAL = ("/", "./", "../", "~", "file://")
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Submitted:
    """A workflow that was created."""

    name: str
    namespace: str
    uid: str
    folder: str | None
    """The folder of the run. None: the template does not define it."""


def arguments(
    template: Template, given: Mapping[str, str], installation: Installation | None, *, typed_here: bool = True
) -> dict[str, str]:
    """Validate the parameters and fill in defaults. Return name → text.

    `typed_here`: the values come from this machine, so a path may be a local file.

    Raises ConfigError: one line for each mistake.
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
    """Errors of values on their own, without the settings of the installation."""
    mistakes: list[str] = []
    known = [one for one in TEMPLATES[template.name] if one.name in template.arguments] if template.ours else []
    try:
        parse({one.name: texts[one.name] for one in known if one.name in texts}, known)
    except ConfigError as error:
        mistakes += str(error).splitlines()
    checked = {one.name for one in known}
    for argument in template.arguments.values():
        # For our own templates, check also the choices: the chart may allow fewer, such as its node pools.
        if not any(line.startswith((f"{argument.name} ", f"{argument.name}:")) for line in mistakes):
            mistakes += _mistakes(argument, texts.get(argument.name), may_be_empty=argument.name in checked)
    return mistakes


def _mistakes(argument: Argument, text: str | None, *, may_be_empty: bool) -> list[str]:
    """Errors that follow from an argument's name, default and choices alone."""
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
    """Check pool, GPUs and places now, which the step `check` would refuse a minute later."""
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
    """One error for every local path, because a cluster cannot read local files."""
    parameter = BY_NAME.get(name)
    if parameter is None:
        return []
    if parameter.file_suffixes and text.endswith(parameter.file_suffixes):
        sentence = (
            f"{name}: {text!r} is a file on this machine, which a cluster cannot read; choose one of "
            f"{', '.join(parameter.choices)} and put your changes into -p overrides='key=value …'."
        )
        return [sentence]
    if parameter.type not in (Type.LOCATION, Type.LOCATIONS):
        return []
    return [_upload_first(parameter, line, store) for line in lines(text) if _is_local(line)]


def _is_local(line: str) -> bool:
    if line.startswith(_LOCAL) or line in (".", ".."):
        return True
    # It may also be a key below the store, but an existing local file of that name is more likely.
    return "://" not in line and Path(line).exists()


def _upload_first(parameter: Parameter, line: str, store: str) -> str:
    if parameter.role is Role.STORE:
        return f"{parameter.name}: {line!r} is a folder on this machine, which a cluster cannot read; give s3://bucket/prefix."
    path = os.path.expanduser(line.removeprefix("file://"))  # noqa: PTH111 - as typed, except for the ~
    bucket = store if store.startswith("s3://") else "s3://bucket/prefix"
    target = f"{bucket}/uploads/{Path(path).name or 'export'}"
    copy = "python -m object_store put-folder" if Path(path).is_dir() else "aws s3 cp"
    command = f"{copy} {shlex.quote(path)} {shlex.quote(target)}"
    hint = ""
    if not line.startswith(_LOCAL) and line not in (".", ".."):
        hint = f" If you mean the key below the store: {bucket}/{line}."
    return (
        f"{parameter.name}: {line!r} is a path on this machine, which a cluster cannot read. Upload it: {command}, "
        f"then give -p {shlex.quote(f'{parameter.name}={target}')}.{hint}"
    )


def workflow(
    template: Template,
    texts: Mapping[str, str],
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The Workflow to create. Everything except its arguments, name and annotations comes from the template.

    Raises ConfigError: when Kubernetes does not allow the name.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: a name has up to 63 lower-case letters, digits and dashes inside.")
    # The name is chosen here, so that a retry after a lost response cannot create a second run.
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
    """Create the Workflow exactly once, even if a response is lost."""
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
            f"{error}. It is unknown whether {name} was created; see `argo get {name} -n {api.namespace}`"
        ) from error
    metadata = made.get("metadata") or {}
    if not metadata.get("uid"):
        raise ClusterError(f"{api.where} answered without a workflow; is it the address of Argo's API?")
    return Submitted(metadata["name"], api.namespace, metadata["uid"], folder)


def _submission(body: Mapping[str, Any]) -> str | None:
    value: str | None = (body["metadata"].get("annotations") or {}).get(SUBMISSION)
    return value


def run_folder(template: Template, texts: Mapping[str, str], name: str) -> str | None:
    """The folder of the run in the store. None: the template does not define it."""
    if not template.ours or not texts.get("store") or not texts.get("cvat-output-path"):
        return None
    return f"{texts['store'].rstrip('/')}/{texts['cvat-output-path']}/{name}"


def tags(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Parse labels or annotations of the form `key=value`.

    Raises ConfigError: when Kubernetes does not allow them.
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
