"""One run from an export to a model, in a namespace that enforces Pod Security `restricted`."""

import os
from pathlib import Path

import pytest

from tests.cluster.cluster import GPU, Installation, node, outputs


def test_helm_test_runs_a_tiny_training(installation: Installation):
    printed = installation.helm("test", installation.release, "--timeout", "10m", timeout_s=620)
    assert "Phase:          Succeeded" in printed


@pytest.fixture(scope="module")
def real_run(installation: Installation) -> tuple[Installation, str]:
    """A minute of training on real pictures; on the sample where there are none."""
    folder = os.environ.get("REAL_DATA")
    parameters = {"cvat_annotation_path": "uploads/sample_trainval.zip", "cvat_test_path": "uploads/sample_test.zip"}
    if folder:
        for name in ("bccd_trainval_cvat_coco.zip", "bccd_test_cvat_coco.zip"):
            installation.upload(f"uploads/{name}", (Path(folder) / name).read_bytes())
        parameters = {
            "cvat_annotation_path": "uploads/bccd_trainval_cvat_coco.zip",
            "cvat_test_path": "uploads/bccd_test_cvat_coco.zip",
        }
    name = installation.submit(minutes="1", **parameters)
    installation.succeeded(name, timeout_s=600)
    return installation, name


def test_the_steps_run_where_they_belong(real_run: tuple[Installation, str]):
    installation, name = real_run
    workflow = installation.workflow(name)
    places = {step: node(workflow, step)["hostNodeName"] for step in ("check", "prepare(0)", "train(0)", "report(0)")}
    assert places["train(0)"] in installation.places.gpu_nodes
    if installation.places.gpus:
        assert {places[step] for step in ("check", "prepare(0)", "report(0)")} & installation.places.gpu_nodes == set()
    for pod in installation.pods(name):
        main = next(one for one in pod["spec"]["containers"] if one["name"] == "main")
        asked = main["resources"].get("limits", {}).get(GPU)
        training = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "train"
        assert asked == (str(min(installation.places.gpus, 1)) if training else None)


def test_ap_and_the_set_are_outputs(real_run: tuple[Installation, str]):
    installation, name = real_run
    results = outputs(installation.workflow(name))
    assert 0 <= float(results["ap"]) <= 1
    assert 0 <= float(results["ap50"]) <= 1
    assert f"datasets/{results['prepared-set']}/manifest.json" in installation.keys("datasets/")
    if "REAL_DATA" in os.environ:
        # A minute on a slow CPU: far from good, but far from nothing.
        assert float(results["ap50"]) > 0.02


def test_the_artifacts_lie_in_the_bucket_and_are_named_in_the_run(real_run: tuple[Installation, str]):
    installation, name = real_run
    folder = f"workflow-data/output/{name}/"
    lying = {key.removeprefix(folder) for key in installation.keys(folder)}
    assert {
        "run.json",
        "metrics.jsonl",
        "metrics.json",
        "model/model.safetensors",
        "model/config.json",
        "checkpoint/trainer.pt",
        "predictions/val.json",
        "predictions/test.json",
        "report/index.html",
    } <= lying
    workflow = installation.workflow(name)
    named = {
        artifact["name"]: artifact["s3"]["key"]
        for step in ("train(0)", "report(0)")
        for artifact in node(workflow, step)["outputs"]["artifacts"]
    }
    assert named["model"] == f"team/{folder}model/"
    assert named["report"] == f"team/{folder}report/"
    assert {"checkpoint", "predictions", "metrics", "main-logs"} <= named.keys()
    run = installation.read_json(f"{folder}run.json")
    assert run["workflow_uid"] == workflow["metadata"]["uid"]
    assert run["prepared_set"] == outputs(workflow)["prepared-set"]


def test_the_run_carries_labels_to_find_it_by(real_run: tuple[Installation, str]):
    installation, name = real_run
    labels = installation.workflow(name)["metadata"]["labels"]
    assert labels["used-by"] == "cvat"
    assert labels["detr-workflows/template"] == "detr-train"


def test_the_model_is_measured_on_the_set_by_another_workflow(real_run: tuple[Installation, str]):
    installation, name = real_run
    before = outputs(installation.workflow(name))
    again = installation.submit(
        "detr-evaluate",
        trained_model=f"workflow-data/output/{name}/model",
        prepared_set=before["prepared-set"],
        split="test",
    )
    results = outputs(installation.succeeded(again))
    assert float(results["ap"]) == pytest.approx(float(before["ap"]), abs=1e-4)


def test_the_same_data_is_not_prepared_twice(real_run: tuple[Installation, str]):
    installation, name = real_run
    parameters = {
        one["name"].replace("-", "_"): one["value"]
        for one in installation.workflow(name)["spec"]["arguments"]["parameters"]
        if one["name"] in {"cvat-annotation-path", "cvat-test-path"}
    }
    before = installation.keys("datasets/")
    again = installation.submit("detr-prepare", **parameters)
    workflow = installation.succeeded(again)
    assert outputs(workflow)["prepared-set"] == outputs(installation.workflow(name))["prepared-set"]
    assert installation.keys("datasets/") == before
    assert "(was there already)" in installation.kubectl(
        # With a selector, kubectl shows only the last ten lines by default.
        "logs", "-l", f"workflows.argoproj.io/workflow={again},app.kubernetes.io/component=prepare", "-c", "main",
        "--tail=-1",
    )  # fmt: skip
