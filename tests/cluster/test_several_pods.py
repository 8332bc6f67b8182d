"""Four pods prepare a set together. One of them is lost, and the set is that of one process."""

import time
from pathlib import Path

from data_prep.prepare import PrepareRequest, prepare
from object_store import open_store
from prepared_set.manifest import Options
from tests.cluster.cluster import Installation, Json, node, nodes, outputs
from tests.data_prep.export_builder import Export, picture, write_zip

PODS = 4
IMAGES = 450
SIZE = (2000, 1500)
RECENT_S = 10  # Argo's RECENTLY_STARTED_POD_DURATION
LOST = "prepare-images(2:2)(0)"

# Stops the processes of the container as soon as there are any, except Argo's (process 1) and this one.
HALT = """
import os, pathlib, signal, time
def work():
    running = (int(folder.name) for folder in pathlib.Path("/proc").glob("[0-9]*"))
    return [process for process in running if process not in (1, os.getpid())]
while not work():
    time.sleep(0.01)
for process in work():
    os.kill(process, signal.SIGSTOP)
"""


def large_export(path: Path) -> Path:
    """An export whose images take seconds to check, each with its own bytes."""
    photo = picture("photo.jpg", SIZE)
    export = Export()
    for number in range(IMAGES):
        boxes = [("cat" if number % 3 else "dog", 10.0 + number, 20.0, 300.0, 200.0)]
        export.add(f"{number:04}.jpg", boxes, SIZE, data=photo + number.to_bytes(2, "big"))
    return write_zip(path, export)


def lose_pod(installation: Installation, run: str, name: str) -> None:
    """Delete the pod of a node in the middle of its work.

    The work is halted first, since it may take less than a second. Argo creates a pod that is lost in its first
    `RECENT_S` seconds again and counts no further attempt, so this waits until they are over.
    """
    pod = installation.running_pod(run, "prepare", f"{run}.{name}")
    installation.kubectl("exec", pod, "-c", "main", "--", "python", "-c", HALT)
    installation.wait(run, lambda workflow: phase_of(workflow, name) == "Running", 120, f"running {name}")
    time.sleep(RECENT_S + 2)
    installation.kubectl("delete", "pod", pod, "--wait=false", "--grace-period=1")


def phase_of(workflow: Json, name: str) -> str:
    one = node(workflow, name)
    return one["phase"] if one else ""


def attempts(workflow: Json, stage: str) -> list[int]:
    """How many pods each share of a stage took."""
    pods = [one["displayName"] for one in nodes(workflow) if one["type"] == "Pod"]
    shares = [f"prepare-{stage}({number}:{number})" for number in range(PODS)]
    return [sum(pod.startswith(f"{share}(") for pod in pods) for share in shares]


def test_a_lost_pod_costs_its_share_only_and_the_set_is_that_of_one_process(installation: Installation, tmp_path: Path):
    source = large_export(tmp_path / "large.zip")
    expected = prepare(
        PrepareRequest((str(source),), options=Options(seed=42)), open_store(tmp_path / "store"), lambda *_: b""
    ).manifest
    installation.upload("uploads/large.zip", source.read_bytes())
    run = installation.submit("detr-prepare", cvat_annotation_path="uploads/large.zip", prepare_pods=str(PODS))
    lose_pod(installation, run, LOST)
    workflow = installation.succeeded(run, timeout_s=600)
    assert attempts(workflow, "images") == [1, 1, 2, 1]
    assert attempts(workflow, "shards") == [1, 1, 1, 1]
    assert outputs(workflow)["prepared-set"] == expected.id
    manifest = installation.read_json(f"datasets/{expected.id}/manifest.json")
    assert [one["sha256"] for one in manifest["shards"]] == [one.sha256 for one in expected.shards]
    assert {name: one["sha256"] for name, one in manifest["annotations"].items()} == {
        name: one.sha256 for name, one in expected.annotations.items()
    }
    assert installation.keys("datasets/in-progress/") == []


def test_small_data_needs_one_step_as_ever(installation: Installation):
    workflow = installation.succeeded(
        installation.submit("detr-prepare", cvat_annotation_path="uploads/sample_trainval.zip")
    )
    pods = [one["displayName"] for one in nodes(workflow) if one["type"] == "Pod"]
    assert {pod.partition("(")[0] for pod in pods if "onExit" not in pod} == {"check", "prepare"}
