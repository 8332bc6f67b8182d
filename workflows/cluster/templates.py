"""Read the parameters of a WorkflowTemplate in the cluster, and the settings of its installation."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from run_config.installation import Installation, parse_installation
from run_config.parameter_forms import ANNOTATION
from run_config.parameters import TEMPLATES
from workflows.cluster.errors import ForbiddenError, NoSuchKindError, NotThereError

if TYPE_CHECKING:
    from workflows.cluster.argo_server import ArgoServer
    from workflows.cluster.kubernetes import Kubernetes

CONTROLLER_LABEL = "workflows.argoproj.io/controller-instanceid"
"""Label with the instance id of the controller that runs a workflow. Other controllers ignore the workflow."""

CONFIG_MAP = "detr-workflows"
"""The name of the installation's ConfigMap for a chart with the default name."""

SETTINGS_KEY = "settings.yaml"


Api: TypeAlias = "Kubernetes | ArgoServer"
"""The Kubernetes API or Argo's server."""


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter of a template. `default` None: a value is required."""

    name: str
    default: str | None
    choices: tuple[str, ...]
    from_cluster: bool
    """Whether Argo reads the default from a ConfigMap when the run starts."""


@dataclass(frozen=True, slots=True)
class Template:
    """A WorkflowTemplate."""

    name: str
    arguments: Mapping[str, Argument]
    config_map: str
    ours: bool
    """Whether its parameters are those of `run_config.parameters`."""
    controller: str | None = None
    """Instance id of the controller that the installation uses."""


def read_template(tree: Mapping[str, Any]) -> Template:
    """Read a template from its API object."""
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
    """A value as text, as Argo reads it. With Argo's short definitions, it may be a number or a boolean."""
    return value if isinstance(value, str) else json.dumps(value)


def _settings_config_map(spec: Mapping[str, Any]) -> str:
    """The ConfigMap with the settings that the steps mount. Its name depends on the release of the chart."""
    for part in (spec, *(spec.get("templates") or ())):
        for volume in part.get("volumes") or ():
            source = volume.get("configMap") or {}
            if any(item.get("key") == SETTINGS_KEY for item in source.get("items") or ()):
                return str(source["name"])
    return CONFIG_MAP


def find_config_map(api: Api) -> str:
    """The installation's ConfigMap, found through one of our templates. Without a template: the default name."""
    for name in TEMPLATES:
        try:
            return read_template(api.template(name)).config_map
        except (NotThereError, ForbiddenError):
            continue
    return CONFIG_MAP


def find_template(api: Api, name: str) -> Template:
    """The template `name`.

    Raises NotThereError: when the template or the namespace does not exist; the message suggests similar names.
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
        f"there is no namespace {api.namespace} in {api.where}; give the namespace of the installation with --namespace"
    )


def _others(api: Api, name: str) -> str:
    try:
        names = sorted(api.template_names())
    except ForbiddenError:
        return "you may not list the others"
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"did you mean {near[0]}?"
    if names:
        return f"there are {', '.join(names)}"
    return "there are none: install the chart detr-workflows there, or give another namespace with --namespace"


def find_installation(api: Api, config_map: str) -> Installation:
    """The settings of the platform engineer.

    Raises ForbiddenError: when the caller may not read them. Raises NotThereError: when they are missing. Raises
    ConfigError: when they are invalid.
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
