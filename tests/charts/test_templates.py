"""The workflow templates pass through Helm whole: tags, strings, names and labels."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.parameters import BRIDGE_TEMPLATES, BY_NAME, TEMPLATES, WEIGHTS_TEMPLATE
from tests.charts.chart import CHART, POOLS, rendered, variables

RENDERED = Path(__file__).parents[2] / "workflows" / "rendered"
WITHOUT_BRIDGE = [name for name in TEMPLATES if name not in BRIDGE_TEMPLATES]
TAG = re.compile(r"\{\{.*?\}\}")


def texts(value: Any) -> list[str]:
    """Every string in a document, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in texts(part)]
    return [value] if isinstance(value, str) else []


def tags(value: Any) -> list[str]:
    return sorted(tag for text in texts(value) for tag in TAG.findall(text))


def test_no_tag_of_argo_is_eaten():
    release = rendered()
    for path in (RENDERED / f"{name}.yaml" for name in WITHOUT_BRIDGE):
        before = tags(yaml.safe_load(path.read_text()))
        assert len(before) > (5 if path.stem == WEIGHTS_TEMPLATE else 10)
        assert tags(release.template(path.stem)) == before


def test_default_values_change_nothing_that_a_run_does():
    """The chart's own defaults are those of the rendered files: resources, retries, places to write, security."""
    release = rendered(
        {"store": {"existingSecret": "detr-workflows-store"}, "webhook": {"existingSecret": "detr-workflows-webhook"}}
    )
    for path in (RENDERED / f"{name}.yaml" for name in WITHOUT_BRIDGE):
        before = yaml.safe_load(path.read_text())["spec"]
        after = release.template(path.stem)["spec"]
        for spec in (before, after):
            spec["arguments"]["parameters"] = [one for one in spec["arguments"]["parameters"] if one["name"] != "store"]
            spec["podSpecPatch"] = yaml.safe_load(spec["podSpecPatch"])
            for step in spec["templates"]:
                step.get("container", {}).pop("imagePullPolicy", None)
                if "podSpecPatch" in step:
                    step["podSpecPatch"] = yaml.safe_load(step["podSpecPatch"])
        assert after == before


def test_all_templates_are_there_and_those_for_runs_are_known_to_cvat():
    release = rendered()
    assert release.names("WorkflowTemplate") == set(WITHOUT_BRIDGE)
    for template in release.templates:
        of_a_run = template["metadata"]["name"] != WEIGHTS_TEMPLATE
        assert template["metadata"]["labels"].get("used-by") == ("cvat" if of_a_run else None)
        assert template["metadata"]["namespace"] == "ns"


@pytest.mark.parametrize("text", ["0.0001", "1e3", "42", "007", "1"])
def test_a_default_that_looks_like_a_number_stays_a_string(text: str):
    release = rendered({"parameters": {"learning-rate": {"default": "0.0001"}, "cvat-output-path": {"default": text}}})
    assert release.parameter("learning-rate")["value"] == "0.0001"
    assert release.parameter("cvat-output-path")["value"] == text
    assert f"value: {text}\n" not in release.text


def test_everything_argo_gets_as_a_parameter_is_a_string():
    release = rendered({"nodePools": POOLS, "parameters": {"epochs": {"default": "50", "enum": ["50", "100"]}}})
    for template in release.templates:
        for one in template["spec"]["arguments"]["parameters"]:
            assert all(
                isinstance(text, str) for text in (one.get("value", ""), one["description"], *one.get("enum", []))
            )


def test_defaults_and_choices_reach_argo_and_the_form():
    release = rendered({"parameters": {"model": {"default": "detr-r18", "enum": ["detr-r18", "tiny"]}}})
    assert release.parameter("model")["value"] == release.form("model")["default"] == "detr-r18"
    assert release.parameter("model")["enum"] == release.form("model")["choices"] == ["detr-r18", "tiny"]


def test_parameters_keep_their_order_and_number():
    release = rendered({"nodePools": POOLS})
    for name in WITHOUT_BRIDGE:
        taken = TEMPLATES[name]
        arguments = release.template(name)["spec"]["arguments"]["parameters"]
        assert [one["name"] for one in arguments] == [one.name for one in taken]


def test_the_forms_of_a_default_installation_are_those_of_the_specification():
    release = rendered()
    for parameter in TEMPLATES["detr-train"]:
        field = release.form(parameter.name)
        assert field["help"] == BY_NAME[parameter.name].help
        if parameter.limits.minimum is not None:
            assert field.get("minimum", field.get("exclusiveMinimum")) == parameter.limits.minimum


def test_a_name_of_ones_own_reaches_every_reference():
    release = rendered({"fullnameOverride": "vision", "nodePools": POOLS, "store": {"existingSecret": "keys"}})
    assert release.names("ConfigMap") == {"vision"}
    assert release.names("ServiceAccount") == release.names("Role") == {"vision", "vision-client", "vision-tell"}
    for template in release.templates:
        assert template["spec"]["serviceAccountName"] == "vision"
        assert template["spec"]["artifactRepositoryRef"] == {"configMap": "vision", "key": "artifacts"}
    for name, step in release.steps():
        (settings,) = (one for one in step["volumes"] if one["name"] == "settings")
        assert settings["configMap"]["name"] == "vision", name
        assert variables(step)["AWS_ENDPOINT_URL"]["configMapKeyRef"]["name"] == "vision"
    semaphore = release.step("train")["synchronization"]["semaphores"][0]["configMapKeyRef"]
    assert semaphore["name"] == "vision"
    client = release.of("Role", "vision-client")
    assert client["rules"][-1]["resourceNames"] == ["vision"]


def test_every_object_has_the_standard_labels_and_those_of_the_values():
    release = rendered(
        {
            "commonLabels": {"team": "vision"},
            "commonAnnotations": {"owner": "vision@example.org"},
            "namespaceOverride": "elsewhere",
            "networkPolicy": {"enabled": True},
            "store": {"trialCredentials": {"accessKeyId": "a", "secretAccessKey": "b"}},
        }
    )
    assert len(release.objects) > 12
    for one in release.objects:
        metadata = one["metadata"]
        assert metadata["namespace"] == "elsewhere"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "detr-workflows"
        assert metadata["labels"]["team"] == "vision"
        assert metadata["annotations"]["owner"] == "vision@example.org"
    spec = release.template()["spec"]
    assert spec["podMetadata"]["labels"]["team"] == spec["workflowMetadata"]["labels"]["team"] == "vision"


def test_a_controller_with_an_instance_id_finds_its_objects():
    release = rendered({"argo": {"instanceID": "team-a"}})
    for template in release.templates:
        assert template["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "team-a"


def test_what_workflows_get_besides():
    release = rendered(
        {
            "workflow": {
                "labels": {"cost-center": "7"},
                "annotations": {"a/b": "c"},
                "ttl": {"secondsAfterFailure": 60},
                "podGC": {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "1h"},
                "archiveLogs": False,
                "terminationGracePeriodSeconds": 600,
                "parallelism": 3,
                "priority": 7,
                "backoff": {"duration": "1m", "factor": 3, "cap": "1h"},
            },
            "roles": {"train": {"retryLimit": 40}},
        }
    )
    for template in release.templates:
        spec = template["spec"]
        assert spec["workflowMetadata"]["labels"] | {"cost-center": "7"} == spec["workflowMetadata"]["labels"]
        assert spec["workflowMetadata"]["annotations"]["a/b"] == "c"
        assert spec["ttlStrategy"] == {"secondsAfterCompletion": 2592000, "secondsAfterFailure": 60}
        assert spec["podGC"] == {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "1h"}
        assert (spec["parallelism"], spec["priority"]) == (3, 7)
    for name, step in release.steps():
        assert step["archiveLocation"] == {"archiveLogs": False}, name
        if "retryStrategy" in step:
            assert step["retryStrategy"]["backoff"] == {"duration": "1m", "factor": "3", "cap": "1h"}
    assert release.step("train")["retryStrategy"]["limit"] == "40"
    assert release.step("prepare")["retryStrategy"]["limit"] == "5"
    assert yaml.safe_load(release.step("train")["podSpecPatch"])["terminationGracePeriodSeconds"] == 600


@pytest.mark.parametrize("values", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_argo_takes_the_templates_of_every_example_of_values(values: Path, tmp_path: Path):
    argo = shutil.which("argo")
    if argo is None:
        pytest.skip("argo is not on the PATH: get it from https://github.com/argoproj/argo-workflows/releases")
    for template in rendered(yaml.safe_load(values.read_text())).templates:
        (tmp_path / f"{template['metadata']['name']}.yaml").write_text(yaml.safe_dump(template))
    command = [argo, "lint", "--offline", "--strict", "--no-color", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
