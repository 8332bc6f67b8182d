"""`detr-workflows submit`, `pools` and `preflight` against a real cluster."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.cluster import Installation, phase
from tests.cluster.command_line_fixtures import (
    COMMAND,
    client_kubeconfig,
    client_token,
    detr_workflows,
    kubeconfig,
    lab,
    through_a_proxy,
)

__all__ = ["client_kubeconfig", "client_token", "lab"]

NOTE = "a \"quoted\" 'note'\n- with: {yaml}\n$(and shell)"


def submit(lab: Installation, *options: object, **kwargs: object) -> tuple[str, ...]:
    given = [word for name, text in kwargs.items() for word in ("-p", f"{name}={text}")]
    return ("submit", "fates", "-n", lab.namespace, "-p", f"note={NOTE}", *given, *map(str, options))


def test_a_good_run_is_followed_to_its_results(lab: Installation):
    ended = detr_workflows(*submit(lab, "--watch", "--timeout-s", 120))
    assert ended.code == 0, ended.err
    # A slow controller may report the step only when it has ended.
    assert re.search(r"reckon  (Running|Succeeded)", ended.out)
    assert re.search(r"fates-\w+  Succeeded", ended.out)
    assert ended.out.splitlines()[-1] == "ap50: 0.5"


def test_every_parameter_is_explicit_and_stays_the_text_it_was(lab: Installation):
    ended = detr_workflows(*submit(lab, "--json", "--label", "team=lab", seconds=1))
    run = json.loads(ended.out)
    workflow = lab.workflow(run["name"])
    assert workflow["metadata"]["uid"] == run["uid"]
    assert workflow["metadata"]["labels"]["team"] == "lab"
    values = {one["name"]: one["value"] for one in workflow["spec"]["arguments"]["parameters"]}
    assert values == {"fate": "good", "seconds": "1", "note": NOTE}


@pytest.mark.parametrize(("fate", "code"), [("wrong", 2), ("passing", 75), ("bug", 1)])
def test_the_end_of_the_run_is_the_end_of_the_command(lab: Installation, fate: str, code: int):
    ended = detr_workflows(*submit(lab, "--watch", "--timeout-s", 180, fate=fate, seconds=1))
    assert (ended.code, ended.last) == (code, "error: the number is wrong: choose another")
    assert ("attempt 2" in ended.out) == (fate == "passing")


def test_a_time_limit_leaves_the_run_alone(lab: Installation):
    ended = detr_workflows(*submit(lab, "--watch", "--timeout-s", 3, "--name", "long", seconds=10))
    assert ended.code == 75
    assert "3 s are over; long continues" in ended.last
    assert phase(lab.finished("long")) == "Succeeded"


def test_ctrl_c_leaves_the_run_alone(lab: Installation):
    process = subprocess.Popen(
        [*COMMAND, *submit(lab, "--watch", "--name", "watched", seconds=8)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "reckon" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"`argo stop watched -n {lab.namespace}`" in err
    assert phase(lab.finished("watched")) == "Succeeded"


def test_an_api_that_goes_away_is_waited_for(lab: Installation, tmp_path: Path):
    with through_a_proxy(lab, tmp_path / "config") as proxy:
        process = subprocess.Popen(
            [*COMMAND, *submit(lab, "--watch", "--timeout-s", 120, seconds=10)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": str(tmp_path / "config")},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"reckon  (Running|Succeeded)", line):
                break
        proxy.cut()
        assert "lost the connection, retrying" in process.stdout.readline()
        proxy.start()
        rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert rest.count("connected again") == 1
    assert rest.splitlines()[-1] == "ap50: 0.5"


def test_submit_only_rights_are_enough(lab: Installation, client_kubeconfig: Path):
    rights = {"KUBECONFIG": str(client_kubeconfig)}
    ended = detr_workflows(*submit(lab, "--watch", "--timeout-s", 120, seconds=1), environment=rights)
    assert (ended.code, ended.err) == (0, "")


def test_what_one_may_not_do_is_one_sentence(lab: Installation, client_kubeconfig: Path, tmp_path: Path):
    rights = {"KUBECONFIG": str(client_kubeconfig)}
    elsewhere = detr_workflows("submit", "fates", "-n", "kube-system", environment=rights)
    assert (elsewhere.code, len(elsewhere.err.splitlines())) == (2, 1)
    assert "cannot get resource" in elsewhere.last
    expired = kubeconfig(lab, "not.a.token", tmp_path / "expired")
    ended = detr_workflows("submit", "fates", environment={"KUBECONFIG": str(expired)})
    assert (ended.code, "they are wrong or expired" in ended.last) == (2, True)


def test_what_is_not_there_is_named(lab: Installation):
    assert "did you mean fates?" in detr_workflows("submit", "fate", "-n", lab.namespace).last
    assert "there is no namespace no-such" in detr_workflows("submit", "fates", "-n", "no-such").last
    taken = json.loads(detr_workflows(*submit(lab, "--json", "--name", "taken", seconds=0)).out)
    assert taken["name"] == "taken"
    assert "there is already a workflow taken" in detr_workflows(*submit(lab, "--name", "taken")).last


def test_our_own_template_is_checked_before_anything_is_created(lab: Installation):
    before = len(lab.get("workflows")["items"])
    options = ("-p", "cvat-annotation-path=/data/task.zip", "-p", "epochs=many")
    ended = detr_workflows("submit", "detr-train", "-n", lab.namespace, *options)
    assert ended.code == 2
    assert f"aws s3 cp /data/task.zip {lab.store}/uploads/task.zip" in ended.last
    assert "epochs must be a whole number" in ended.last
    assert len(lab.get("workflows")["items"]) == before


def test_argos_server_does_as_well(lab: Installation, client_token: str, tmp_path: Path):
    if lab.cluster.argo_server is None:
        pytest.skip("CLUSTER_ARGO_SERVER is not set: the address of Argo's server")
    (tmp_path / "token").write_text(client_token)
    server = ("--server", lab.cluster.argo_server, "--token-file", tmp_path / "token")
    without = {"KUBECONFIG": "/nowhere"}
    ended = detr_workflows(*submit(lab, "--watch", "--timeout-s", 120, *server, seconds=1), environment=without)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "ap50: 0.5"
    name = re.findall(r"(fates-\w+) submitted", ended.out)[0]
    values = {one["name"]: one["value"] for one in lab.workflow(name)["spec"]["arguments"]["parameters"]}
    assert values["note"] == NOTE
    (tmp_path / "token").write_text("nonsense")
    assert detr_workflows(*submit(lab, *server), environment=without).code == 2


def test_pools_show_nodes_and_gpus(lab: Installation, client_kubeconfig: Path):
    pools = json.loads(detr_workflows("pools", "-n", lab.namespace, "--json").out)["nodePools"]
    assert {pool["name"] for pool in pools} == {pool["name"] for pool in lab.values["nodePools"]}
    by_label = {pool["label"]: pool for pool in pools}
    pool = by_label[f"{lab.places.label}={lab.places.gpu}"]
    assert pool["nodesReady"] == len(lab.places.gpu_nodes)
    assert pool["gpus"] == lab.places.gpus * len(lab.places.gpu_nodes)
    assert pool["notTolerated"] == []
    ended = detr_workflows("pools", environment={"KUBECONFIG": str(client_kubeconfig)})
    assert (ended.code, "no permission to list nodes" in ended.out) == (0, True)


def findings(*options: object, **kwargs: dict[str, str]) -> tuple[int, dict[str, str]]:
    ended = detr_workflows("preflight", "--json", *options, environment=kwargs.get("environment"))
    return ended.code, {one["subject"]: one["mark"] for one in json.loads(ended.out)["findings"]}


def test_preflight_has_no_complaint_about_a_fresh_installation(lab: Installation):
    code, marks = findings("-n", lab.namespace)
    assert (code, [subject for subject, mark in marks.items() if mark == "fail"]) == (0, [])
    assert marks["pod security"] == "ok"
    assert marks[f"service account {lab.get('workflowtemplate', 'detr-train')['spec']['serviceAccountName']}"] == "ok"


def test_preflight_with_few_rights_says_what_it_cannot_see(client_kubeconfig: Path):
    code, marks = findings(environment={"KUBECONFIG": str(client_kubeconfig)})
    assert (code, marks["your rights"]) == (0, "ok")
    assert "unknown" in marks.values()


def test_preflight_finds_what_the_platform_engineer_left_out(lab: Installation):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"requests.memory": "10Mi"}},
    }
    lab.kubectl("apply", "-f", "-", stdin=json.dumps(quota))
    try:
        # The cluster fills in how much is used a moment later.
        code, marks = findings("-n", lab.namespace)
        assert (code, marks["quota tight"]) == (2, "fail")
    finally:
        lab.kubectl("delete", "resourcequota", "tight")
    code, marks = findings("-n", "default")
    assert (code, marks["template detr-train"]) == (2, "fail")
