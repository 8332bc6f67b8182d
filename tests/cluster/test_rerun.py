"""A failed run that is retried goes on; resubmitted it begins anew."""

import json

import httpx

from tests.cluster.cluster import Installation, last_step, node, outputs, phase, resumed_at

LENGTH = 240
INTERVAL = 20
OVERRIDES = f"schedule.steps={LENGTH} checkpoints.interval={INTERVAL} evaluation.interval=120 training.log_interval=5"
OPERATOR = {
    "apiVersion": "v1",
    "kind": "List",
    "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "operator"},
            "rules": [
                {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["get", "list", "update", "patch"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "delete"]},
            ],
        },
    ],
}


def test_a_stopped_run_that_is_retried_goes_on_and_a_resubmitted_one_begins_anew(installation: Installation):
    name = installation.submit(overrides=OVERRIDES)
    pod = installation.training_pod(name)
    installation.wait_for_step(pod, 45)
    installation.kubectl("patch", "workflow", name, "--type=merge", "-p", json.dumps({"spec": {"shutdown": "Stop"}}))
    stopped = installation.finished(name)
    assert phase(stopped) == "Failed"
    prepared_by = node(stopped, "prepare(0)")["id"]

    retry(installation, name)
    pod = installation.training_pod(name)
    installation.wait(name, lambda wf: phase(wf) == "Succeeded", 420, "succeeded after its retry")
    log = installation.kubectl("logs", pod, "-c", "main")
    assert resumed_at(log) >= 40
    assert last_step(log) == LENGTH
    finished = installation.workflow(name)
    assert node(finished, "prepare(0)")["id"] == prepared_by, "what was done was done again"
    assert installation.read_json(f"workflow-data/output/{name}/run.json")["restarts"] == 1

    again = installation.cluster.run("argo", "resubmit", name, "-n", installation.namespace, "-o", "name").split()[-1]
    pod = installation.training_pod(again)
    installation.wait_for_step(pod, 5)
    assert resumed_at(installation.kubectl("logs", pod, "-c", "main")) == 0
    workflow = installation.workflow(again)
    assert node(workflow, "prepare(0)")["outputs"]["parameters"][0]["value"] == outputs(finished)["prepared-set"]
    installation.kubectl("delete", "workflow", again)


def retry(installation: Installation, name: str) -> None:
    """By Argo's API as its page does; by its command line where no server is known."""
    server = installation.cluster.argo_server
    if server is None:
        installation.cluster.run("argo", "retry", name, "-n", installation.namespace)
        return
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(OPERATOR))
    binding = f"--serviceaccount={installation.namespace}:operator"
    installation.kubectl("create", "rolebinding", "operator", "--role=operator", binding)
    token = installation.kubectl("create", "token", "operator").strip()
    answer = httpx.put(
        f"{server}/api/v1/workflows/{installation.namespace}/{name}/retry",
        headers={"Authorization": f"Bearer {token}"},
        json={"name": name, "namespace": installation.namespace},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
