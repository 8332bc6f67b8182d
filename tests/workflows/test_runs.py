"""`detr-workflows runs`: one row for each run, and a dash for what cannot be read."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.cluster_commands import Command, api, command
from tests.workflows.fake_kubernetes import FakeKubernetes, Json
from workflows.cluster import cli

__all__ = ["api", "command"]

TEMPLATES = [
    {"name": name, "metadata": {"labels": {"app.kubernetes.io/component": role}}}
    for name, role in (("check", "check"), ("train", "train"))
]


def pod(step: str, phase: str, seconds: int = 60, gpu_seconds: int | None = None, **more: Any) -> Json:
    """A node of a pod; `gpu_seconds` None: Argo has counted nothing."""
    ended = phase in ("Succeeded", "Failed", "Error")
    counted = {"cpu": 3, "memory": 4} | ({"nvidia.com/gpu": gpu_seconds} if gpu_seconds else {})
    return {
        "type": "Pod",
        "templateName": step.partition("(")[0],
        "displayName": step,
        "phase": phase,
        "startedAt": "2026-01-01T00:00:00Z",
        **({"finishedAt": f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}Z"} if ended else {}),
        **({"resourcesDuration": counted} if gpu_seconds is not None else {}),
        **more,
    }


def add_run(api: FakeKubernetes, name: str, phase: str, *nodes: Json, day: int = 1, **more: Any) -> Json:
    arguments = {"gpu-count": "2", "cvat-output-path": "runs", **more.pop("arguments", {})}
    for node in nodes:
        node |= {"id": f"{name}-{node['displayName']}", "name": f"{name}.{node['displayName']}"}
    tree = {
        "metadata": {
            "creationTimestamp": f"2026-01-{day:02}T00:00:00Z",
            "labels": {"used-by": "cvat", "workflows.argoproj.io/workflow-template": "detr-train"}
            | more.pop("labels", {}),
            "annotations": more.pop("annotations", {}),
        },
        "spec": {
            "arguments": {"parameters": [{"name": key, "value": text} for key, text in arguments.items()]},
            **more.pop("spec", {}),
        },
        "status": {
            "phase": phase,
            "nodes": {node["id"]: node for node in nodes},
            "storedWorkflowTemplateSpec": {"templates": TEMPLATES},
            **more,
        },
    }
    return api.add("workflows", name, tree)


def add_pod(api: FakeKubernetes, node: str, began: datetime) -> None:
    main = {"name": "main", "state": {"running": {"startedAt": began.strftime("%Y-%m-%dT%H:%M:%SZ")}}}
    metadata = {
        "labels": {"app.kubernetes.io/component": "train"},
        "annotations": {"workflows.argoproj.io/node-id": node},
    }
    api.add("pods", f"pod-{node}", {"metadata": metadata, "status": {"containerStatuses": [{"name": "wait"}, main]}})


@pytest.fixture
def listed(command: Command, monkeypatch: pytest.MonkeyPatch) -> Any:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("HOME", "/nowhere")

    def rows(*options: str) -> dict[str, Json]:
        ended = command("runs", "-n", "ml", "--json", *options)
        assert ended.code == 0, ended.err
        return {row["name"]: row for row in json.loads(ended.out)["runs"]}

    return rows


def test_a_run_is_a_row_with_who_what_and_how_it_stands(api: FakeKubernetes, command: Command, listed: Any):
    add_run(
        api, "good", "Succeeded", pod("check", "Succeeded"), pod("train(0)", "Succeeded", gpu_seconds=5400), day=1,
        arguments={"model": "tiny", "cvat-annotation-path": "uploads/a.zip\nuploads/b.zip"},
        labels={"workflows.argoproj.io/creator-email": "ann.at.example.org"},
        outputs={"parameters": [{"name": "ap", "value": "0.4321"}]},
    )  # fmt: skip
    failed = pod("check", "Failed", message="main: Error (exit code 2): epochs: too many", gpu_seconds=0)
    add_run(
        api, "bad", "Failed", failed, day=2, arguments={"model": "detr-r50"},
        annotations={"detr-workflows/cvat-user-name": "bob", "detr-workflows/cvat-subject": "task:7"},
    )  # fmt: skip
    add_run(api, "halted", "Failed", day=3, spec={"shutdown": "Stop"}, arguments={"trained-model": "runs/good/model"})
    waiting = pod("train(0)", "Pending", message="Unschedulable: 0/2 nodes are available")
    add_run(api, "waiting", "Running", waiting, day=4, arguments={"prepared-set": "0123456789abcdef"})
    api.add("workflows", "anothers", {"metadata": {"labels": {}}, "status": {"phase": "Running"}})
    rows = listed()
    assert list(rows) == ["waiting", "halted", "bad", "good"]
    assert rows["good"] == {
        "name": "good", "template": "detr-train", "created": "2026-01-01T00:00:00Z", "who": "ann@example.org",
        "model": "tiny", "data": "uploads/a.zip and 1 more", "state": "succeeded", "ap": 0.4321, "gpuHours": 1.5,
        "reason": "",
    }  # fmt: skip
    assert [rows["bad"][key] for key in ("who", "data", "state", "ap", "gpuHours", "reason")] == [
        "bob", "task:7", "failed", None, 0.0, "check: epochs: too many",
    ]  # fmt: skip
    assert [rows["halted"][key] for key in ("who", "model", "state", "reason")] == [
        None, "runs/good/model", "stopped", "The run was stopped.",
    ]  # fmt: skip
    assert rows["waiting"]["reason"] == "train(0): Unschedulable: 0/2 nodes are available".replace("(0)", "")
    ended = command("runs", "-n", "ml")
    assert ended.err == ""  # nothing is asked of a store that no run needs
    lines = ended.out.splitlines()
    assert lines[0].split() == ["NAME", "WHO", "MODEL", "DATA", "STATE", "AP", "GPU", "HOURS", "REASON"]
    assert re.fullmatch(r"good +ann@example.org +tiny +uploads/a.zip and 1 more +succeeded +0.432 +1.5", lines[4])
    assert lines[3].split()[:7] == ["bad", "bob", "detr-r50", "task:7", "failed", "–", "0.0"]  # noqa: RUF001


def test_an_automatic_model_is_the_one_that_check_chose(api: FakeKubernetes, listed: Any):
    chosen = pod("check", "Succeeded") | {"outputs": {"parameters": [{"name": "model", "value": "d-fine-nano"}]}}
    add_run(api, "one", "Running", chosen, arguments={"model": "auto"})
    add_run(api, "two", "Running", pod("check", "Running"), arguments={"model": "auto"})
    assert {name: row["model"] for name, row in listed().items()} == {"one": "d-fine-nano", "two": "auto"}


def test_gpu_hours_count_every_attempt_and_the_seconds_of_a_running_pod(api: FakeKubernetes, listed: Any):
    attempts = [
        pod("train(0)", "Error", seconds=1800, message="pod deleted"),  # Argo counts nothing for a lost pod
        pod("train(1)", "Failed", gpu_seconds=7200),
        pod("train(2)", "Running"),
    ]
    add_run(api, "long", "Running", *attempts)
    add_pod(api, "long-train(2)", datetime.now(UTC) - timedelta(seconds=900))
    assert listed()["long"]["gpuHours"] == pytest.approx((2 * 1800 + 7200 + 2 * 900) / 3600, abs=0.01)
    api.refused["list", "pods"] = 403, "pods is forbidden"
    assert listed()["long"]["gpuHours"] is None


def test_a_training_without_gpus_costs_none(api: FakeKubernetes, listed: Any):
    nodes = pod("train(0)", "Error", message="pod deleted"), pod("train(1)", "Running")
    add_run(api, "small", "Running", *nodes, arguments={"gpu-count": "0"})
    assert listed()["small"]["gpuHours"] == 0.0


def test_the_ap_so_far_is_read_in_the_store_where_that_is_possible(
    api: FakeKubernetes, listed: Any, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    metrics = tmp_path / "runs" / "first" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"split": "val", "step": 10, "ap": 0.25}\n{"split": "train", "step": 20, "loss": 3.5}\n')
    for name in ("first", "second"):
        add_run(api, name, "Running", pod("train(0)", "Running"), arguments={"store": tmp_path.as_uri()})
    assert listed()["first"]["ap"] is None
    assert command("runs", "-n", "ml").err == (
        "note: the AP of unfinished runs is unknown: this machine has no credentials for the store\n"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    rows = listed()
    assert (rows["first"]["ap"], rows["second"]["ap"]) == (0.25, None)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--state", "failed", "--state", "succeeded"], ["two", "one"]),
        (["--who", "ANN"], ["one"]),
        (["--model", "r50"], ["three", "two"]),
        (["--data", "task:7"], ["two"]),
        (["--limit", "1"], ["three"]),
        (["--limit", "1", "--state", "failed"], ["two"]),
    ],
)
def test_filters(api: FakeKubernetes, listed: Any, options: list[str], names: list[str]):
    who = "detr-workflows/cvat-user-name"
    add_run(api, "one", "Succeeded", day=1, arguments={"model": "tiny"}, annotations={who: "Ann"})
    add_run(api, "two", "Failed", day=2, arguments={"model": "detr-r50", "cvat-subject": "task:7"})
    add_run(api, "three", "Running", day=3, arguments={"model": "detr-r50"})
    assert list(listed(*options)) == names


def test_watching_prints_again_after_a_change_and_survives_a_lost_connection(
    api: FakeKubernetes, command: Command, monkeypatch: pytest.MonkeyPatch
):
    run = add_run(api, "run", "Pending", arguments={"model": "tiny"})
    rounds = iter(["same", "away", "back", "end"])

    def next_round(_seconds: float) -> None:
        match next(rounds):
            case "away":
                api.refused["list", "workflows"] = 503, "overloaded"
            case "back":
                api.refused.clear()
                run["status"]["phase"] = "Succeeded"
            case "end":
                raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", next_round)
    ended = command("runs", "-n", "ml", "--watch", "--json")
    assert ended.code == 130
    assert [json.loads(line)["runs"][0]["state"] for line in ended.out.splitlines()] == ["pending", "succeeded"]
    assert ended.err.count("lost the connection, retrying") == 1


def test_defaults_of_the_template_count_for_a_run_with_few_parameters(api: FakeKubernetes, listed: Any):
    run = add_run(api, "few", "Succeeded", arguments={"model": "tiny"})
    defaults = [{"name": "model", "value": "detr-r50"}, {"name": "prepared-set", "value": "0123456789abcdef"}]
    run["status"]["storedWorkflowTemplateSpec"]["arguments"] = {"parameters": defaults}
    assert [listed()["few"][key] for key in ("model", "data")] == ["tiny", "0123456789abcdef"]


def test_a_run_without_labels_is_listed_too(api: FakeKubernetes, listed: Any):
    # Argo sets none on a workflow that it postponed because too many were running.
    run = add_run(api, "postponed", "Running")
    run["metadata"]["labels"] = {}
    assert not listed()
    run["spec"]["workflowTemplateRef"] = {"name": "detr-train"}
    assert listed()["postponed"]["template"] == "detr-train"


def test_texts_of_a_third_party_template_are_no_numbers(api: FakeKubernetes, listed: Any):
    outputs = {"parameters": [{"name": "ap", "value": "good enough"}]}
    add_run(api, "theirs", "Succeeded", pod("train(0)", "Succeeded"), arguments={"gpu-count": "all"}, outputs=outputs)
    assert (listed()["theirs"]["ap"], listed()["theirs"]["gpuHours"]) == (None, 0.0)


@pytest.mark.usefixtures("api")
def test_an_installation_without_runs_has_an_empty_table(command: Command):
    assert command("runs", "-n", "ml").out.splitlines() == ["NAME  WHO  MODEL  DATA  STATE  AP  GPU HOURS  REASON"]
