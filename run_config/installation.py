"""The settings of an installation, which the platform engineer makes: node pools, and where runs may read and write.

In a cluster they are one file, `settings.yaml` in the chart's ConfigMap, which is mounted into every step. The
environment variable DETR_WORKFLOWS_SETTINGS holds its path. No parameter can extend the limits. A laptop has no such
file and no limits.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from run_config.data_limits import DataLimits
from run_config.environment import SETTINGS
from run_config.errors import ConfigError
from run_config.locations import checked_url, is_below, key_below_store, key_to_write, overlaps, resolve, store_url
from run_config.parameters import BY_NAME, POOL_NAME, Role, Type, lines
from run_config.yaml_text import read_yaml

VARIABLE = SETTINGS
"""Environment variable with the path of the settings file."""

EXPORTS_VARIABLE = "DETR_WORKFLOWS_EXPORTS"
"""Environment variable with `Installation.exports`. It is set where the bridge to CVAT is installed."""

EXPORTS = "cvat-exports"
"""The default prefix at which the bridge stores exports."""

MAX_IMAGE_PIXELS = 100_000_000
"""Default limit of the pixels of one image, also without an installation."""
MAX_IMAGE_SIDE = 32_768
"""Fixed limit of each side of an image, in pixels."""

LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
QUALIFIED_NAME = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LICENCE = r"[A-Za-z0-9][-A-Za-z0-9.+]{0,63}"

Name = Annotated[str, StringConstraints(pattern=f"^{POOL_NAME.pattern}$")]
LabelValue = Annotated[str, StringConstraints(pattern=f"^{LABEL_VALUE}$")]
Licence = Annotated[str, StringConstraints(pattern=f"^{LICENCE}$")]
QualifiedName = Annotated[str, StringConstraints(pattern=f"^{QUALIFIED_NAME}$")]


def _checked_by(rule: Callable[[str], str]) -> AfterValidator:
    """Use a rule of `run_config.locations` as a pydantic validator."""

    def check(text: str) -> str:
        try:
            return rule(text)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    return AfterValidator(check)


StoreUrl = Annotated[str, _checked_by(store_url)]
PlaceUrl = Annotated[str, _checked_by(checked_url)]
Prefix = Annotated[str, _checked_by(key_below_store)]
"""A key below the store."""


_DATASETS = frozenset(one.name for one in BY_NAME.values() if one.role is Role.DATASET)
"""The parameters that name training data. The step `export` passes them to `prepare`."""


class Part(BaseModel):
    """A mapping in the settings file. Its keys have the same names as in the chart's values."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class NodePool(Part):
    """Nodes that a run may request, selected by the value of one label."""

    name: Name
    title: str = ""
    label_value: LabelValue
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    gpu_count: int = Field(default=1, ge=0, le=16)
    """The largest number of GPUs that one run may request. 0: the nodes have no GPUs."""
    limit: int | None = Field(default=None, ge=0)
    """The largest number of training pods at a time. None: as many as the cluster can run."""
    tolerations: tuple[Mapping[str, Any], ...] = ()


class SecretKeys(Part):
    """The names of the keys in the Secret with the store's credentials."""

    access_key_id: str = "access-key-id"
    secret_access_key: str = "secret-access-key"  # noqa: S105 - a name
    session_token: str = "session-token"  # noqa: S105 - a name


class WeightsSettings(Part):
    """Published weights."""

    allowed_licences: tuple[Licence, ...] = ()
    """Licences (SPDX) that the catalogue may show besides permissive ones."""


class Installation(Part):
    """The whole settings file."""

    version: Literal[1] = 1
    store: StoreUrl
    """The only store that runs may use."""
    readable: tuple[PlaceUrl, ...] = ()
    """Additional URL prefixes that runs may read from."""
    writable: tuple[Prefix, ...] = ()
    """Prefixes below the store that runs may write to. Empty: any prefix."""
    store_secret: str = ""
    """Name of the Secret with the store's credentials. Empty: the credentials come from elsewhere."""
    store_secret_keys: SecretKeys = SecretKeys()
    exports: Prefix | Literal[""] = ""
    """Prefix of the exports that the bridge to CVAT makes, each for one person. They may only be training data."""
    node_pool_label: QualifiedName = "node.kubernetes.io/instance-type"
    node_pools: tuple[NodePool, ...] = ()
    max_image_pixels: int = Field(default=MAX_IMAGE_PIXELS, ge=1, le=MAX_IMAGE_SIDE**2)
    """An image with more pixels is left out, like a damaged one."""
    data_limits: DataLimits = DataLimits()
    """How much of the training data may be wrong."""
    weights: WeightsSettings = WeightsSettings()

    def pool(self, name: str) -> NodePool:
        """The pool of that name.

        Raises ConfigError: when there is no pool of that name.
        """
        for pool in self.node_pools:
            if pool.name == name:
                return pool
        names = [pool.name for pool in self.node_pools]
        if not names:
            raise ConfigError(f"sys-node-pool: this installation has no node pools; leave it empty, not {name!r}.")
        if not name:
            raise ConfigError(f"sys-node-pool is missing: one of {', '.join(names)}.")
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"sys-node-pool must be one of {', '.join(names)}, not {name!r}.{hint}")

    def allowed(self, texts: Mapping[str, str], types: Mapping[str, Type] | None = None) -> dict[str, str]:
        """Check texts against what the installation allows. Return them by name, each place to read as a URL.

        The type of a parameter decides what is checked. `types` gives the types of other names, such as keys of the
        job's configuration.

        Raises ConfigError: one line for each text that is not allowed.
        """
        kinds: dict[str, Type] = {one.name: one.type for one in BY_NAME.values()} | dict(types or {})
        checked, mistakes = dict[str, str](), list[str]()
        for name, text in texts.items():
            kind, found = kinds.get(name), list[str]()
            places = kind in (Type.LOCATION, Type.LOCATIONS)
            for part in (places and lines(text)) or (text,):
                try:
                    found.append(self._allowed(name, part, kind))
                except ConfigError as error:
                    mistakes.append(str(error))
            checked[name] = "\n".join(found)
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return checked

    def _allowed(self, name: str, text: str, kind: Type | None) -> str:
        """Check one place, prefix or pool. A text of any other type is always allowed."""
        if name in BY_NAME and BY_NAME[name].role is Role.STORE:
            if store_url(text) != self.store:
                raise ConfigError(
                    f"{name} must be {self.store} here, not {text!r}; do not change the default of the form."
                )
            return text
        match kind:
            case Type.LOCATION | Type.LOCATIONS if text.strip():
                return self.require_readable(name, text)
            case Type.KEY:
                self.require_writable(name, text)
            case Type.NODE_POOL if text or self.node_pools:
                self.pool(text)
        return text

    def require_readable(self, parameter: str, text: str) -> str:
        """The URL of `text`, which is a URL or a key below the store.

        Raises ConfigError: when runs may not read there.
        """
        try:
            url = resolve(text, self.store)
        except ConfigError as error:
            raise ConfigError(f"{parameter}: {error}") from error
        if not any(is_below(url, prefix) for prefix in (self.store, *self.readable)):
            allowed = ", ".join((self.store, *self.readable))
            raise ConfigError(
                f"{parameter}: {url} may not be read here; allowed are {allowed}. "
                "Put the file there, or ask the operator of this installation to allow the prefix."
            )
        kept = resolve(self.exports, self.store) if self.exports else ""
        if kept and parameter not in _DATASETS and overlaps(url, kept):
            raise ConfigError(
                f"{parameter}: {url} may not be read here: exports below {kept} each belong to one person; "
                "start the run from the task in CVAT."
            )
        return url

    def require_writable(self, parameter: str, prefix: str) -> None:
        """Check that runs may write below `prefix`, a key below the store. Raises ConfigError: when they may not."""
        try:
            prefix = key_to_write(prefix)
        except ConfigError as error:
            raise ConfigError(f"{parameter}: {error}") from error
        if self.writable and not any(is_below(prefix, allowed) for allowed in self.writable):
            raise ConfigError(
                f"{parameter}: {prefix!r} may not be written here; allowed are {', '.join(self.writable)} and what is "
                "below them."
            )


def permitted(texts: Mapping[str, str], types: Mapping[str, Type] | None = None) -> dict[str, str]:
    """Apply `Installation.allowed` of the current installation. Without an installation, return the texts unchanged.

    Each step calls this for all parameters of its workflow and the options that it was given, because a workflow that
    is started at another entrypoint skips `check`. Places are returned as URLs, so that a key is never read as a path
    in the container.

    Raises ConfigError: when a text is not allowed.
    """
    installation = load_installation()
    return dict(texts) if installation is None else installation.allowed(texts, types)


def load_installation(environment: Mapping[str, str] = os.environ) -> Installation | None:
    """The settings of the current installation. None: the environment names no settings file.

    Raises ConfigError: when the settings file is missing or invalid.
    """
    path = environment.get(VARIABLE)
    if not path:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"the installation's settings are missing ({path}): the ConfigMap of the chart is not in this namespace, "
            "or has no key settings.yaml; install the chart detr-workflows here"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the installation's settings {path} cannot be read: {error}") from error
    installation = parse_installation(text, path)
    exports = environment.get(EXPORTS_VARIABLE)
    if not exports:
        return installation
    try:
        return installation.model_copy(update={"exports": key_below_store(exports)})
    except ConfigError as error:
        raise ConfigError(f"{EXPORTS_VARIABLE}: {error}") from error


def parse_installation(text: str, where: str) -> Installation:
    """Parse the text of a settings file. `where` names it in messages.

    Raises ConfigError: when it is not YAML, or a value is missing, wrong or unknown.
    """
    try:
        return Installation.model_validate(read_yaml(text, where))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
