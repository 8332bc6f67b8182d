"""What a template of somebody else is told, with Onepanel's names and habits."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from cvat_bridge.cluster import PoolChoice
from cvat_bridge.http.problems import Refusal
from cvat_bridge.templates.catalog import OfferedTemplate, read_offered_template
from cvat_bridge.templates.fill_parameters import RunContext, fill_in
from cvat_client.subject import Subject
from run_config.installation import Installation
from workflows.cli import RENDERED

KEY = "{{workflow.namespace}}/{{workflow.parameters.cvat-annotation-path}}"


def template(key: str) -> OfferedTemplate:
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
    offered = read_offered_template(tree)
    assert offered is not None
    return offered


def context(store: str) -> RunContext:
    installation = Installation(store=store)
    return RunContext(Subject.tasks([8]), "grant", "run-1", installation, "cvat-exports", (), namespace="ml")


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
    assert fill_in(template(key), {}, context(store)) == {"cvat-annotation-path": told}


@pytest.mark.parametrize("store", ["s3://lab", "s3://lab/other", "s3://lab/mlops"])
def test_a_store_that_such_a_template_cannot_find_is_said(store: str) -> None:
    with pytest.raises(Refusal) as refused:
        fill_in(template(KEY), {}, context(store))
    assert "reads its data below ml/ in the bucket" in str(refused.value.complaints[0].text)


@pytest.mark.parametrize(
    "text",
    [
        "cvat-exports/task-9",
        "cvat-exports",
        "s3://lab/ml/cvat-exports/task-9/run-2/dataset.zip",
        "s3://lab/ml/./cvat-exports//task-9",
        "s3://lab/ml/%63vat-exports/task-9",
        "s3://lab/ml",
        "s3://lab",
    ],
)
def test_nobody_trains_on_what_was_exported_for_somebody_else(text: str) -> None:
    tree = yaml.safe_load((RENDERED / "cvat-train.yaml").read_text())
    offered = read_offered_template(tree)
    assert offered is not None
    with pytest.raises(Refusal) as refused:
        fill_in(offered, {"cvat-test-path": text}, context("s3://lab/ml"))
    assert "cvat-test-path" in {one.field for one in refused.value.complaints}


@pytest.mark.parametrize(
    "overrides",
    [
        "model.backbone_weights=s3://lab/ml/cvat-exports/task-9/run-2/dataset.zip",
        "model.backbone_weights=cvat-exports/task-9/run-2/dataset.zip",
        'model.backbone_weights=cvat-expo"rts"/task-9',
        "model.backbone_weights='\"\\x63vat-exports/task-9\"'",
        "model.backbone_weights=s3://lab/ml",
        "model='{family: detr, backbone_weights: \"s3://lab/ml/%63vat-exports/task-9\"}'",
        "model.backbone_weights=s3://lab/ml/cvat-exports/task-9 model.backbone_weights=weights/r18.pth",
        "model.backbone_weights=weights/../cvat-exports/task-9",
    ],
)
def test_no_key_of_the_configuration_names_what_was_exported_for_somebody_else(overrides: str) -> None:
    offered = read_offered_template(yaml.safe_load((RENDERED / "cvat-train.yaml").read_text()))
    assert offered is not None
    with pytest.raises(Refusal) as refused:
        fill_in(offered, {"overrides": overrides}, context("s3://lab/ml"))
    assert {one.field for one in refused.value.complaints} == {"overrides"}
    given = {"overrides": "model.backbone_weights=weights/r18.pth optimizer.lr=0.0002"}
    assert fill_in(offered, given, context("s3://lab/ml"))["overrides"] == given["overrides"]


def test_neither_does_a_template_of_somebody_else() -> None:
    theirs = template(KEY)
    more = {"name": "cvat-finetune-checkpoint", "value": ""}
    tree = json.loads(json.dumps(theirs.tree))
    tree["spec"]["arguments"]["parameters"].append(more)
    offered = read_offered_template(tree)
    assert offered is not None
    with pytest.raises(Refusal, match="are not allowed here"):
        fill_in(offered, {"cvat-finetune-checkpoint": "cvat-exports/task-9"}, context("s3://lab/ml"))
    assert fill_in(offered, {"cvat-finetune-checkpoint": "models/7"}, context("s3://lab/ml"))


def test_a_pool_that_a_template_of_somebody_else_hides_stays_its_own() -> None:
    tree = json.loads(json.dumps(template(KEY).tree))
    hidden = {"name": "sys-node-pool", "value": "g4dn", "visibility": "private"}
    tree["spec"]["arguments"]["parameters"].append(hidden)
    offered = read_offered_template(tree)
    assert offered is not None
    pools = (PoolChoice("large", "Eight A100", "", None, "p4d"),)
    assert fill_in(offered, {}, replace(context("s3://lab/ml"), pools=pools))["sys-node-pool"] == "g4dn"
