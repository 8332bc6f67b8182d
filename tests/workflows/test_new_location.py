"""A location that a new parameter names is refused wherever a run is checked, though only the table knows it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from cvat_bridge.cli import app as bridge_program
from cvat_bridge.http.problems import Refusal
from cvat_bridge.templates.catalog import read_offered_template
from cvat_bridge.templates.fill_parameters import RunContext, fill_in
from cvat_client.grants import Grant, Purpose, sign
from cvat_client.subject import Subject
from data_prep.cli import app as preparation_program
from detr_job.cli import app as job_program
from evaluation.__main__ import app as evaluation_program
from run_check.check import check
from run_check.errors import CheckError
from run_config.errors import ConfigError
from run_config.installation import VARIABLE, Installation
from run_config.parameters import BY_NAME, TEMPLATES, Parameter, Type
from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes
from workflows import rendering
from workflows.cli import app as workflows_program

__all__ = ["api", "command"]

KEY = "0123456789abcdef-signing"
STORE = "s3://lab/team"
SAID = "made-up: s3://secrets/a may not be read here"
MADE_UP = Parameter(name="made-up", title="", help="", group="", type=Type.LOCATION)
FAR = 4_000_000_000
"""A grant that ends then is good however long the test suite runs."""
GRANT = Grant(Subject.parse("task:8"), "ann", FAR)
GIVEN = {
    "cvat-annotation-path": "dumps/a",
    "cvat-subject": "task:8",
    "trained-model": "runs/a/model",
    "prepared-set": "0123456789abcdef",
    "model": "tiny",
    "weights": "d-fine-nano",
    "store": STORE,
    "made-up": "s3://secrets/a",
}


@pytest.fixture(autouse=True, params=[Type.LOCATION, Type.LOCATIONS])
def new_parameter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of the table, and nothing else."""
    made_up = replace(MADE_UP, type=request.param)
    monkeypatch.setitem(BY_NAME, "made-up", made_up)
    for name, taken in TEMPLATES.items():
        monkeypatch.setitem(TEMPLATES, name, (*taken, made_up))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installation that the steps are part of."""
    (tmp_path / "settings.yaml").write_text(f"version: 1\nstore: {STORE}\n")
    bridge = {"version": 1, "cvat": {"url": "http://127.0.0.1:9", "publicOrigin": "https://cvat.example.org"}}
    (tmp_path / "bridge.yaml").write_text(yaml.safe_dump(bridge))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "settings.yaml"))
    monkeypatch.setenv("CVAT_BRIDGE_SETTINGS", str(tmp_path / "bridge.yaml"))
    monkeypatch.setenv("CVAT_BRIDGE_SIGNING_KEY", KEY)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))


def template(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load(rendering.rendered()[f"{name}.yaml"])
    tree["spec"]["arguments"]["parameters"].append({"name": "made-up", "value": ""})
    return tree


def test_submission_refuses_it(api: FakeKubernetes, command: Command):
    api.add("workflowtemplates", "detr-train", template("detr-train"))
    api.add("configmaps", "detr-workflows", {"data": {"settings.yaml": f"version: 1\nstore: {STORE}\n"}})
    given = ("cvat-annotation-path", "model", "made-up")
    ended = command("submit", "detr-train", *(word for name in given for word in ("-p", f"{name}={GIVEN[name]}")))
    assert (ended.code, api.created) == (2, [])
    assert SAID in ended.last


def test_the_form_in_cvat_refuses_it():
    tree = template("cvat-train")
    form = json.loads(tree["metadata"]["annotations"]["detr-workflows/parameters"])
    form["parameters"].append({"name": "made-up", "title": "", "help": "", "group": "", "type": BY_NAME["made-up"].type,
                               "visibility": "annotator", "required": False, "default": ""})  # fmt: skip
    tree["metadata"]["annotations"]["detr-workflows/parameters"] = json.dumps(form)
    offered = read_offered_template(tree)
    assert offered is not None
    context = RunContext(Subject.tasks([8]), "grant", "run-1", Installation(store=STORE), "cvat-exports", ())
    with pytest.raises(Refusal) as refused:
        fill_in(offered, {"made-up": "s3://secrets/a"}, context)
    assert any(SAID in complaint.text for complaint in refused.value.complaints)


@pytest.mark.parametrize("name", TEMPLATES)
def test_check_refuses_it(name: str):
    grant = sign(GRANT, KEY.encode())
    texts = {
        key: text for key, text in {**GIVEN, "cvat-grant": grant}.items() if key in {p.name for p in TEMPLATES[name]}
    }
    with pytest.raises(CheckError) as refused:
        check(texts, "run-1", template=name, installation=Installation(store=STORE))
    assert SAID in str(refused.value)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (preparation_program, ["prepare"]),
        (job_program, ["train", "--set=0123456789abcdef", "--run=run-1"]),
        (job_program, ["evaluate"]),
        (evaluation_program, ["report", "--set=0123456789abcdef", "--run-prefix=runs/run-1"]),
        (bridge_program, ["export", "--run=run-1"]),
        (bridge_program, ["annotate"]),
        (workflows_program, ["weights", "pull"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("settings")
def test_every_step_refuses_it_by_itself(program: typer.Typer, arguments: list[str]):
    purpose = Purpose.ANNOTATE if arguments == ["annotate"] else Purpose.EXPORT
    given = {"cvat-output-path": "runs", **GIVEN, "cvat-grant": sign(replace(GRANT, purpose=purpose), KEY.encode())}
    texts = json.dumps([{"name": name, "value": text} for name, text in given.items()])
    done = CliRunner().invoke(program, [*arguments, f"--parameters-json={texts}"])
    assert isinstance(done.exception, ConfigError), done.output
    assert SAID in str(done.exception)
