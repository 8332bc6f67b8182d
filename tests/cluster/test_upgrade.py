"""A chart with a raised version while a run is in flight, and what an uninstall leaves."""

import shutil
from pathlib import Path

import yaml

from tests.cluster.cluster import CHART, SECRET, SMALL, Installation, node, outputs

LONG = f"schedule.steps=150 checkpoints.interval=50 evaluation.interval=75 training.log_interval=5 {SMALL}"


def test_an_upgrade_leaves_a_run_in_flight_alone_and_an_uninstall_the_data(installation: Installation, tmp_path: Path):
    name = installation.submit(overrides=LONG)
    pod = installation.training_pod(name)
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    description = yaml.safe_load((chart / "Chart.yaml").read_text())
    description["version"] = "99.0.0"
    (chart / "Chart.yaml").write_text(yaml.safe_dump(description))
    installation.values["commonLabels"] = {"raised": "yes"}
    installation.install(chart=chart)
    template = installation.get("workflowtemplate", "detr-train")
    assert template["metadata"]["labels"]["helm.sh/chart"] == "detr-workflows-99.0.0"
    assert template["metadata"]["labels"]["raised"] == "yes"

    finished = installation.succeeded(name)
    assert "ap" in outputs(finished)
    assert node(finished, "train(1)") is None, "the upgrade cost the run its pod"
    assert pod == installation.pods(name, "train")[0]["metadata"]["name"]

    kept = installation.keys("")
    installation.helm("uninstall", installation.release, "--wait")
    assert installation.keys("") == kept
    left = installation.get("workflowtemplate,configmap,serviceaccount,role,rolebinding,networkpolicy,secret,pod")
    names = {
        (one["kind"], one["metadata"]["name"])
        for one in left["items"]
        if one["metadata"].get("labels", {}).get("workflows.argoproj.io/workflow") != name
    }
    assert names <= {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"), ("Secret", SECRET)}
    assert installation.workflow(name)["status"]["phase"] == "Succeeded"
