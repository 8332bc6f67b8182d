"""Every command of a workflow keeps to the installation by itself: `check` can be left out."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from run_config.installation import EXPORTS_VARIABLE, VARIABLE
from tests.detr_job.job_server import JobServer

BIN = Path(sys.executable).parent
SET = "0123456789abcdef"
PATIENCE_S = 240


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, str]:
    """Variables of a step: nothing of the store can be reached, so what is refused is refused before."""
    settings = {"version": 1, "store": "s3://bucket/project", "readable": ["s3://exports"], "writable": ["runs"]}
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps(settings))
    own = {VARIABLE: str(path), EXPORTS_VARIABLE: "cvat-exports", "OUT": str(tmp_path / "out")}
    return own | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}


def refused(command: list[str | Path], inside: dict[str, str]) -> str:
    environment = os.environ | inside
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def job_refuses(job_server: JobServer, inside: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """What `detr-job` says to options that it must refuse."""

    def sentence(*arguments: str) -> str:
        job = job_server.start(arguments, tmp_path / "log", inside, to_the_end=False)
        assert job.ends() == 2, job.says()
        (line,) = job.says().splitlines()
        return line.removeprefix("error: ")

    return sentence


def options(given: dict[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in given.items()]


TRAIN = {"store": "s3://bucket/project", "set": SET, "output-prefix": "runs", "run": "a", "model": "tiny"}
TRAIN |= {"device": "cpu"}
EVALUATE = {"store": "s3://bucket/project", "set": SET, "model": "runs/a/model", "device": "cpu"}


@pytest.mark.parametrize(("command", "given"), [("train", TRAIN), ("evaluate", EVALUATE)])
def test_the_installed_command_refuses_another_store(inside: dict[str, str], command: str, given: dict[str, str]):
    words = [BIN / "detr-job", command, *options(given | {"store": "s3://another"})]
    assert refused(words, inside).startswith("store must be s3://bucket/project here, not 's3://another'")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
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
def test_train_refuses_what_is_not_allowed(job_refuses: Callable[..., str], changes: dict[str, str], said: str):
    assert job_refuses("train", *options(TRAIN | changes)).startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "s3://secrets/model"}, "trained-model: s3://secrets/model may not be read here"),
        ({"model": "/"}, "trained-model: file:/// may not be read here"),
        ({"output-prefix": "datasets"}, "cvat-output-path: 'datasets' may not be written here"),
    ],
)
def test_evaluate_refuses_what_is_not_allowed(job_refuses: Callable[..., str], changes: dict[str, str], said: str):
    assert job_refuses("evaluate", *options(EVALUATE | changes)).startswith(said)


@pytest.mark.parametrize(
    ("store", "prefix", "said"),
    [
        ("s3://another", "runs/a", "store must be s3://bucket/project here"),
        ("s3://bucket/project", "datasets/a", "cvat-output-path: 'datasets/a' may not be written here"),
    ],
)
def test_report_refuses_what_is_not_allowed(inside: dict[str, str], store: str, prefix: str, said: str):
    given = options({"store": store, "set": SET, "run-prefix": prefix})
    assert refused([sys.executable, "-m", "evaluation", "report", *given], inside).startswith(said)
