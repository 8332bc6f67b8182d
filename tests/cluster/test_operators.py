"""What docs/operate.md promises to operators: roles for Argo's page, scheduled runs, and the table of runs."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.cluster.cluster import SECRET, Installation, Json, nodes, phase, summary
from tests.cluster.command_line_fixtures import detr_workflows

PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text(encoding="utf-8")


def manifest(kind: str, name: str) -> Json:
    """A manifest of the page."""
    trees = [yaml.safe_load(body) for body in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "kind:" in body]
    return next(tree for tree in trees if (tree["kind"], tree["metadata"]["name"]) == (kind, name))


@pytest.fixture(scope="module")
def scheduled(installation: Installation) -> Json:
    """A run of the page's CronWorkflow, as `argo submit --from` starts it, that only prepares."""
    cron = manifest("CronWorkflow", "nightly")
    cron["spec"]["workflowSpec"] = {
        "workflowTemplateRef": {"name": "detr-prepare"},
        "arguments": {"parameters": [{"name": "cvat-annotation-path", "value": "uploads/sample_trainval.zip"}]},
    }
    installation.kubectl("apply", "-f", "-", stdin=json.dumps(cron))
    out = installation.cluster.run(
        "argo", "submit", "-n", installation.namespace, "--from", "cronwf/nightly", "-o", "name"
    )
    return installation.succeeded(out.strip().rpartition("/")[2], timeout_s=300)


@pytest.fixture(scope="module")
def wrong(installation: Installation) -> Json:
    """A run that failed."""
    workflow = installation.finished(installation.submit(cvat_annotation_path="uploads/none.zip"), timeout_s=180)
    assert phase(workflow) == "Failed", summary(workflow)
    return workflow


def person(installation: Installation, name: str, *roles: Json) -> Any:
    """GET on Argo's server, as a person with these roles of the page."""
    server = installation.cluster.argo_server
    if server is None:
        pytest.skip("CLUSTER_ARGO_SERVER is not set: roles for Argo's page are not tried")
    account = f"--serviceaccount={installation.namespace}:{name}"
    installation.kubectl("create", "serviceaccount", name)
    for role in roles:
        installation.kubectl("apply", "-f", "-", stdin=json.dumps(role))
        installation.kubectl(
            "create", "rolebinding", f"{name}-{role['metadata']['name']}", f"--role={role['metadata']['name']}", account
        )
    headers = {"Authorization": f"Bearer {installation.kubectl('create', 'token', name).strip()}"}
    return lambda path: httpx.get(f"{server}/{path}", headers=headers, timeout=60)


def artifact(workflow: Json) -> str:
    """The path of the log that a step stored."""
    prepare = next(one for one in nodes(workflow) if one["displayName"] == "prepare(0)")
    metadata = workflow["metadata"]
    return f"artifact-files/{metadata['namespace']}/workflows/{metadata['name']}/{prepare['id']}/outputs/main-logs"


def test_operators_list_workflows_of_every_kind(installation: Installation, scheduled: Json):
    ask = person(installation, "operator", manifest("Role", "detr-workflows-operator"))
    for kind in ("workflows", "workflow-templates", "cron-workflows"):
        assert ask(f"api/v1/{kind}/{installation.namespace}").status_code == 200, kind
    assert ask(artifact(scheduled)).status_code >= 400


def test_with_the_role_for_artifacts_they_open_and_logs_outlive_their_pods(installation: Installation, scheduled: Json):
    role = manifest("Role", "detr-workflows-artifacts")
    role["rules"][0]["resourceNames"] = [SECRET]
    ask = person(installation, "reader", manifest("Role", "detr-workflows-operator"), role)
    name = scheduled["metadata"]["name"]
    installation.kubectl("delete", "pod", "-l", f"workflows.argoproj.io/workflow={name}", "--ignore-not-found")
    log = ask(artifact(scheduled))
    assert log.status_code == 200, log.text
    assert "images" in log.text


def test_a_list_of_runs_shows_names_and_data_and_artifacts_stay(scheduled: Json):
    name = scheduled["metadata"]["name"]
    shown = scheduled["metadata"]["annotations"]
    assert shown["workflows.argoproj.io/title"] == f"{name}: prepare"
    assert shown["workflows.argoproj.io/description"] == "uploads/sample_trainval.zip"
    assert "workflows.argoproj.io/artifact-gc" not in str(scheduled["metadata"].get("finalizers"))


def test_the_table_of_runs_has_every_run_with_its_reason(installation: Installation, scheduled: Json, wrong: Json):
    ended = detr_workflows("runs", "-n", installation.namespace, "--json")
    assert ended.code == 0, ended.err
    rows = {row["name"]: row for row in json.loads(ended.out)["runs"]}
    assert rows[scheduled["metadata"]["name"]]["state"] == "succeeded"
    row = rows[wrong["metadata"]["name"]]
    assert (row["state"], row["model"], row["gpuHours"]) == ("failed", "tiny", 0)
    assert row["reason"].startswith("check: cvat-annotation-path: there is no")
