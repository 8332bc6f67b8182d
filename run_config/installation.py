"""What the platform engineer has set for everybody: node pools, and where runs may read and write.

In a cluster it is one file, `settings.yaml` of the chart's ConfigMap, mounted into every step and named
by DETR_WORKFLOWS_SETTINGS. No parameter can widen it. On a laptop there is none, and nothing is limited.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from run_config.errors import ConfigError
from run_config.locations import checked_url, is_below, key_below_store, overlaps, resolve, store_url
from run_config.parameters import BY_NAME, POOL_NAME, Role, Type, lines
from run_config.yaml_text import read_yaml

VARIABLE = "DETR_WORKFLOWS_SETTINGS"
"""Environment variable with the file's path."""

EXPORTS_VARIABLE = "DETR_WORKFLOWS_EXPORTS"
"""Environment variable with `Installation.exports`, where the bridge to CVAT is installed."""

EXPORTS = "cvat-exports"
"""Where the bridge keeps exports, unless its settings say otherwise."""

MAX_IMAGE_PIXELS = 100_000_000
"""Of one image, where the installation sets nothing else, or there is none."""
MAX_IMAGE_SIDE = 32_768
"""Of one image, in pixels; no setting changes it."""

LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
QUALIFIED_NAME = r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

Name = Annotated[str, StringConstraints(pattern=f"^{POOL_NAME.pattern}$")]
LabelValue = Annotated[str, StringConstraints(pattern=f"^{LABEL_VALUE}$")]
QualifiedName = Annotated[str, StringConstraints(pattern=f"^{QUALIFIED_NAME}$")]


def _checked_by(rule: Callable[[str], str]) -> AfterValidator:
    """The rule of `run_config.locations`, as pydantic takes it."""

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
"""What a run learns from: the step `export` hands it to `prepare`."""


class Part(BaseModel):
    """A mapping of the file; keys as the chart's values have them."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class NodePool(Part):
    """Nodes that a run may ask for, chosen by the value of one label."""

    name: Name
    title: str = ""
    label_value: LabelValue
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    gpu_count: int = Field(default=1, ge=0, le=16)
    """The most that one run may ask for; 0 where the nodes have none."""
    limit: int | None = Field(default=None, ge=0)
    """Training pods at a time; None: as many as the cluster takes."""
    tolerations: tuple[Mapping[str, Any], ...] = ()


class SecretKeys(Part):
    """What the store's keys are called in their secret."""

    access_key_id: str = "access-key-id"
    secret_access_key: str = "secret-access-key"  # noqa: S105 - a name
    session_token: str = "session-token"  # noqa: S105 - a name


class Installation(Part):
    """The whole file."""

    version: Literal[1] = 1
    store: StoreUrl
    """The only store that runs may use."""
    readable: tuple[PlaceUrl, ...] = ()
    """Further prefixes, as URLs, that runs may read from."""
    writable: tuple[Prefix, ...] = ()
    """Output prefixes below the store that runs may write to; empty: any."""
    store_secret: str = ""
    """Name of the secret with the store's keys; empty where credentials come from elsewhere."""
    store_secret_keys: SecretKeys = SecretKeys()
    exports: Prefix | Literal[""] = ""
    """Below it lie exports that the bridge to CVAT made for one person each: they are read as the data set alone."""
    node_pool_label: QualifiedName = "node.kubernetes.io/instance-type"
    node_pools: tuple[NodePool, ...] = ()
    max_image_pixels: int = Field(default=MAX_IMAGE_PIXELS, ge=1, le=MAX_IMAGE_SIDE**2)
    """An image with more is left out as if it were damaged."""

    def pool(self, name: str) -> NodePool:
        """The pool that a run asks for.

        Raises ConfigError: there is none of that name.
        """
        for pool in self.node_pools:
            if pool.name == name:
                return pool
        names = [pool.name for pool in self.node_pools]
        if not names:
            raise ConfigError(f"sys-node-pool: there are no node pools here; leave it empty, not {name!r}.")
        if not name:
            raise ConfigError(f"sys-node-pool is missing: one of {', '.join(names)}.")
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"sys-node-pool must be one of {', '.join(names)}, not {name!r}.{hint}")

    def allowed(self, texts: Mapping[str, str], types: Mapping[str, Type] | None = None) -> dict[str, str]:
        """Name → text, with a URL for every place that is read, when all of it is allowed here.

        What a text may be follows from the type of the parameter of that name; `types` has those of other names,
        such as keys of the job's configuration. Raises ConfigError: a line for each text that is not allowed.
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
        """One place, prefix or pool; a text of another type is always allowed."""
        if name in BY_NAME and BY_NAME[name].role is Role.STORE:
            if store_url(text) != self.store:
                raise ConfigError(f"{name} must be {self.store} here, not {text!r}; leave it as the form has it.")
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
        """The URL of what `text`, a URL or key, points to.

        Raises ConfigError: runs may not read there.
        """
        try:
            url = resolve(text, self.store)
        except ConfigError as error:
            raise ConfigError(f"{parameter}: {error}") from error
        if not any(is_below(url, prefix) for prefix in (self.store, *self.readable)):
            allowed = ", ".join((self.store, *self.readable))
            raise ConfigError(
                f"{parameter}: {url} may not be read here; allowed are {allowed}. "
                "Put the file there, or ask who runs this installation to allow the prefix."
            )
        kept = resolve(self.exports, self.store) if self.exports else ""
        if kept and parameter not in _DATASETS and overlaps(url, kept):
            raise ConfigError(
                f"{parameter}: {url} may not be read here: exports below {kept} are data sets of one person each; "
                "start the run from their task."
            )
        return url

    def require_writable(self, parameter: str, prefix: str) -> None:
        """Raise ConfigError when runs may not write below `prefix`, a key below the store."""
        try:
            prefix = key_below_store(prefix)
        except ConfigError as error:
            raise ConfigError(f"{parameter}: {error}") from error
        if self.writable and not any(is_below(prefix, allowed) for allowed in self.writable):
            raise ConfigError(
                f"{parameter}: {prefix!r} may not be written here; allowed are {', '.join(self.writable)} and what is "
                "below them."
            )


def permitted(texts: Mapping[str, str], types: Mapping[str, Type] | None = None) -> dict[str, str]:
    """What `Installation.allowed` gives for the installation that this process is part of; as given where it is none.

    Each step asks for itself, for all parameters of its workflow and under the options that it was given: whoever
    starts a workflow at another entrypoint leaves `check` out. Places come back as URLs, so that no key is taken for
    a path in the container. Raises ConfigError.
    """
    installation = load_installation()
    return dict(texts) if installation is None else installation.allowed(texts, types)


def load_installation(environment: Mapping[str, str] = os.environ) -> Installation | None:
    """The installation that this process is part of; None where it is part of none.

    Raises ConfigError: the file that the environment names is not there or not right.
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
    """Read the file's text; `where` names it in messages.

    Raises ConfigError: no YAML, or a value that is missing, wrong or unknown.
    """
    try:
        return Installation.model_validate(read_yaml(text, where))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ConfigError(f"{where}: {place}: {first['msg'].removeprefix('Value error, ')}") from error
