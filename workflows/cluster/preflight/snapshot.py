"""The state of an installation for `preflight`, read once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from run_config.errors import ConfigError
from run_config.installation import Installation, parse_installation
from run_config.parameters import TEMPLATES
from workflows.cluster.errors import ForbiddenError, NotThereError
from workflows.cluster.kubernetes import Kubernetes
from workflows.cluster.pod_needs import TemplateNeeds, needs_of
from workflows.cluster.templates import CONFIG_MAP, SETTINGS_KEY, Template, read_template


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A namespace and what the chart created in it."""

    cluster: Kubernetes
    trees: Mapping[str, Mapping[str, Any]]
    """Our templates in the namespace, as the API returns them."""
    templates: Mapping[str, Template]
    needs: Mapping[str, TemplateNeeds]
    config_map: str
    entries: Mapping[str, str] | None
    """The entries of the ConfigMap. None: it is missing, or the caller may not read it."""
    entries_error: NotThereError | ForbiddenError | None
    installation: Installation | None
    settings_error: str

    @property
    def namespace(self) -> str:
        """The namespace that is checked."""
        return self.cluster.namespace


def look(cluster: Kubernetes) -> Snapshot:
    """Read the state of the namespace.

    Raises NoSuchKindError: when Argo is not installed. Raises ForbiddenError: when the caller may not list templates.
    """
    trees = {tree["metadata"]["name"]: tree for tree in cluster.templates()}
    trees = {name: trees[name] for name in TEMPLATES if name in trees}
    templates = {name: read_template(tree) for name, tree in trees.items()}
    config_map = next((template.config_map for template in templates.values()), CONFIG_MAP)
    entries, entries_error = None, None
    try:
        entries = cluster.settings(config_map)
    except (NotThereError, ForbiddenError) as error:
        entries_error = error
    installation, settings_error = None, ""
    if entries is not None:
        try:
            installation = parse_installation(entries.get(SETTINGS_KEY, ""), f"ConfigMap {config_map}, {SETTINGS_KEY}")
        except ConfigError as error:
            settings_error = str(error)
    return Snapshot(
        cluster=cluster,
        trees=trees,
        templates=templates,
        needs={name: needs_of(tree) for name, tree in trees.items()},
        config_map=config_map,
        entries=entries,
        entries_error=entries_error,
        installation=installation,
        settings_error=settings_error,
    )
