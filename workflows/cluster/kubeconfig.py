"""Find the address of the Kubernetes API and the credentials, in the same order as `kubectl`.

The order is: KUBECONFIG, then ~/.kube/config, then the service account of the pod in which this runs.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client import Configuration
from kubernetes.config import ConfigException, incluster_config, kube_config
from urllib3 import Retry

from workflows.cluster.errors import NoAccessError

DEFAULT = "~/.kube/config"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

_FILES: Any = kube_config  # the stubs lack the classes of these two
_POD: Any = incluster_config

# The library's exceptions for files that are not a kubeconfig, besides its own.
_UNREADABLE = (ConfigException, OSError, ValueError, TypeError, AttributeError, LookupError, yaml.YAMLError)


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """The address of the API and the credentials. `source` names their origin in messages."""

    configuration: Configuration
    source: str
    namespace: str
    """The namespace of the context. Default: `default`."""

    @property
    def server(self) -> str:
        """The address of the API."""
        return str(self.configuration.host)


def find_access(
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    service_account: str = SERVICE_ACCOUNT,
    default: str = DEFAULT,
) -> ClusterAccess:
    """Find the access to the cluster in the environment.

    Raises NoAccessError: when there is none, it cannot be read, or it has no such context.
    """
    named = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    paths = [Path(part).expanduser() for part in named or [default]]
    present = [path for path in paths if path.is_file()]
    if named and not present:
        raise NoAccessError(
            f"KUBECONFIG names {', '.join(named)}, which does not exist; correct the variable or unset it"
        )
    if present:
        return _from_files(present, context)
    token = Path(service_account, "token")
    if token.is_file() and "KUBERNETES_SERVICE_HOST" in environment:
        if context is not None:
            raise NoAccessError(f"--context {context}: inside a pod without a kubeconfig there are no contexts")
        return _from_service_account(Path(service_account), environment)
    raise NoAccessError(
        f"there is no kubeconfig: KUBECONFIG is not set, and {default} does not exist; get one from the cluster's "
        "operator, or use Argo's server with --server and --token-file"
    )


def _from_service_account(folder: Path, environment: Mapping[str, str]) -> ClusterAccess:
    configuration = _configuration()
    try:
        _POD.InClusterConfigLoader(
            token_filename=str(folder / "token"), cert_filename=str(folder / "ca.crt"), environ=environment
        ).load_and_set(configuration)
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
    except _UNREADABLE as error:
        raise NoAccessError(f"the pod's service account cannot be used: {_line(error)}") from error
    return ClusterAccess(configuration, "the pod's service account", namespace)


def _from_files(paths: list[Path], context: str | None) -> ClusterAccess:
    """The access of the chosen context. If several files define a name, the first file wins, as for `kubectl`."""
    source = ", ".join(map(str, paths))
    try:
        merged = _FILES.KubeConfigMerger(os.pathsep.join(map(str, paths)))
        contexts = [str(entry["name"]) for entry in merged.config["contexts"].value]
        # The library would use the last file's.
        current = (file.get("current-context") for file in merged.config_files.values())
        chosen = context or next(filter(None, current), None)
    except _UNREADABLE as error:
        raise NoAccessError(f"{source} cannot be read as a kubeconfig: {_line(error)}") from error
    names = ", ".join(contexts) or "none"
    if chosen is None:
        raise NoAccessError(f"{source} has no current context; choose one of {names} with --context")
    if chosen not in contexts:
        raise NoAccessError(f"{source} has no context {chosen}; there are {names}")
    configuration = _configuration()
    try:
        with _logged_errors_raised():
            _FILES.KubeConfigLoader(merged.config, active_context=chosen).load_and_set(configuration)
        tree = merged.config["contexts"].get_with_name(chosen)["context"]
        cluster = merged.config["clusters"].get_with_name(tree["cluster"])["cluster"]
    except _UNREADABLE as error:
        raise NoAccessError(
            f"the context {chosen} of {source} cannot be used: {_line(error)}; correct it with `kubectl config`"
        ) from error
    configuration.proxy = cluster.safe_get("proxy-url") or configuration.proxy
    return ClusterAccess(configuration, f"{source}, context {chosen}", str(tree.safe_get("namespace") or "default"))


def _configuration() -> Any:  # noqa: ANN401 - a Configuration, of which the stubs lack half
    configuration: Any = Configuration()
    configuration.client_side_validation = False  # a newer cluster may omit fields that the library expects
    configuration.retries = Retry(0)  # the callers retry
    return configuration


@contextmanager
def _logged_errors_raised() -> Iterator[None]:
    """Raise errors that the library only logs. After a failed login program it would continue without credentials."""
    errors: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(record.getMessage())

    root, kept = logging.getLogger(), Kept(logging.ERROR)
    others, root.handlers = root.handlers, [kept]
    try:
        yield
    finally:
        root.handlers = others
    if errors:
        raise ConfigException(f"its login program failed: {errors[0]}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
