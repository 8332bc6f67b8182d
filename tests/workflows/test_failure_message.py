"""The exit handler shows the reason of a failed run in Argo's list of workflows, where it has the permission."""

import json
from pathlib import Path

import pytest

from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes
from workflows.cluster import cli
from workflows.cluster.run_status import read_status

__all__ = ["api", "command"]

FAILURES = json.dumps([{"displayName": "check", "message": "main: Error (exit code 2): too many epochs"}])
SHOWN = "check: too many epochs"


@pytest.fixture(autouse=True)
def run(api: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed run, and a pod with a token."""
    nodes = {
        "run": {"id": "run", "name": "run", "type": "DAG", "phase": "Failed"},
        "run-1": {"id": "run-1", "name": "run.check", "displayName": "check", "type": "Pod", "phase": "Failed"},
    }
    nodes["run-1"]["message"] = "main: Error (exit code 2): too many epochs"
    api.add("workflows", "run", {"status": {"phase": "Failed", "nodes": nodes}})
    (tmp_path / "token").write_text("t")
    monkeypatch.setattr(cli, "TOKEN", tmp_path / "token")
    monkeypatch.setenv("OUT", str(tmp_path))


def outcome(command: Command, status: str = "Failed") -> list[str]:
    options = {"run": "run", "status": status, "failures": FAILURES, "output-prefix": "out", "store": "s3://bucket"}
    ended = command("outcome", *(f"--{name}={value}" for name, value in options.items()))
    assert (ended.code, ended.err) == (0, "")
    return ended.out.splitlines()


def message(api: FakeKubernetes) -> str | None:
    """The message of the first node, which Argo makes that of the workflow."""
    return api.objects["workflows"]["run"]["status"]["nodes"]["run"].get("message")


def test_the_reason_becomes_the_message_of_the_workflow(api: FakeKubernetes, command: Command):
    assert outcome(command) == [f"run: Failed: {SHOWN}", "Argo's list of workflows shows this"]
    assert message(api) == SHOWN
    # The table of runs and `submit --watch` still find the step.
    assert read_status(api.objects["workflows"]["run"]).reason() == SHOWN


def test_a_good_run_gets_no_message(api: FakeKubernetes, command: Command):
    assert outcome(command, "Succeeded") == ["run: Succeeded"]
    assert message(api) is None


def test_without_a_token_nothing_is_asked(
    api: FakeKubernetes, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(cli, "TOKEN", tmp_path / "none")
    assert outcome(command) == [f"run: Failed: {SHOWN}"]
    assert message(api) is None


@pytest.mark.parametrize("code", [403, 404, 409, 500])
def test_a_cluster_that_refuses_fails_no_exit_handler(api: FakeKubernetes, command: Command, code: int):
    api.refused["patch", "workflows"] = code, "no"
    assert outcome(command)[1].startswith("Argo's list of workflows does not show this: changing the workflow run")
