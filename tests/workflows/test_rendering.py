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
from run_config.parameters import BY_NAME, TEMPLATES
from workflows import images, rendering
from workflows.plan import read_plan

COMMAND = Path(sys.executable).parent / "detr-workflows"


TAG = re.compile(r"\{\{(.+?)\}\}")
STEPS = {
    "detr-train": ["check", "prepare", "train", "report"],
    "detr-prepare": ["check", "prepare"],
    "detr-evaluate": ["check", "evaluate", "report"],
}


@pytest.fixture(scope="module", params=list(TEMPLATES))
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of our templates."""
    return yaml.safe_load(rendering.rendered()[f"{request.param}.yaml"])


def name_of(manifest: dict[str, Any]) -> str:
    return manifest["metadata"]["name"]


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


def test_there_is_a_file_for_each_template():
    assert {path.stem for path in rendering.RENDERED.glob("*.yaml")} == set(TEMPLATES) == set(STEPS)


def test_without_hera_render_says_what_to_install():
    code = "import sys; sys.modules['hera'] = None; from workflows.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "render"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the templates are written with Hera, which is not installed here")


def test_the_local_runner_understands_every_template_of_ours(manifest: dict[str, Any]):
    plan = read_plan(yaml.safe_dump(manifest), "ours")
    assert [step.name for step in plan.steps] == STEPS[name_of(manifest)]


def test_check_comes_first_with_the_parameters_of_its_template(manifest: dict[str, Any]):
    check = containers(manifest)["check"]
    assert f"--template={name_of(manifest)}" in check["args"]
    assert "--parameters-json={{workflow.parameters.json}}" in check["args"]
    (template,) = [one for one in manifest["spec"]["templates"] if one["name"] == "check"]
    assert "retryStrategy" not in template


def test_every_parameter_reaches_argo_in_its_order_with_its_default_and_choices(manifest: dict[str, Any]):
    rendered = manifest["spec"]["arguments"]["parameters"]
    assert [one["name"] for one in rendered] == [parameter.name for parameter in TEMPLATES[name_of(manifest)]]
    for one in rendered:
        parameter = BY_NAME[one["name"]]
        assert one.get("value") == parameter.default
        assert tuple(one.get("enum", ())) == parameter.choices
        assert parameter.help in one["description"]


def test_argo_gets_nothing_but_strings(manifest: dict[str, Any]):
    for one in manifest["spec"]["arguments"]["parameters"]:
        assert all(isinstance(one[key], str) for key in one if key != "enum")
        assert all(isinstance(choice, str) for choice in one.get("enum", []))
        assert re.fullmatch(r"[-a-zA-Z0-9_]+", one["name"])


def test_the_form_lies_on_the_template(manifest: dict[str, Any]):
    metadata = manifest["metadata"]
    assert metadata["annotations"][ANNOTATION] == form_json(TEMPLATES[name_of(manifest)])
    assert json.loads(metadata["annotations"][ANNOTATION])["version"] == 1
    assert metadata["labels"]["used-by"] == "cvat"


def test_no_value_of_a_person_is_part_of_a_shells_text(manifest: dict[str, Any]):
    for name, container in containers(manifest).items():
        assert container["command"][0] in {"data-prep", "detr-job", "detr-workflows", "python"}, name
        assert "-c" not in container["args"], name


def test_no_value_of_a_person_is_taken_for_an_option(manifest: dict[str, Any]):
    for name, container in containers(manifest).items():
        args = container["args"]
        after_options = args.index("--") if "--" in args else len(args)
        for argument in args[:after_options]:
            assert "{{" not in argument or re.match(r"--[a-z-]+=", argument), (name, argument)


def test_what_a_person_types_reaches_a_pods_patch_as_a_number_alone(manifest: dict[str, Any]):
    patches = [part.get("podSpecPatch", "") for part in (manifest["spec"], *manifest["spec"]["templates"])]
    in_patches = {tag for patch in patches for tag in TAG.findall(patch)}
    asked = {"gpu-count"} & {parameter.name for parameter in TEMPLATES[name_of(manifest)]}
    assert in_patches == {f"=asInt(workflow.parameters['{name}'])" for name in asked}


def test_every_parameter_is_used(manifest: dict[str, Any]):
    text = json.dumps([containers(manifest), [one.get("podSpecPatch", "") for one in manifest["spec"]["templates"]]])
    used = set(re.findall(r"workflow\.parameters(?:\.|\[')([\w-]+)", text))
    # The pool is the chart's to place by; here it reaches `check` among all parameters.
    assert used - {"json"} == {parameter.name for parameter in TEMPLATES[name_of(manifest)]} - {"sys-node-pool"}


def test_images_carry_the_version_of_the_project(manifest: dict[str, Any]):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    assert version[1] == images.VERSION
    assert {one["image"] for one in containers(manifest).values()} <= {images.CPU_STEPS, images.DETR_JOB}
