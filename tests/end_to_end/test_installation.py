"""Every command of a workflow keeps to the installation by itself: `check` can be left out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from run_config.installation import EXPORTS_VARIABLE, VARIABLE

BIN = Path(sys.executable).parent
SET = "0123456789abcdef"
PATIENCE_S = 240


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, str]:
    """The environment of a step: nothing of the store can be reached, so what is refused is refused before."""
    settings = {"version": 1, "store": "s3://bucket/project", "readable": ["s3://exports"], "writable": ["runs"]}
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps(settings))
    own = {VARIABLE: str(path), EXPORTS_VARIABLE: "cvat-exports", "OUT": str(tmp_path / "out")}
    return os.environ | own | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


def refused(command: list[str | Path], environment: dict[str, str]) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"store": "s3://another"}, "store must be s3://bucket/project here, not 's3://another'"),
        ({"store": "file:///tmp"}, "store must be s3://bucket/project here"),
        ({"output-prefix": "datasets"}, "cvat-output-path: 'datasets' may not be written here"),
        ({"output-prefix": "runs/../datasets"}, "cvat-output-path: 'runs/../datasets' must be a key below the store"),
        ({"finetune": "s3://secrets/model"}, "cvat-finetune-checkpoint: s3://secrets/model may not be read here"),
        ({"finetune": "/root/model.pth"}, "cvat-finetune-checkpoint: file:///root/model.pth may not be read here"),
        ({"model": "detr-r18", "overrides": "model.backbone_weights=/root/r18.pth"},
         "model.backbone_weights: file:///root/r18.pth may not be read here"),
        ({"model": "detr-r18", "overrides": "model.backbone_weights=s3://bucket/project/cvat-exports/task-9/x"},
         "model.backbone_weights: s3://bucket/project/cvat-exports/task-9/x may not be read here: exports below"),
    ],
)  # fmt: skip
def test_train_refuses_what_is_not_allowed(inside: dict[str, str], changes: dict[str, str], said: str):
    options = {"store": "s3://bucket/project", "set": SET, "output-prefix": "runs", "run": "a", "model": "tiny"}
    options |= {"device": "cpu"} | changes
    command = [BIN / "detr-job", "train", *(f"--{name}={value}" for name, value in options.items())]
    assert refused(command, inside).startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"store": "s3://another"}, "store must be s3://bucket/project here"),
        ({"model": "s3://secrets/model"}, "trained-model: s3://secrets/model may not be read here"),
        ({"model": "/"}, "trained-model: file:/// may not be read here"),
        ({"output-prefix": "datasets"}, "cvat-output-path: 'datasets' may not be written here"),
    ],
)
def test_evaluate_refuses_what_is_not_allowed(inside: dict[str, str], changes: dict[str, str], said: str):
    options = {"store": "s3://bucket/project", "set": SET, "model": "runs/a/model", "device": "cpu"} | changes
    command = [BIN / "detr-job", "evaluate", *(f"--{name}={value}" for name, value in options.items())]
    assert refused(command, inside).startswith(said)


@pytest.mark.parametrize(
    ("store", "prefix", "said"),
    [
        ("s3://another", "runs/a", "store must be s3://bucket/project here"),
        ("s3://bucket/project", "datasets/a", "cvat-output-path: 'datasets/a' may not be written here"),
    ],
)
def test_report_refuses_what_is_not_allowed(inside: dict[str, str], store: str, prefix: str, said: str):
    options = [f"--store={store}", f"--set={SET}", f"--run-prefix={prefix}"]
    assert refused([sys.executable, "-m", "evaluation", "report", *options], inside).startswith(said)
