"""The rendered templates: in step with the code, and true to the parameters they come from."""

import copy
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cvat_bridge.cli import app as bridge_program
from data_prep.cli import app as preparation_program
from data_prep.shared_work import Stage
from detr_job.cli import app as job_program
from evaluation.__main__ import app as evaluation_program
from run_config import step_parameters
from run_config.parameter_forms import ANNOTATION, form_json
from run_config.parameters import BY_NAME, TEMPLATES, WEIGHTS_TEMPLATE, Parameter, Type
from workflows import generated_files, rendering
from workflows.cli import app as workflows_program
from workflows.cluster.pod_needs import needs_of
from workflows.local.plan import read_plan
from workflows.templates import images

COMMAND = Path(sys.executable).parent / "detr-workflows"


TAG = re.compile(r"\{\{(.+?)\}\}")
PROGRAMS = {
    "cvat-bridge": bridge_program,
    "data-prep": preparation_program,
    "detr-job": job_program,
    "detr-workflows": workflows_program,
    "python": evaluation_program,
}
STEPS = {
    "detr-train": ["check", "prepare", "train", "report"],
    "detr-prepare": ["check", "prepare"],
    "detr-evaluate": ["check", "evaluate", "report"],
    "cvat-train": ["check", "export", "prepare", "train", "report"],
    "detr-annotate": ["check", "annotate"],
    "detr-weights": ["pull"],
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
    assert generated_files.differences(rendering.in_tree()) == "", "run: detr-workflows render"


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
    assert done.stderr.startswith("error: rendering the templates needs Hera, which is not installed")


def test_the_local_runner_understands_every_template_of_ours(manifest: dict[str, Any]):
    plan = read_plan(yaml.safe_dump(manifest), "ours")
    assert [step.name for step in plan.steps] == STEPS[name_of(manifest)]


def test_check_comes_first_with_the_parameters_of_its_template(manifest: dict[str, Any]):
    if name_of(manifest) == WEIGHTS_TEMPLATE:
        assert set(containers(manifest)) == {"pull", "tell"}  # its one step takes seconds until it finds a mistake
        return
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


def test_a_list_of_runs_shows_their_names_and_below_what_each_run_is_about(manifest: dict[str, Any]):
    shown = manifest["spec"]["workflowMetadata"]["annotations"]
    # Argo's list shows the title in place of the name, and cuts it.
    title = shown["workflows.argoproj.io/title"]
    assert re.fullmatch(
        r"\{\{workflow\.name\}\}: (\{\{workflow\.parameters\.(model|split)\}\}|prepare|annotate|pull)", title
    )
    subject = {
        "detr-train": "cvat-annotation-path",
        "detr-prepare": "cvat-annotation-path",
        "detr-evaluate": "prepared-set",
        "cvat-train": "cvat-subject",
        "detr-annotate": "cvat-subject",
        "detr-weights": "weights",
    }[name_of(manifest)]
    assert shown["workflows.argoproj.io/description"].startswith(f"{{{{workflow.parameters.{subject}}}}}")


def test_argo_does_not_say_that_it_deletes_artifacts(manifest: dict[str, Any]):
    # Without the field, its page says so below each artifact.
    assert manifest["spec"]["artifactGC"] == {"strategy": "Never"}


def test_a_step_that_reports_progress_knows_how_often_it_was_tried(manifest: dict[str, Any]):
    for template in manifest["spec"]["templates"]:
        reports = template["name"] in ("train", "evaluate", "annotate", "export", "export-for-others")
        variable = {"name": "STEP_ATTEMPT", "value": "{{retries}}"}
        assert (variable in template.get("container", {}).get("env", [])) == ("retryStrategy" in template)
        assert not reports or "retryStrategy" in template


@pytest.mark.parametrize(
    ("name", "sized"), [("detr-prepare", "check"), ("detr-train", "check"), ("cvat-train", "export")]
)
def test_several_pods_check_the_images_then_write_the_shards_before_prepare(name: str, sized: str):
    templates = {one["name"]: one for one in yaml.safe_load(rendering.rendered()[f"{name}.yaml"])["spec"]["templates"]}
    tasks = {one["name"]: one for one in templates["main"]["dag"]["tasks"]}
    pods = f"{{{{tasks.{sized}.outputs.parameters.pods}}}}"
    before = sized
    for stage in Stage:
        task = tasks[f"prepare-{stage}"]
        given = {one["name"]: one["value"] for one in task["arguments"]["parameters"]}
        assert (task["depends"], task["template"]) == (before, "prepare-share")
        assert (task["when"], task["withSequence"]) == (f"{pods} > 1", {"count": pods})
        assert (given["pods"], given["share"]) == (pods, f"{stage}:{{{{item}}}}")
        before = task["name"]
    assert tasks["prepare"]["depends"] == before
    share, prepare = templates["prepare-share"], templates["prepare"]
    for key in ("volumes", "retryStrategy", "metadata"):
        assert share[key] == prepare[key]
    shared, whole = share["container"], prepare["container"]
    assert {**shared, "args": []} == {**whole, "args": []}
    assert [one for one in shared["args"] if "--share" not in one] == whole["args"]


def test_groups_of_pods_and_the_last_task_are_targets(manifest: dict[str, Any]):
    """After a retry, Argo looks only at targets and at what they still wait for: another group would run for ever."""
    for template in manifest["spec"]["templates"]:
        tasks = template.get("dag", {}).get("tasks", [])
        groups = {task["name"] for task in tasks if "withSequence" in task}
        if groups:
            waited_for = {one for task in tasks for one in task.get("depends", "").split(" && ")}
            last = {task["name"] for task in tasks} - waited_for
            assert set(template["dag"]["target"].split()) == groups | last


def test_argo_gets_nothing_but_strings(manifest: dict[str, Any]):
    for one in manifest["spec"]["arguments"]["parameters"]:
        assert all(isinstance(one[key], str) for key in one if key != "enum")
        assert all(isinstance(choice, str) for choice in one.get("enum", []))
        assert re.fullmatch(r"[-a-zA-Z0-9_]+", one["name"])


def test_the_form_lies_on_the_template(manifest: dict[str, Any]):
    metadata = manifest["metadata"]
    assert metadata["annotations"][ANNOTATION] == form_json(TEMPLATES[name_of(manifest)])
    assert json.loads(metadata["annotations"][ANNOTATION])["version"] == 1
    offered = {} if name_of(manifest) == WEIGHTS_TEMPLATE else {"used-by": "cvat"}
    assert metadata.get("labels", {}) == offered
    labels = manifest["spec"]["workflowMetadata"]["labels"]
    assert labels == {**offered, "detr-workflows/template": name_of(manifest)}


def test_no_value_of_a_person_is_part_of_a_shells_text(manifest: dict[str, Any]):
    for name, container in containers(manifest).items():
        assert container["command"][0] in {"cvat-bridge", "data-prep", "detr-job", "detr-workflows", "python"}, name
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


def command(container: dict[str, Any]) -> typer.core.TyperCommand:
    """The command that a step calls."""
    found: Any = typer.main.get_command(PROGRAMS[container["command"][0]])
    while isinstance(found, typer.core.TyperGroup):
        found = found.commands[next(argument for argument in container["args"] if argument in found.commands)]
    assert isinstance(found, typer.core.TyperCommand)
    return found


def read_by_steps(manifest: dict[str, Any]) -> set[str]:
    """The parameters that a step, or the patch of its pod, reads: from a tag, or out of all of them."""
    text = json.dumps([containers(manifest), [one.get("podSpecPatch", "") for one in manifest["spec"]["templates"]]])
    read = set(re.findall(r"workflow\.parameters(?:\.|\[')([\w-]+)", text)) - {"json"}
    for name, container in containers(manifest).items():
        if "--parameters-json={{workflow.parameters.json}}" in container["args"]:
            callback = command(container).callback
            assert callback is not None
            read |= set(step_parameters.options(callback).values())
            if name == "train":
                read |= {one.name for one in BY_NAME.values() if one.sets}
    return read


def unread(manifest: dict[str, Any]) -> set[str]:
    """The parameters of the template that no step reads."""
    return {one["name"] for one in manifest["spec"]["arguments"]["parameters"]} - read_by_steps(manifest)


def test_every_parameter_is_used(manifest: dict[str, Any]):
    taken = {parameter.name for parameter in TEMPLATES[name_of(manifest)]}
    # The chart places by the pool, and `check` or `export` reads the number of pods among all parameters.
    assert unread(manifest) == taken & {"sys-node-pool", "prepare-pods"}
    tags = {tag.removeprefix("workflow.parameters.") for tag in TAG.findall(json.dumps(containers(manifest)))}
    assert {tag for tag in tags if tag in BY_NAME} <= taken


def test_a_parameter_that_nobody_reads_is_found(manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    made_up = Parameter(name="made-up", title="", help="", group="", type=Type.NUMBER)
    manifest = copy.deepcopy(manifest)
    manifest["spec"]["arguments"]["parameters"].append({"name": "made-up"})
    monkeypatch.setitem(BY_NAME, "made-up", made_up)
    assert "made-up" in unread(manifest)
    # One that sets a key is read where a model is trained, and nowhere else.
    monkeypatch.setitem(BY_NAME, "made-up", replace(made_up, sets="optimizer.weight_decay"))
    assert ("made-up" in unread(manifest)) is ("train" not in containers(manifest))


def test_the_steps_of_a_run_get_no_value_twice(manifest: dict[str, Any]):
    """What stands in the JSON of all parameters is no option besides; the exit handler gets two values and no JSON."""
    for name, container in containers(manifest).items():
        single = {tag for text in container["args"] for tag in TAG.findall(text)} & {
            f"workflow.parameters.{one}" for one in BY_NAME
        }
        taken = {f"workflow.parameters.{one.name}" for one in TEMPLATES[name_of(manifest)]}
        allowed = {
            "tell": {"workflow.parameters.store", "workflow.parameters.cvat-output-path"} & taken,
            "report": {"workflow.parameters.cvat-output-path"},  # part of where the run lies
        }
        assert single == allowed.get(name, set()), name


def test_argos_uploads_stay_within_the_memory_of_its_container(manifest: dict[str, Any]):
    """Argo 4.1 uploads with 4 threads of 528 MiB each, where nobody says otherwise."""
    patches = [json.loads(manifest["spec"]["podSpecPatch"])]
    patches += [
        json.loads(one["podSpecPatch"])
        for one in manifest["spec"]["templates"]
        if "initContainers" in one.get("podSpecPatch", "")
    ]
    assert len(patches) == 1 + (name_of(manifest) == "cvat-train")
    for patch in patches:
        (wait,) = patch["containers"]
        assert wait["env"] == [{"name": "ARTIFACT_S3_UPLOAD_THREADS", "value": "1"}]


def test_images_carry_the_version_of_the_project(manifest: dict[str, Any]):
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)
    assert version is not None
    assert version[1] == images.VERSION
    assert {one["image"] for one in containers(manifest).values()} <= {
        images.CPU_STEPS,
        images.DETR_JOB,
        images.CVAT_BRIDGE,
    }


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("valueFrom", one.get("value")) for one in container["env"]}


def test_only_the_steps_that_talk_to_cvat_see_its_token_and_its_network(manifest: dict[str, Any]):
    for step in manifest["spec"]["templates"]:
        if "container" not in step:
            continue
        talks = step["name"] in {"export", "export-for-others", "annotate"}
        names = [name for name in environment(step["container"]) if name.startswith("CVAT_")]
        expected = ["CVAT_BRIDGE_SETTINGS", "CVAT_ACCESS_TOKEN", "CVAT_BRIDGE_SIGNING_KEY"] if talks else []
        assert names == expected, step["name"]
        assert ("/etc/cvat-bridge" in [one["mountPath"] for one in step["container"]["volumeMounts"]]) is talks
        assert (step["metadata"]["labels"].get("detr-workflows/calls-cvat") == "true") is talks


def test_a_missing_secret_or_config_map_keeps_no_pod_waiting(manifest: dict[str, Any]):
    for name, container in containers(manifest).items():
        for variable, source in environment(container).items():
            if isinstance(source, dict):
                assert all(reference["optional"] is True for reference in source.values()), (name, variable)
    for step in manifest["spec"]["templates"]:
        for volume in step.get("volumes", []):
            assert volume.get("configMap", {"optional": True})["optional"] is True, (step["name"], volume["name"])


@pytest.fixture
def of_others() -> dict[str, Any]:
    """The step that workflows of others call."""
    manifest = yaml.safe_load(rendering.rendered()["cvat-train.yaml"])
    return next(one for one in manifest["spec"]["templates"] if one["name"] == "export-for-others")


def test_the_export_for_others_takes_nothing_from_the_workflow_that_calls_it(of_others: dict[str, Any]):
    assert [one["name"] for one in of_others["inputs"]["parameters"]] == ["subject", "grant", "store", "into", "format"]
    tags = {tag for text in of_others["container"]["args"] for tag in TAG.findall(text)}
    inputs = {f"inputs.parameters.{one['name']}" for one in of_others["inputs"]["parameters"]}
    assert tags == inputs | {"workflow.name"}
    assert of_others["archiveLocation"] == {"archiveLogs": False}


def test_the_export_for_others_is_restricted_in_a_workflow_that_is_not(of_others: dict[str, Any]):
    foreign = {
        "metadata": {"name": "theirs"},
        "spec": {"entrypoint": "main", "templates": [of_others]},
    }
    (pod,) = needs_of(foreign).pods
    assert pod.unrestricted == ()
    patch = yaml.safe_load(of_others["podSpecPatch"])
    assert patch["automountServiceAccountToken"] is False
    assert of_others["serviceAccountName"] == "detr-workflows"
    mounted = [one["mountPath"] for one in of_others["container"]["volumeMounts"]]
    assert not any("serviceaccount" in path for path in mounted)


def test_what_the_steps_that_talk_to_cvat_are_told_is_what_they_take(manifest: dict[str, Any]):
    commands = typer.main.get_command(bridge_program)
    assert isinstance(commands, typer.core.TyperGroup)
    for name, container in containers(manifest).items():
        if container["command"] == ["cvat-bridge"]:
            verb, *options = container["args"]
            given = {option.partition("=")[0] for option in options}
            parameters = commands.commands[verb].params
            assert given <= {option for parameter in parameters for option in parameter.opts}, name
            if "--parameters-json" in given:
                taken = {parameter.name for parameter in TEMPLATES[name_of(manifest)]}
                callback = commands.commands[verb].callback
                assert callback is not None
                options = step_parameters.options(callback)
                given |= {one.opts[0] for one in parameters if options.get(one.name or "") in taken}
            assert {parameter.opts[0] for parameter in parameters if parameter.required} <= given, name


def test_argo_takes_what_is_rendered(tmp_path: Path):
    argo = shutil.which("argo")
    if argo is None:
        pytest.skip("argo is not on the PATH: get it from https://github.com/argoproj/argo-workflows/releases")
    generated_files.write(rendering.in_folder(tmp_path))
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "theirs-"},
        "spec": {
            "entrypoint": "main",
            "templates": [
                {
                    "name": "main",
                    "dag": {
                        "tasks": [
                            {
                                "name": "export",
                                "templateRef": {"name": "cvat-train", "template": "export-for-others"},
                                "arguments": {
                                    "parameters": [
                                        {"name": name, "value": "x"} for name in ("subject", "grant", "store", "into")
                                    ]
                                },
                            }
                        ]
                    },
                }
            ],
        },
    }
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(workflow))
    command = [argo, "lint", "--offline", "--strict", "--no-color", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
