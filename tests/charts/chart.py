"""Helm on the chart: rendered objects by kind and name, or the sentence with which it refuses."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "detr-workflows"
KUBERNETES = "1.34.0"
BUCKET = {"store": {"bucket": "parts"}}

POOLS = [
    {
        "name": "small",
        "title": "One small GPU",
        "labelValue": "gpu-small",
        "limit": 1,
        "tolerations": [{"key": "small", "operator": "Exists", "effect": "NoSchedule"}],
    },
    {"name": "large", "labelValue": "gpu-large", "gpuResource": "nvidia.com/mig-3g.40gb", "gpuCount": 4},
]


def helm() -> str:
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is not on the PATH: get it from https://helm.sh/docs/intro/install")
    return found


class Release:
    """What the chart makes of some values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.objects: list[dict[str, Any]] = [one for one in yaml.safe_load_all(text) if one]

    def of(self, kind: str, name: str) -> dict[str, Any]:
        found = [one for one in self.objects if one["kind"] == kind and one["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects {kind} {name}"
        return found[0]

    def names(self, kind: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.objects if one["kind"] == kind}

    def template(self, name: str = "detr-train") -> dict[str, Any]:
        return self.of("WorkflowTemplate", name)

    @property
    def templates(self) -> list[dict[str, Any]]:
        return [one for one in self.objects if one["kind"] == "WorkflowTemplate"]

    def step(self, name: str, template: str = "detr-train") -> dict[str, Any]:
        return next(one for one in self.template(template)["spec"]["templates"] if one["name"] == name)

    def steps(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(template/step, step) of every container in every template."""
        for manifest in self.templates:
            for step in manifest["spec"]["templates"]:
                if "container" in step:
                    yield f"{manifest['metadata']['name']}/{step['name']}", step

    def parameter(self, name: str, template: str = "detr-train") -> dict[str, Any]:
        arguments = self.template(template)["spec"]["arguments"]["parameters"]
        return next(one for one in arguments if one["name"] == name)

    def form(self, name: str, template: str = "detr-train") -> dict[str, Any]:
        annotations = self.template(template)["metadata"]["annotations"]
        fields = json.loads(annotations["detr-workflows/parameters"])["parameters"]
        return next(one for one in fields if one["name"] == name)

    @property
    def config(self) -> dict[str, str]:
        (found,) = (one for one in self.objects if one["kind"] == "ConfigMap" and "settings.yaml" in one["data"])
        return found["data"]

    @property
    def settings(self) -> dict[str, Any]:
        return yaml.safe_load(self.config["settings.yaml"])

    @property
    def artifacts(self) -> dict[str, Any]:
        return yaml.safe_load(self.config["artifacts"])


def rendered(values: Mapping[str, Any] = BUCKET, *, argo: bool = True) -> Release:
    """The chart with these values; store.bucket is set where they do not say it."""
    text = json.dumps(_with_bucket(values), sort_keys=True)
    result = _helm(text, argo)
    assert result.returncode == 0, result.stderr
    return Release(result.stdout)


def refusal(values: Mapping[str, Any], *, argo: bool = True) -> str:
    """What Helm says to values that it refuses."""
    result = _helm(json.dumps(values, sort_keys=True), argo)
    assert result.returncode != 0, "Helm took the values"
    return result.stderr


@cache
def _helm(values: str, argo: bool) -> subprocess.CompletedProcess[str]:
    command = [helm(), "template", "release", str(CHART), "--namespace", "ns", "--kube-version", KUBERNETES]
    command += ["--values", "-"]
    if argo:
        command += ["--api-versions", "argoproj.io/v1alpha1/WorkflowTemplate"]
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False, timeout=60)


def _with_bucket(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "store": {**BUCKET["store"], **values.get("store", {})}}


def variables(step: Mapping[str, Any]) -> dict[str, Any]:
    """Name → value or source of a step's environment."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in step["container"]["env"]}


def patch(step: Mapping[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(step.get("podSpecPatch", "{}"))
