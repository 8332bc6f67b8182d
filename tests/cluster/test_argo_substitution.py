"""Argo's own substitution over the rendered templates, with names that a data set may have: nothing is evaluated.

The Go program in tests/argo_substitution calls the functions of Argo's controller. It needs Go and its module proxy,
and a few minutes for the first build, so these tests run with those of the cluster.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from run_config.argo_text import without_tags
from run_config.parameters import TEMPLATES
from workflows.cli import RENDERED
from workflows.outcome import sentence

PROGRAM = Path(__file__).parents[1] / "argo_substitution"
HOSTILE = "{{=4241+1}} {{workflow.parameters.cvat-grant}} {{{=4241+1}}} {{workflow.parameters.store}}.jpg"
QUOTES = 'größer 🦀 "quoted" \\ {x} }} \n two'
SENTENCE = f"main: Error (exit code 2): images '{HOSTILE}' and {QUOTES} have one name"

Json = dict[str, Any]
Substituted = Callable[..., Json]


@pytest.fixture(scope="module")
def substituted(tmp_path_factory: pytest.TempPathFactory) -> Substituted:
    """A template as a pod would get it: substituted once, and `again` as often as asked for."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not on the PATH: it builds tests/argo_substitution (https://go.dev/doc/install)")
    program = tmp_path_factory.mktemp("go") / "argo-substitution"
    build = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(program), "."]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    done = subprocess.run(build, cwd=PROGRAM, env=environment, capture_output=True, text=True, check=False, timeout=840)
    assert done.returncode == 0, done.stderr

    def substitute(template: Json, arguments: dict[str, str], parameters: dict[str, str], again: int = 2) -> Json:
        request = {
            "template": template,
            "arguments": {"parameters": [{"name": name, "value": text} for name, text in arguments.items()]},
            "globals": known(parameters),
            "again": again,
        }
        ran = subprocess.run([program], input=json.dumps([request]), capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        (answer,) = json.loads(ran.stdout)
        return answer

    return substitute


def failures() -> str:
    """Argo's `workflow.failures`: JSON, quoted once more."""
    nodes = [{"displayName": "prepare", "message": SENTENCE, "finishedAt": "2026-11-21T11:28:31Z"}]
    return json.dumps(json.dumps(nodes, ensure_ascii=False), ensure_ascii=False)


def known(parameters: dict[str, str]) -> dict[str, str]:
    """What the controller knows when it creates a pod of the exit handler."""
    as_json = json.dumps([{"name": name, "value": text} for name, text in parameters.items()])
    return {
        "workflow.name": "run-1",
        "workflow.uid": "5e1f",
        "workflow.status": "Failed",
        "workflow.failures": failures(),
        "retries": "0",
        "workflow.parameters.json": as_json,
        **{f"workflow.parameters.{name}": text for name, text in parameters.items()},
    }


def steps(name: str) -> list[Json]:
    tree = yaml.safe_load((RENDERED / f"{name}.yaml").read_text())
    return [one for one in tree["spec"]["templates"] if "container" in one]


def harmless(name: str) -> dict[str, str]:
    return {
        one.name: one.default or {"cvat-grant": "detr1.SECRET", "store": "s3://bucket/team"}.get(one.name, "x")
        for one in TEMPLATES[name]
    }


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_exit_handler_gets_messages_as_they_are(substituted: Substituted, name: str):
    (tell,) = [one for one in steps(name) if one["name"] == "tell"]
    args = substituted(tell, {}, harmless(name))["container"]["args"]
    (given,) = [one.removeprefix("--failures=") for one in args if one.startswith("--failures=")]
    assert base64.b64decode(given).decode() == failures()
    assert not any("{{" in one or "4242" in one or "SECRET" in one for one in args)
    text = sentence("run-1", "Failed", given)
    assert text.replace("{ ", "{") == f"prepare: {SENTENCE.partition('): ')[2]}"


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_tag_of_every_step_is_replaced(substituted: Substituted, name: str):
    for step in steps(name):
        inputs = {one["name"]: "x" for one in step.get("inputs", {}).get("parameters", [])}
        done = substituted(step, inputs, harmless(name))
        # Prometheus' number comes when the step has ended.
        done.pop("metrics", None)
        assert "{{" not in json.dumps(done), step["name"]


ECHO: Json = {
    "name": "echo",
    "inputs": {"parameters": [{"name": "message"}]},
    "container": {"image": "x", "command": ["echo"], "args": ["{{inputs.parameters.message}}"]},
}


def test_a_sentence_that_a_step_left_is_text_for_whoever_pastes_it(substituted: Substituted):
    parameters = harmless("cvat-train")
    message = without_tags(SENTENCE)
    assert substituted(ECHO, {"message": message}, parameters)["container"]["args"] == [message]


def test_without_these_rules_argo_evaluates_names(substituted: Substituted):
    """Else the tests above would pass whatever the templates say."""
    parameters = harmless("cvat-train")
    (said,) = substituted(ECHO, {"message": SENTENCE}, parameters)["container"]["args"]
    assert "4242 detr1.SECRET" in said
    raw = {**ECHO, "inputs": {}, "container": {**ECHO["container"], "args": ["{{workflow.failures}}"]}}
    (said,) = substituted(raw, {}, parameters)["container"]["args"]
    assert "4242 detr1.SECRET" in said
