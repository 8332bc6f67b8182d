"""What a person can get wrong ends within a minute, with the sentence where people look."""

import io
import json
import zipfile
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.cluster.cluster import SECRET, Installation, Json, node, phase, summary, told

MISTAKES = {
    "wrong pool": ({"sys_node_pool": "trainnig"}, "check", "sys-node-pool must be one of training, not 'trainnig'"),
    "wrong parameter": ({"epochs": "many"}, "check", "epochs must be a whole number"),
    "two lengths": ({"epochs": "1", "minutes": "1"}, "check", "epochs and minutes: set one of them"),
    "too many GPUs": ({"gpu_count": "9"}, "check", "gpu-count"),
    "missing key": ({"cvat_annotation_path": "uploads/nothing.zip"}, "check", "uploads/nothing.zip"),
    "forbidden prefix to read": ({"cvat_annotation_path": "s3://other/x.zip"}, "check", "may not be read here"),
    "forbidden prefix to write": ({"cvat_output_path": "elsewhere"}, "check", "may not be written here"),
    "other store": ({"store": "s3://other/store"}, "check", "store must be s3://"),
    "empty export": ({"cvat_annotation_path": "uploads/empty.zip"}, "prepare(0)", "empty.zip"),
}


def empty_export() -> bytes:
    """What CVAT gives for a task without a picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
        archive.writestr("annotations/instances_default.json", json.dumps(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def runs(installation: Installation) -> dict[str, str]:
    """All of them at once."""
    installation.upload("uploads/empty.zip", empty_export())
    return {title: installation.submit(**parameters) for title, (parameters, _, _) in MISTAKES.items()}


@pytest.mark.parametrize("title", MISTAKES)
def test_a_mistake_is_a_sentence_at_its_step(installation: Installation, runs: dict[str, str], title: str):
    _, step, sentence = MISTAKES[title]
    workflow = installation.finished(runs[title], timeout_s=180)
    assert phase(workflow) == "Failed", summary(workflow)
    failed = node(workflow, step)
    assert failed is not None, summary(workflow)
    assert failed["message"].startswith("main: Error (exit code 2): "), failed["message"]
    assert sentence in failed["message"]
    assert sentence in told(workflow)
    assert installation.pods(runs[title], "train") == []
    assert node(workflow, "prepare(1)") is None, "a person's mistake was tried again"
    assert seconds(failed) < 60


@pytest.fixture
def without_secret(installation: Installation) -> Iterator[Installation]:
    secret = installation.get("secret", SECRET)
    for key in ("creationTimestamp", "resourceVersion", "uid", "managedFields"):
        secret["metadata"].pop(key, None)
    installation.kubectl("delete", "secret", SECRET)
    yield installation
    installation.kubectl("delete", "secret", SECRET, "--ignore-not-found")
    installation.kubectl("create", "-f", "-", stdin=json.dumps(secret))


def test_a_missing_secret_is_a_sentence_and_not_a_stuck_pod(runs: dict[str, str], without_secret: Installation):
    for name in runs.values():  # they need the secret that is gone now
        without_secret.finished(name, timeout_s=180)
    workflow = without_secret.finished(without_secret.submit(), timeout_s=120)
    assert f"{SECRET}" in node(workflow, "check")["message"]
    assert SECRET in told(workflow)
    assert seconds(node(workflow, "check")) < 60


def test_wrong_credentials_are_a_sentence(runs: dict[str, str], without_secret: Installation):
    for name in runs.values():
        without_secret.finished(name, timeout_s=180)
    keys = ["--from-literal=access-key-id=nobody", "--from-literal=secret-access-key=knows"]
    without_secret.kubectl("create", "secret", "generic", SECRET, *keys)
    workflow = without_secret.finished(without_secret.submit(), timeout_s=120)
    message = node(workflow, "check")["message"]
    assert message.startswith("main: Error (exit code 2): ")
    assert without_secret.bucket in message
    assert seconds(node(workflow, "check")) < 60


def seconds(failed: Json) -> float:
    """How long a step took, with the way of its pod to a node."""
    begin, end = (datetime.fromisoformat(failed[key]) for key in ("startedAt", "finishedAt"))
    return (end - begin).total_seconds()
