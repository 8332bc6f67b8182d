"""The way to the Kubernetes API that `kubectl` would take, and the credentials for it.

KUBECONFIG, then ~/.kube/config, then the service account of the pod that this runs in.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import NameValue, User
from lightkube.core.exceptions import ConfigError

from workflows.cluster.errors import NoAccessError

DEFAULT = "~/.kube/config"

# Paths in a kubeconfig are relative to the file that names them.
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_LISTS = (("clusters", "cluster"), ("users", "user"), ("contexts", "context"))

_EXEC_VERSION = "client.authentication.k8s.io/v1"
_EXEC_VERSION_KNOWN = "client.authentication.k8s.io/v1beta1"


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """Where the API is and who asks. `source` is what a message calls it."""

    config: SingleConfig
    source: str

    @property
    def namespace(self) -> str:
        """The namespace that the context names, else `default`."""
        return self.config.namespace

    @property
    def server(self) -> str:
        """Address of the API."""
        return self.config.cluster.server


def find_access(
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    service_account: str = SERVICE_ACCOUNT,
    default: str = DEFAULT,
) -> Access:
    """The access that the environment gives.

    Raises NoAccessError: there is none, or it cannot be read, or it has no such context.
    """
    named = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    paths = [Path(part).expanduser() for part in named or [default]]
    present = [path for path in paths if path.is_file()]
    if named and not present:
        raise NoAccessError(f"KUBECONFIG names {', '.join(named)}, which is not there; mend the variable or unset it")
    if present:
        return _from_files(present, context)
    if Path(service_account, "token").is_file() and "KUBERNETES_SERVICE_HOST" in environment:
        if context is not None:
            raise NoAccessError(f"--context {context}: inside a pod without a kubeconfig there are no contexts")
        try:
            own = KubeConfig.from_service_account(service_account).get()
        except (ConfigError, OSError, KeyError) as error:
            raise NoAccessError(f"the pod's service account cannot be used: {error}") from error
        if own is not None:
            return Access(own, "the pod's service account")
    raise NoAccessError(
        f"there is no kubeconfig: neither KUBECONFIG is set nor {default} there; get one from who runs the cluster, "
        "or go through Argo's server with --server and --token-file"
    )


def _from_files(paths: list[Path], context: str | None) -> Access:
    """The chosen context; of several files the first that names a thing decides, as for `kubectl`."""
    source = ", ".join(map(str, paths))
    merged: dict[str, Any] = {name: [] for name, _ in _LISTS}
    for path in paths:
        tree = _read(path)
        if tree.get("current-context"):
            merged.setdefault("current-context", tree["current-context"])
        for name, _ in _LISTS:
            have = {entry["name"] for entry in merged[name]}
            merged[name] += [entry for entry in tree[name] if entry["name"] not in have]
    try:
        config = KubeConfig.from_dict(merged).get(context)
    except ConfigError as error:
        names = ", ".join(entry["name"] for entry in merged["contexts"]) or "none"
        if context is None:
            raise NoAccessError(
                f"{source} has no current context; choose one with --context (there are {names})"
            ) from error
        raise NoAccessError(f"{source} has no context {context}; there are {names}") from error
    except (KeyError, ValueError) as error:
        raise NoAccessError(f"{source} contradicts itself ({error}); mend it with `kubectl config`") from error
    if config is None:
        raise NoAccessError(f"{source} has no context to use; choose one with --context")
    return Access(config._replace(user=_with_newer_exec(config)), f"{source}, context {config.context_name}")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise NoAccessError(f"the kubeconfig {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise NoAccessError(f"{path} is not a kubeconfig")
    for name, inner in _LISTS:
        entries = tree.get(name) or []
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and "name" in entry and isinstance(entry.get(inner), dict) for entry in entries
        ):
            raise NoAccessError(f"{path} is not a kubeconfig: {name} must be a list of names, each with a {inner}")
        tree[name] = entries
        for entry in entries:
            for key in _PATHS:
                if entry[inner].get(key):
                    entry[inner][key] = str(path.parent / Path(entry[inner][key]).expanduser())
    return tree


def _with_newer_exec(config: SingleConfig) -> User | None:
    """The user, with a login program of version v1 called as the library calls one of v1beta1.

    Both answer with the same JSON; a v1 program reads from its environment who asks.
    """
    user = config.user
    if user is None or user.exec is None or user.exec.apiVersion != _EXEC_VERSION:
        return user
    asked = {"apiVersion": _EXEC_VERSION, "kind": "ExecCredential", "spec": {"interactive": False}}
    user.exec.apiVersion = _EXEC_VERSION_KNOWN
    user.exec.env = [*(user.exec.env or []), NameValue(name="KUBERNETES_EXEC_INFO", value=json.dumps(asked))]
    return user
