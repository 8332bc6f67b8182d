"""Plain manifests for people who do not use Helm: the objects that `helm template` makes from the chart.

The repository keeps those of an example installation in `manifests/rendered`. `manifests/kustomization.yaml` changes
them for another installation with `kubectl` alone.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from run_config import parameter_forms
from run_config.installation import EXPORTS, Installation, parse_installation
from workflows.errors import WorkflowError

NAME = "detr-workflows"
"""Name of the ConfigMap and the service account, and prefix of all other names."""

CHART = Path(__file__).parents[2] / "charts" / NAME
"""The chart in the repository. An installed package has no chart."""

PARTS = ("configmap", "rbac", "serviceaccounts", "workflowtemplates")
"""The chart's files with the objects that runs need. Secrets and the services for CVAT are left out."""

EXAMPLE = {"store": {"bucket": "parts", "existingSecret": f"{NAME}-store"}}
"""The values of the manifests in the repository."""

Values = dict[str, Any]


def read_settings(path: Path) -> Installation:
    """Read the installation from a settings.yaml.

    Raises WorkflowError or ConfigError: when the file cannot be read or is invalid.
    """
    return parse_installation(_read("--settings", path), str(path))


def read_bridge(path: Path) -> tuple[str, Values]:
    """Read the bridge's settings: the text, and the chart's values that follow. The bridge validates the rest.

    Raises WorkflowError: when the file cannot be read, or is no settings file.
    """
    text = _read("--bridge", path)
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WorkflowError(f"--bridge {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("cvat"), dict):
        raise WorkflowError(
            f"--bridge {path} has no key cvat with the address of CVAT; see the example in docs/chart.md"
        )
    places = {key: tree["cvat"].get(key) for key in ("url", "publicOrigin")}
    prefix = (tree.get("exports") or {}).get("prefix") or EXPORTS
    return text, {"enabled": True, "cvat": places, "exports": {"prefix": prefix}}


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def values(
    installation: Installation, *, registry: str = "", image_tag: str = "", s3_endpoint: str = "", s3_region: str = ""
) -> Values:
    """The chart's values for an installation. An empty `image_tag` is the chart's version.

    Raises WorkflowError: when the store is not S3, since pods share no folder, or the endpoint is not a URL.
    """
    if not installation.store.startswith("s3://"):
        raise WorkflowError(f"store must be s3://bucket/prefix in a cluster, not {installation.store}")
    if s3_endpoint and not s3_endpoint.startswith(("https://", "http://")):
        raise WorkflowError(f"--s3-endpoint must be a URL such as https://s3.example.org, not {s3_endpoint}")
    bucket, _, prefix = installation.store.removeprefix("s3://").partition("/")
    # The names in the settings file are those of the chart's values.
    given = installation.model_dump(mode="json", by_alias=True, exclude_none=True)
    image = {"tag": image_tag}
    return {
        "images": {"registry": registry, "cpuSteps": image, "detrJob": image, "cvatBridge": image},
        "store": {
            "bucket": bucket,
            "prefix": prefix.strip("/"),
            "endpoint": s3_endpoint,
            "region": s3_region,
            "existingSecret": given["storeSecret"],
            "secretKeys": given["storeSecretKeys"],
            "readable": given["readable"],
            "writable": given["writable"],
        },
        **{key: given[key] for key in ("nodePoolLabel", "nodePools", "maxImagePixels", "dataLimits", "weights")},
    }


def rendered(chart_values: Values, namespace: str, bridge_text: str = "") -> dict[str, str]:
    """File name → text: installation.yaml, and a file for each workflow template.

    `bridge_text`: the bridge's settings, if the values enable the templates that use CVAT.

    Raises WorkflowError: when Helm or the chart is missing, or Helm refuses the values.
    """
    files = _manifests(chart_values, namespace)
    if bridge_text:
        metadata = {**files["installation.yaml"][0]["metadata"], "name": f"{NAME}-bridge"}
        bridge = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"bridge.yaml": bridge_text}}
        files["installation.yaml"].append(bridge)
    return {name: _documents(manifests) for name, manifests in files.items()}


def in_repository() -> dict[Path, str]:
    """Path → text of the manifests in the repository, and of the replacements for Kustomize.

    Raises WorkflowError: when Helm is missing.
    """
    files = _manifests(EXAMPLE, NAME)
    templates = [one for manifests in files.values() for one in manifests if one["kind"] == "WorkflowTemplate"]
    files["replacements.yaml"] = [_store_replacement(templates)]
    return {CHART.parents[1] / "manifests" / "rendered" / name: _documents(found) for name, found in files.items()}


def _manifests(chart_values: Values, namespace: str) -> dict[str, list[Values]]:
    # Without Argo's definitions Helm renders as well, and the templates do without the webhook's secret.
    given = {**chart_values, "argo": {"required": False}, "webhook": {"existingSecret": f"{NAME}-webhook"}}
    files: dict[str, list[Values]] = {"installation.yaml": []}
    manifests = yaml.safe_load_all(_helm_template(json.dumps(given), namespace))
    for manifest in sorted(manifests, key=lambda one: (one["kind"], one["metadata"]["name"])):
        metadata = manifest["metadata"]
        del metadata["labels"]["app.kubernetes.io/managed-by"], metadata["labels"]["helm.sh/chart"]
        name = f"{metadata['name']}.yaml" if manifest["kind"] == "WorkflowTemplate" else "installation.yaml"
        files.setdefault(name, []).append(manifest)
    return files


def _helm_template(values_text: str, namespace: str) -> str:
    helm = shutil.which("helm")
    if helm is None:
        raise WorkflowError(
            "helm is not on the PATH, and these manifests come from the chart: install Helm "
            "(https://helm.sh/docs/intro/install), or edit manifests/kustomization.yaml, which needs kubectl only"
        )
    # A package that was not installed in place is used from a checkout.
    chart = CHART if CHART.is_dir() else Path("charts", NAME)
    if not chart.is_dir():
        raise WorkflowError(f"the folder charts/{NAME} is missing here; run this command in a checkout")
    command = [helm, "template", NAME, str(chart), "--namespace", namespace, "--kube-version", "1.27.0"]
    command += ["--values", "-", *(f"--show-only=templates/{part}.yaml" for part in PARTS)]
    result = subprocess.run(command, input=values_text, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise WorkflowError(f"Helm refuses these settings: {' '.join(result.stderr.removeprefix('Error: ').split())}")
    return result.stdout


def _store_replacement(templates: Sequence[Values]) -> Values:
    """Let Kustomize copy the store's URL from the ConfigMap into the parameter `store` and the templates' forms."""
    store = f"s3://{EXAMPLE['store']['bucket']}"
    select: Values = {"kind": "WorkflowTemplate"}
    targets: list[Values] = [{"select": select, "fieldPaths": ["spec.arguments.parameters.[name=store].value"]}]
    for template in templates:
        form = template["metadata"]["annotations"][parameter_forms.ANNOTATION]
        targets.append(
            {
                "select": {**select, "name": template["metadata"]["name"]},
                "fieldPaths": [f"metadata.annotations.{parameter_forms.ANNOTATION}"],
                # The form is JSON: the URL is a text between two quotes.
                "options": {"delimiter": '"', "index": form.split('"').index(store)},
            }
        )
    return {"source": {"kind": "ConfigMap", "name": NAME, "fieldPath": "data.store"}, "targets": targets}


def _documents(manifests: Sequence[Values]) -> str:
    head = "# Rendered by `detr-workflows render` from the chart. Do not edit.\n"
    # A line break inside a tag would become a blank.
    return head + yaml.dump_all(manifests, Dumper=_Dumper, width=10**6, allow_unicode=True, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as readable blocks, and repeated mappings without aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
