"""What a WorkflowTemplate in the cluster takes, and what its installation allows."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from run_config.installation import Installation, parse_installation
from run_config.parameter_forms import ANNOTATION
from run_config.parameters import TEMPLATES
from workflows.cluster.errors import ForbiddenError, NoSuchKindError, NotThereError

CONTROLLER_LABEL = "workflows.argoproj.io/controller-instanceid"
"""Which of several controllers is to run a workflow: one that is not addressed leaves it lying."""

CONFIG_MAP = "detr-workflows"
"""The installation's ConfigMap under the chart's default name."""

SETTINGS_KEY = "settings.yaml"


class Api(Protocol):
    """What submitting needs, of the Kubernetes API or of Argo's server."""

    namespace: str

    @property
    def where(self) -> str:
        """Address of the API, for messages."""

    def template(self, name: str) -> dict[str, Any]:
        """The WorkflowTemplate `name`."""

    def template_names(self) -> list[str]:
        """The templates of the namespace."""

    def workflow(self, name: str) -> dict[str, Any]:
        """The Workflow `name`."""

    def create(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """Create a Workflow."""

    def settings(self, config_map: str) -> Mapping[str, str]:
        """The entries of the installation's ConfigMap."""

    def has_namespace(self) -> bool | None:
        """Whether the namespace exists; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of a template. `default` None: it must be given."""

    name: str
    default: str | None
    choices: tuple[str, ...]
    from_cluster: bool
    """Argo takes the default from a ConfigMap when the run starts."""


@dataclass(frozen=True, slots=True)
class Template:
    """A WorkflowTemplate."""

    name: str
    arguments: Mapping[str, Argument]
    config_map: str
    ours: bool
    """Its parameters are those of `run_config.parameters`."""
    controller: str | None = None
    """Instance id of the controller that the installation belongs to."""


def read_template(tree: Mapping[str, Any]) -> Template:
    """The template as the API gives it."""
    metadata, spec = tree["metadata"], tree.get("spec") or {}
    arguments = {}
    for one in (spec.get("arguments") or {}).get("parameters") or ():
        default = one.get("value", one.get("default"))
        arguments[one["name"]] = Argument(
            name=one["name"],
            default=None if default is None else _text(default),
            choices=tuple(map(_text, one.get("enum") or ())),
            from_cluster=default is None and one.get("valueFrom") is not None,
        )
    return Template(
        name=metadata["name"],
        arguments=arguments,
        config_map=_settings_config_map(spec),
        ours=metadata["name"] in TEMPLATES and ANNOTATION in (metadata.get("annotations") or {}),
        controller=(metadata.get("labels") or {}).get(CONTROLLER_LABEL),
    )


def _text(value: object) -> str:
    """A value as Argo takes it: where its definitions are the short ones, a number or a boolean may stand there."""
    return value if isinstance(value, str) else json.dumps(value)


def _settings_config_map(spec: Mapping[str, Any]) -> str:
    """The ConfigMap that the steps mount their settings from: the chart names it after its release."""
    for part in (spec, *(spec.get("templates") or ())):
        for volume in part.get("volumes") or ():
            source = volume.get("configMap") or {}
            if any(item.get("key") == SETTINGS_KEY for item in source.get("items") or ()):
                return str(source["name"])
    return CONFIG_MAP


def find_config_map(api: Api) -> str:
    """The installation's ConfigMap, by one of our templates; its default name where there is none."""
    for name in TEMPLATES:
        try:
            return read_template(api.template(name)).config_map
        except (NotThereError, ForbiddenError):
            continue
    return CONFIG_MAP


def find_template(api: Api, name: str) -> Template:
    """The template called `name`.

    Raises NotThereError: there is none, or no such namespace; the sentence names what is near.
    """
    try:
        return read_template(api.template(name))
    except NoSuchKindError:
        raise
    except NotThereError as error:
        if api.has_namespace() is False:
            raise _no_namespace(api) from error
        raise NotThereError(f"there is no workflow template {name} in {api.namespace}; {_others(api, name)}") from error


def _no_namespace(api: Api) -> NotThereError:
    return NotThereError(
        f"there is no namespace {api.namespace} in {api.where}; give the installation's with --namespace"
    )


def _others(api: Api, name: str) -> str:
    try:
        names = sorted(api.template_names())
    except ForbiddenError:
        return "which there are, you may not list"
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"did you mean {near[0]}?"
    if names:
        return f"there are {', '.join(names)}"
    return "there are none: install the chart detr-workflows there, or give another namespace with --namespace"


def find_installation(api: Api, config_map: str) -> Installation:
    """What the platform engineer has set.

    Raises ForbiddenError, NotThereError; ConfigError when the settings are not right.
    """
    try:
        entries = api.settings(config_map)
    except NotThereError as error:
        if api.has_namespace() is False:
            raise _no_namespace(api) from error
        raise NotThereError(
            f"the chart is not installed in {api.namespace}: it has no ConfigMap {config_map}; install it there, or "
            "give another namespace with --namespace"
        ) from error
    where = f"ConfigMap {config_map}, {SETTINGS_KEY}"
    if SETTINGS_KEY not in entries:
        raise NotThereError(f"the ConfigMap {config_map} has no key {SETTINGS_KEY}; install the chart again")
    return parse_installation(entries[SETTINGS_KEY], where)
