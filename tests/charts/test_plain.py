"""Plain manifests for people without Helm, `render --settings` and manifests/, are what the chart would install."""

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.parameters import BRIDGE_TEMPLATES, TEMPLATES
from tests.charts.chart import POOLS, Release, helm, rendered, variables
from workflows import generated_files
from workflows.chart import plain_manifests

COMMAND = Path(sys.executable).parent / "detr-workflows"
SETTINGS: dict[str, dict[str, Any]] = {
    "pools": {
        "version": 1,
        "store": "s3://parts/team/a",
        "readable": ["s3://public/exports"],
        "writable": ["workflow-data"],
        "storeSecret": "keys",
        "nodePoolLabel": "karpenter.sh/nodepool",
        "nodePools": POOLS,
    },
    "without limits": {"version": 1, "store": "s3://parts", "storeSecret": "keys", "nodePools": POOLS[1:]},
    "without GPUs": {
        "version": 1,
        "store": "s3://parts",
        "nodePools": [{"name": "cpu", "labelValue": "cpu", "gpuCount": 0}],
    },
    "without pools or keys": {"version": 1, "store": "s3://parts/a"},
}


def render(settings: dict[str, Any], folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    command = [COMMAND, "render", "--settings", path, "--output", folder / "out", "--namespace", "ns", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@cache
def plain(name: str) -> Release:
    helm()
    options = ("--registry", "r.example.org/team", "--image-tag", "7", "--s3-region", "eu-1")
    with tempfile.TemporaryDirectory() as folder:
        result = render(SETTINGS[name], Path(folder), *options, "--s3-endpoint", "https://s3.example.org")
        assert result.returncode == 0, result.stderr
        texts = [Path(line).read_text() for line in result.stdout.splitlines()]
    return Release("---\n".join(texts))


def by_helm(name: str) -> Release:
    settings = SETTINGS[name]
    bucket, _, prefix = settings["store"].removeprefix("s3://").partition("/")
    image = {"tag": "7"}
    return rendered(
        {
            "images": {"registry": "r.example.org/team", "cpuSteps": image, "detrJob": image},
            "store": {
                "bucket": bucket,
                "prefix": prefix,
                "endpoint": "https://s3.example.org",
                "region": "eu-1",
                "readable": settings.get("readable", []),
                "writable": settings.get("writable", []),
                "existingSecret": settings.get("storeSecret", ""),
            },
            "nodePoolLabel": settings.get("nodePoolLabel", "node.kubernetes.io/instance-type"),
            "nodePools": settings.get("nodePools", []),
            # The plain templates name the secret and do without it.
            "webhook": {"existingSecret": "detr-workflows-webhook"},
        }
    )


def comparable(template: dict[str, Any]) -> dict[str, Any]:
    """A template's spec and form, with patches read: the two write the same in other words."""
    spec = copy.deepcopy(template["spec"])
    spec["podSpecPatch"] = yaml.safe_load(spec["podSpecPatch"])
    for step in spec["templates"]:
        step.get("container", {}).pop("imagePullPolicy", None)
        if "podSpecPatch" in step:
            step["podSpecPatch"] = yaml.safe_load(step["podSpecPatch"])
    form = yaml.safe_load(template["metadata"]["annotations"]["detr-workflows/parameters"])
    return {"spec": spec, "form": form, "namespace": template["metadata"]["namespace"]}


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name not in BRIDGE_TEMPLATES])
@pytest.mark.parametrize("settings", SETTINGS)
def test_templates_are_those_of_the_chart(template: str, settings: str):
    mine, charts = plain(settings), by_helm(settings)
    assert comparable(mine.template(template)) == comparable(charts.template(template))


@pytest.mark.parametrize("settings", SETTINGS)
def test_steps_and_argo_read_the_same_settings(settings: str, installation: Any):
    mine, charts = plain(settings), by_helm(settings)
    assert installation(mine) == installation(charts)
    assert mine.artifacts == charts.artifacts
    rest = [{k: v for k, v in one.config.items() if k not in ("settings.yaml", "artifacts")} for one in (mine, charts)]
    assert rest[0] == rest[1]


def test_accounts_and_roles_are_those_of_the_chart():
    mine, charts = plain("pools"), by_helm("pools")
    for name in ("detr-workflows", "detr-workflows-client"):
        for kind, part in (("Role", "rules"), ("RoleBinding", "subjects"), ("RoleBinding", "roleRef")):
            assert mine.of(kind, name)[part] == charts.of(kind, name)[part]
        assert mine.of("ServiceAccount", name)["automountServiceAccountToken"] is False
    assert {one["metadata"]["namespace"] for one in mine.objects} == {"ns"}


BRIDGE = """\
# of the workshop
cvat: {url: http://cvat-backend-service:8080, publicOrigin: https://cvat.example.org}
"""


def test_templates_that_talk_to_cvat_are_written_with_the_bridges_settings(tmp_path: Path):
    assert plain("pools").names("WorkflowTemplate").isdisjoint(BRIDGE_TEMPLATES)
    (tmp_path / "bridge.yaml").write_text(BRIDGE)
    result = render(
        SETTINGS["pools"], tmp_path, "--bridge", str(tmp_path / "bridge.yaml"), "--registry", "r.example.org"
    )
    assert result.returncode == 0, result.stderr
    release = Release("---\n".join(Path(line).read_text() for line in result.stdout.splitlines()))
    assert release.names("WorkflowTemplate") == set(TEMPLATES)
    assert release.of("ConfigMap", "detr-workflows-bridge")["data"] == {"bridge.yaml": BRIDGE}
    for name, template in (
        ("export", "cvat-train"),
        ("export-for-others", "cvat-train"),
        ("annotate", "detr-annotate"),
    ):
        step = release.step(name, template)
        assert variables(step)["CVAT_ACCESS_TOKEN"]["secretKeyRef"]["name"] == "detr-workflows-cvat"
        assert variables(step)["AWS_ACCESS_KEY_ID"]["secretKeyRef"]["name"] == "keys"
        assert step["container"]["image"].startswith("r.example.org/detr-workflows/")
    assert "pool.{{workflow.parameters.sys-node-pool}}" in str(release.step("annotate", "detr-annotate"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("cvat: [", "is not YAML"), ("url: x", "has no key cvat with the address of CVAT"), (None, "cannot be read")],
)
def test_a_bridge_that_is_not_described_is_refused(text: str | None, sentence: str, tmp_path: Path):
    path = tmp_path / "bridge.yaml"
    if text is not None:
        path.write_text(text)
    result = render(SETTINGS["pools"], tmp_path, "--bridge", str(path))
    assert (result.returncode, sentence in result.stderr) == (2, True)
    assert len(result.stderr.strip().splitlines()) == 1


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"store": "file:///data"}, (), "store must be s3://bucket/prefix in a cluster, not file:///data"),
    ({"store": "s3://parts", "nodePool": []}, (), "settings.yaml: nodePool: Extra inputs are not permitted"),
    ({"store": "s3://parts"}, ("--s3-endpoint", "s3.example.org"), "--s3-endpoint must be a URL such as"),
    ({"store": "s3://parts"}, ("--check",), "--settings needs --output"),
    ({"store": "s3://parts"}, ("--namespace", ""), "and --namespace, the namespace of the objects"),
]


@pytest.mark.parametrize(("settings", "options", "sentence"), REFUSED, ids=[one for *_, one in REFUSED])
def test_what_could_not_work_is_refused_in_one_line(
    settings: dict[str, Any], options: tuple[str, ...], sentence: str, tmp_path: Path
):
    result = render(settings, tmp_path, *options)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_settings_that_are_not_there_are_named(tmp_path: Path):
    command = [COMMAND, "render", "--settings", tmp_path / "no.yaml", "--output", tmp_path, "--namespace", "ns"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert f"--settings {tmp_path / 'no.yaml'} cannot be read: No such file or directory" in result.stderr


def test_without_helm_one_sentence_says_what_to_do(tmp_path: Path):
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(SETTINGS["pools"]))
    command = [COMMAND, "render", "--settings", "settings.yaml", "--output", "out", "--namespace", "ns"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env={**os.environ, "PATH": ""}
    )
    assert result.returncode == 2
    assert "helm is not on the PATH" in result.stderr
    assert "edit manifests/kustomization.yaml" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_what_the_chart_refuses_is_refused_in_one_line(tmp_path: Path):
    helm()
    result = render({"store": "s3://parts", "nodePools": [{"name": "a", "labelValue": x} for x in "bc"]}, tmp_path)
    assert result.returncode == 2
    assert "nodePools: the name a is used twice; give every pool its own name." in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_manifests_in_the_repository_are_rendered_from_the_chart():
    helm()
    files = plain_manifests.in_repository()
    assert generated_files.differences(files) == "", "run: detr-workflows render"
    assert set(files) == set((MANIFESTS / "rendered").iterdir())


MANIFESTS = Path(__file__).parents[2] / "manifests"
EDITS = {
    "namespace: detr\n": "namespace: ns\n",
    "registry.example.org/team/": "r.example.org/other/",
    "newTag: 0.1.0": "newTag: '7'",
    "parts": "vision",
    "https://s3.example.org": "http://s3.storage:9000",
    "endpoint: s3.example.org": "endpoint: s3.storage:9000",
    "insecure: false": "insecure: true",
    "us-east-1": "eu-1",
    "version: 1\n": "version: 1\n          readable: [s3://public/exports]\n",
}


def test_an_installation_edits_one_file_and_gets_what_the_chart_would_install(tmp_path: Path, installation: Any):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH")
    folder = shutil.copytree(MANIFESTS, tmp_path / "manifests")
    edited = (folder / "kustomization.yaml").read_text()
    for old, new in EDITS.items():
        assert old in edited
        edited = edited.replace(old, new)
    (folder / "kustomization.yaml").write_text(edited)
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True, timeout=60)
    mine = Release(built.stdout)
    image = {"tag": "7"}
    charts = rendered(
        {
            "images": {"registry": "r.example.org/other", "cpuSteps": image, "detrJob": image},
            "store": {
                "bucket": "vision",
                "endpoint": "http://s3.storage:9000",
                "region": "eu-1",
                "readable": ["s3://public/exports"],
                "existingSecret": "detr-workflows-store",
            },
            "webhook": {"existingSecret": "detr-workflows-webhook"},
        }
    )
    assert {one["metadata"]["name"] for one in mine.templates} == {one["metadata"]["name"] for one in charts.templates}
    for template in mine.names("WorkflowTemplate"):
        assert comparable(mine.template(template)) == comparable(charts.template(template))
    assert installation(mine) == installation(charts)
    assert mine.artifacts == charts.artifacts
    settings = ("settings.yaml", "artifacts", "store")
    assert {k: v for k, v in mine.config.items() if k not in settings} == {
        k: v for k, v in charts.config.items() if k not in settings
    }
    assert mine.config["store"] == charts.settings["store"]
    assert {one["metadata"]["namespace"] for one in mine.objects} == {"ns"}
    for kind, part in (("Role", "rules"), ("RoleBinding", "subjects"), ("RoleBinding", "roleRef")):
        for name in mine.names(kind):
            assert mine.of(kind, name)[part] == charts.of(kind, name)[part]
