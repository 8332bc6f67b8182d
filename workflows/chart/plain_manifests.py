"""Write the templates as plain YAML for one installation, for people who do not use Helm.

It applies the settings of an installation to the rendered templates, as the chart does: the store, the node pools, the
images and the names of secrets. All other values of the chart have their defaults.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from run_config import parameter_forms
from run_config.installation import EXPORTS, Installation, NodePool, parse_installation
from run_config.locations import store_url
from run_config.parameters import BRIDGE_TEMPLATES
from workflows.errors import WorkflowError

NAME = "detr-workflows"
"""Name of the ConfigMap and the service account, and prefix of all other names."""

GPU_ROLE = "train"
UNLIMITED = 1_000_000
"""Argo needs a number in a semaphore. This one stands for no limit, if another pool has a limit."""

Mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainOptions:
    """What the settings of an installation lack: the namespace, and the addresses of images and S3."""

    namespace: str
    registry: str = ""
    image_tag: str = ""
    """Empty: the version of this program."""
    s3_endpoint: str = ""
    """URL of an S3 server other than AWS."""
    s3_region: str = ""


def read_settings(path: Path) -> Installation:
    """Read the installation from a settings.yaml.

    Raises WorkflowError or ConfigError: when the file cannot be read or is invalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"--settings {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_installation(text, str(path))


def read_bridge(path: Path) -> str:
    """Read the text of the bridge's settings. The bridge itself validates them.

    Raises WorkflowError: when the file cannot be read, or is no settings file.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"--bridge {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise WorkflowError(f"--bridge {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or "cvat" not in tree:
        raise WorkflowError(
            f"--bridge {path} has no key cvat with the address of CVAT; see the example in docs/chart.md"
        )
    return text


def write(
    folder: Path, rendered: Path, installation: Installation, place: PlainOptions, bridge: str | None = None
) -> list[Path]:
    """Write installation.yaml and the templates of `rendered` into `folder`. Return the paths.

    `bridge`: the text of the bridge's settings. None: the templates that use CVAT are left out.

    Raises WorkflowError: when the store is not S3, the endpoint is not a URL, or a file cannot be written.
    """
    made = objects(installation, place)
    if bridge is not None:
        exports = yaml.safe_load(bridge).get("exports") or {}
        made[0]["data"]["exports-prefix"] = exports.get("prefix") or EXPORTS
        made.append(_object("v1", "ConfigMap", f"{NAME}-bridge", place, data={"bridge.yaml": bridge}))
    texts = {"installation.yaml": _documents(made)}
    for path in sorted(rendered.glob("*.yaml")):
        if bridge is None and path.stem in BRIDGE_TEMPLATES:
            continue
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        texts[path.name] = _documents([template(manifest, installation, place)])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkflowError(f"cannot write below {folder}: {error.strerror}; choose another --output") from error
    return [folder / name for name in texts]


def objects(installation: Installation, place: PlainOptions) -> list[Mapping]:
    """All objects that the templates need in their namespace, except secrets."""
    client = f"{NAME}-client"
    executor = [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
    submitter = [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get", "list"]},
        {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["create", "get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get"]},
    ]
    made = [_object("v1", "ConfigMap", NAME, place, data=_config(installation, place))]
    for name, rules in ((NAME, executor), (client, submitter)):
        made.append(_object("v1", "ServiceAccount", name, place, automountServiceAccountToken=False))
        made.append(_object("rbac.authorization.k8s.io/v1", "Role", name, place, rules=rules))
        subject = {"kind": "ServiceAccount", "name": name, "namespace": place.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        binding = _object("rbac.authorization.k8s.io/v1", "RoleBinding", name, place, roleRef=role, subjects=[subject])
        made.append(binding)
    return made


def template(rendered: Mapping, installation: Installation, place: PlainOptions) -> Mapping:
    """Return a copy of a rendered template with the settings of this installation."""
    manifest = copy.deepcopy(rendered)
    manifest["metadata"]["namespace"] = place.namespace
    _set_parameters(manifest, installation)
    for step in manifest["spec"]["templates"]:
        if "container" in step:
            _set_step(step, installation, place)
    return manifest


def pool_expression(pools: Sequence[NodePool], attribute: str) -> str:
    """An Argo expression that selects an attribute of the pool that a run names.

    Its result is a value of the installation or empty. It never contains user input, so it is safe in a pod's patch.
    """
    chain = " : ".join(
        f"workflow.parameters['sys-node-pool'] == '{pool.name}' ? '{getattr(pool, attribute)}'" for pool in pools
    )
    return f"{{{{={chain} : ''}}}}"


def bucket_and_prefix(installation: Installation) -> tuple[str, str]:
    """The bucket and the prefix of the store.

    Raises WorkflowError: when the store is not S3, since pods share no folder.
    """
    url = store_url(installation.store)
    if not url.startswith("s3://"):
        raise WorkflowError(f"store must be s3://bucket/prefix in a cluster, not {installation.store}")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix.strip("/")


def _set_parameters(manifest: Mapping, installation: Installation) -> None:
    """Set store and pools as defaults and choices, in Argo's parameters and in the form of the annotation."""
    annotations = manifest["metadata"]["annotations"]
    form = json.loads(annotations[parameter_forms.ANNOTATION])
    fields = {field["name"]: field for field in form["parameters"]}
    pools = installation.node_pools
    for argument in manifest["spec"]["arguments"]["parameters"]:
        field = fields[argument["name"]]
        match argument["name"]:
            case "store":
                argument["value"] = field["default"] = installation.store.rstrip("/")
            case "sys-node-pool" if pools:
                argument["value"] = field["default"] = pools[0].name
                argument["enum"] = field["choices"] = [pool.name for pool in pools]
                titles = [f"- `{pool.name}`: {pool.title}" if pool.title else f"- `{pool.name}`" for pool in pools]
                argument["description"] += "\n\n" + "\n".join(titles)
            case "gpu-count" if pools:
                most = max(pool.gpu_count for pool in pools)
                field["maximum"] = most
                if int(field["default"]) > most:
                    argument["value"] = field["default"] = str(most)
    annotations[parameter_forms.ANNOTATION] = json.dumps(form, ensure_ascii=False, separators=(",", ":"))


def _set_step(step: Mapping, installation: Installation, place: PlainOptions) -> None:
    container = step["container"]
    name, _, tag = container["image"].rpartition(":")
    registry = f"{place.registry.rstrip('/')}/" if place.registry else ""
    container["image"] = f"{registry}{name}:{place.image_tag or tag}"
    environment = []
    for variable in container["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef", {})
        if secret.get("name") == f"{NAME}-store":
            if not installation.store_secret:
                # Credentials come from elsewhere; a variable would override them.
                continue
            secret["name"] = installation.store_secret
            secret["key"] = _store_key(installation, secret["key"])
        if variable["name"] == "IMAGE_DIGEST":
            variable["value"] = container["image"]
        environment.append(variable)
    container["env"] = environment
    _, prefix = bucket_and_prefix(installation)
    for artifact in step.get("outputs", {}).get("artifacts", []) if prefix else []:
        artifact["s3"]["key"] = f"{prefix}/{artifact['s3']['key']}"
    if step["metadata"]["labels"]["app.kubernetes.io/component"] == GPU_ROLE and installation.node_pools:
        _set_pool(step, installation)


def _store_key(installation: Installation, name: str) -> str:
    """The name that the installation has for a key of the store's Secret."""
    keys = installation.store_secret_keys
    own = {"access-key-id": keys.access_key_id, "secret-access-key": keys.secret_access_key}
    return own.get(name, keys.session_token)


def _set_pool(step: Mapping, installation: Installation) -> None:
    """Set node selector, tolerations, GPUs and semaphore of a step that uses GPUs."""
    pools = installation.node_pools
    step["nodeSelector"] = {installation.node_pool_label: pool_expression(pools, "label_value")}
    for toleration in (dict(one) for pool in pools for one in pool.tolerations):
        if toleration not in step.setdefault("tolerations", []):
            step["tolerations"].append(toleration)
    patch = yaml.safe_load(step["podSpecPatch"])
    resources = patch["containers"][0]["resources"]
    (count,) = resources["limits"].values()
    resources["limits"] = {pool_expression(pools, "gpu_resource"): count}
    # JSON, because YAML would double the quotes of the expressions.
    step["podSpecPatch"] = json.dumps(patch, indent=2)
    if any(pool.limit is not None for pool in pools):
        semaphore = {"configMapKeyRef": {"name": NAME, "key": "pool.{{workflow.parameters.sys-node-pool}}"}}
        step["synchronization"] = {"semaphores": [semaphore]}


def _config(installation: Installation, place: PlainOptions) -> dict[str, str]:
    settings = installation.model_dump(mode="json", by_alias=True, exclude_none=True)
    config = {"settings.yaml": _yaml(settings), "artifacts": _yaml(_artifact_repository(installation, place))}
    if place.s3_endpoint:
        config["s3-endpoint"] = place.s3_endpoint
    if place.s3_region:
        config["s3-region"] = place.s3_region
    if any(pool.limit is not None for pool in installation.node_pools):
        for pool in installation.node_pools:
            config[f"pool.{pool.name}"] = str(UNLIMITED if pool.limit is None else pool.limit)
    return config


def _artifact_repository(installation: Installation, place: PlainOptions) -> Mapping:
    bucket, prefix = bucket_and_prefix(installation)
    endpoint = urlsplit(place.s3_endpoint or "https://s3.amazonaws.com")
    if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
        raise WorkflowError(f"--s3-endpoint must be a URL such as https://s3.example.org, not {place.s3_endpoint}")
    logs = "argo/{{workflow.name}}/{{pod.name}}"
    repository: Mapping = {
        "bucket": bucket,
        "endpoint": f"{endpoint.netloc}{endpoint.path}".rstrip("/"),
        "insecure": endpoint.scheme == "http",
        "keyFormat": f"{prefix}/{logs}" if prefix else logs,
    }
    if place.s3_region:
        repository["region"] = place.s3_region
    if installation.store_secret:
        keys = installation.store_secret_keys
        repository["accessKeySecret"] = {"name": installation.store_secret, "key": keys.access_key_id}
        repository["secretKeySecret"] = {"name": installation.store_secret, "key": keys.secret_access_key}
    return {"s3": repository}


def _object(api_version: str, kind: str, name: str, place: PlainOptions, **rest: object) -> Mapping:
    metadata = {"name": name, "namespace": place.namespace, "labels": {"app.kubernetes.io/part-of": NAME}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def _documents(manifests: Sequence[Mapping]) -> str:
    head = "# Written by `detr-workflows render --settings`. Edit the settings and write it again.\n"
    return head + "---\n".join(_yaml(manifest) for manifest in manifests)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as readable blocks, and repeated mappings without aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(value: object) -> str:
    # A line break inside a tag would become a blank.
    return yaml.dump(value, Dumper=_Dumper, width=10**6, allow_unicode=True, sort_keys=False)
