"""The rendered templates: in step with the code, and true to the parameters they come from."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.parameter_forms import ANNOTATION, form_json
from run_config.parameters import BY_NAME, PARAMETERS
from workflows import images, rendering
from workflows.plan import read_plan

COMMAND = Path(sys.executable).parent / "detr-workflows"


@pytest.fixture(scope="module")
def detr_train() -> dict[str, Any]:
    return yaml.safe_load(rendering.rendered()["detr-train.yaml"])


def containers(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one["container"] for one in manifest["spec"]["templates"] if "container" in one}


def test_rendering_again_gives_no_difference():
    assert rendering.differences(rendering.in_tree()) == "", "run: detr-workflows render"


def test_render_check_fails_on_an_edited_file_and_mends_nothing(tmp_path: Path):
    subprocess.run([COMMAND, "render", "--output", tmp_path], check=True, capture_output=True)
    same = subprocess.run([COMMAND, "render", "--check", "--output", tmp_path], check=False, capture_output=True)
    assert same.returncode == 0
    path = tmp_path / "detr-train.yaml"
    edited = path.read_text().replace("detr-train", "detr-retrain")
    path.write_text(edited)
    differs = subprocess.run([COMMAND, "render", "--check", "--output", tmp_path], check=False, capture_output=True)
    assert differs.returncode == 2
    assert b"-  name: detr-retrain\n+  name: detr-train" in differs.stdout
    assert path.read_text() == edited


def test_the_local_runner_understands_every_template_of_ours():
    for path in rendering.RENDERED.glob("*.yaml"):
        plan = read_plan(path.read_text(encoding="utf-8"), path.name)
        assert [step.name for step in plan.steps] == ["check", "prepare", "train", "report"]


def test_every_parameter_reaches_argo_in_its_order_with_its_default_and_choices(detr_train: dict[str, Any]):
    rendered = detr_train["spec"]["arguments"]["parameters"]
    assert [one["name"] for one in rendered] == [parameter.name for parameter in PARAMETERS]
    for one in rendered:
        parameter = BY_NAME[one["name"]]
        assert one.get("value") == parameter.default
        assert tuple(one.get("enum", ())) == parameter.choices
        assert parameter.help in one["description"]


def test_argo_gets_nothing_but_strings(detr_train: dict[str, Any]):
    for one in detr_train["spec"]["arguments"]["parameters"]:
        assert all(isinstance(one[key], str) for key in one if key != "enum")
        assert all(isinstance(choice, str) for choice in one.get("enum", []))
        assert re.fullmatch(r"[-a-zA-Z0-9_]+", one["name"])


def test_the_form_lies_on_the_template(detr_train: dict[str, Any]):
    metadata = detr_train["metadata"]
    assert metadata["annotations"][ANNOTATION] == form_json()
    assert json.loads(metadata["annotations"][ANNOTATION])["version"] == 1
    assert metadata["labels"]["used-by"] == "cvat"


def test_no_value_of_a_person_is_part_of_a_shells_text(detr_train: dict[str, Any]):
    for name, container in containers(detr_train).items():
        assert container["command"][0] in {"data-prep", "detr-job", "python"}, name
        assert "-c" not in container["args"], name


def test_every_parameter_is_used(detr_train: dict[str, Any]):
    used = set(re.findall(r"\{\{workflow\.parameters\.([\w-]+)\}\}", json.dumps(list(containers(detr_train).values()))))
    assert used - {"json"} == {parameter.name for parameter in PARAMETERS}


def test_images_carry_the_version_of_the_project(detr_train: dict[str, Any]):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    assert version[1] == images.VERSION
    assert {one["image"] for one in containers(detr_train).values()} == {images.CPU_STEPS, images.DETR_JOB}
