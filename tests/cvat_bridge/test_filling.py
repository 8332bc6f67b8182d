"""What a template of somebody else is told, with Onepanel's names and habits."""

from typing import Any

import pytest

from cvat_bridge.answers import Refusal
from cvat_bridge.filling import Filling, fill_in
from cvat_bridge.offered import Offered, read_offered
from cvat_bridge.subject import Subject
from run_config.installation import Installation

KEY = "{{workflow.namespace}}/{{workflow.parameters.cvat-annotation-path}}"


def template(key: str) -> Offered:
    """Somebody's template, whose data is an artifact with this key."""
    data = {"name": "data", "path": "/mnt/data", "s3": {"key": key}}
    tree: dict[str, Any] = {
        "metadata": {"name": "theirs", "labels": {"used-by": "cvat"}},
        "spec": {
            "entrypoint": "main",
            "arguments": {"parameters": [{"name": "cvat-annotation-path", "value": "annotation-dump/sample"}]},
            "templates": [{"name": "main", "inputs": {"artifacts": [data]}, "container": {"image": "x"}}],
        },
    }
    offered = read_offered(tree)
    assert offered is not None
    return offered


def filling(store: str) -> Filling:
    installation = Installation(store=store)
    return Filling(Subject.tasks([8]), "grant", "run-1", installation, "cvat-exports", (), namespace="ml")


@pytest.mark.parametrize(
    ("store", "key", "told"),
    [
        ("s3://lab/ml", KEY, "cvat-exports/task-8/run-1/dataset"),
        ("s3://lab/ml/team", KEY, "team/cvat-exports/task-8/run-1/dataset"),
        ("s3://lab/ml", KEY.replace("}}", " }}").replace("{{", "{{ "), "cvat-exports/task-8/run-1/dataset"),
        ("s3://lab/ml", "{{workflow.parameters.cvat-annotation-path}}", "ml/cvat-exports/task-8/run-1/dataset"),
        ("s3://lab", "{{workflow.parameters.cvat-annotation-path}}", "cvat-exports/task-8/run-1/dataset"),
    ],
)
def test_the_path_is_told_so_that_the_artifact_finds_the_export(store: str, key: str, told: str) -> None:
    assert fill_in(template(key), {}, filling(store)) == {"cvat-annotation-path": told}


@pytest.mark.parametrize("store", ["s3://lab", "s3://lab/other", "s3://lab/mlops"])
def test_a_store_that_such_a_template_cannot_find_is_said(store: str) -> None:
    with pytest.raises(Refusal) as refused:
        fill_in(template(KEY), {}, filling(store))
    assert "reads its data below ml/ in the bucket" in str(refused.value.complaints[0].text)
