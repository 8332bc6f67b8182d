"""What `detr-job train` trains by: the parameters of the workflow, and over them the options that a person gives."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from detr_job.cli import app
from detr_job.training import training_job
from detr_job.training.training_job import TrainRequest, job_config
from run_config.job.config import JobConfig
from run_config.parameters import BY_NAME, Parameter, Type

PARAMETERS = {
    "store": "s3://lab/team",
    "cvat-output-path": "runs",
    "cvat-finetune-checkpoint": "runs/first/model",
    "model": "tiny",
    "epochs": "3",
    "minutes": "",
    "batch-size": "6",
    "learning-rate": "0.002",
    "seed": "7",
    "device": "cpu",
    "overrides": "model.queries=70 checkpoints.keep=5",
    "gpu-count": "0",
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrainRequest]:
    """The requests that reach the training."""
    requests: list[TrainRequest] = []
    monkeypatch.setattr(training_job, "train", requests.append)
    return requests


def train(*options: str, parameters: dict[str, str] | None = None) -> None:
    texts = json.dumps([{"name": name, "value": text} for name, text in (parameters or {}).items()])
    given = ["train", "--set=0123456789abcdef", "--run=first", "--out=out", f"--parameters-json={texts}", *options]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output


def settings(config: JobConfig) -> tuple[object, ...]:
    schedule = config.schedule
    return schedule.epochs, schedule.minutes, config.data.batch_size, config.optimizer.lr, config.training.seed


def test_the_parameters_alone_say_all_of_it(asked: list[TrainRequest]):
    train(parameters=PARAMETERS)
    (request,) = asked
    assert (request.store, request.output_prefix, request.model) == ("s3://lab/team", "runs", "tiny")
    assert (request.finetune, request.device) == ("runs/first/model", "cpu")
    assert request.recorded == PARAMETERS
    config = job_config(request)
    assert settings(config) == (3, None, 6, 0.002, 7)
    assert (config.model.queries, config.checkpoints.keep) == (70, 5)


def test_an_option_that_is_given_wins(asked: list[TrainRequest]):
    train("--epochs=", "--minutes=2", "--seed=8", "--device=auto", "--finetune=", parameters=PARAMETERS)
    (request,) = asked
    assert settings(job_config(request)) == (None, 2, 6, 0.002, 8)
    assert (request.device, request.finetune) == ("auto", "")
    assert request.settings["cvat-finetune-checkpoint"] == ""
    assert request.recorded == PARAMETERS


def test_without_parameters_the_options_and_their_defaults_hold(asked: list[TrainRequest], tmp_path: Path):
    train(f"--store={tmp_path}", "--output-prefix=o", "--model=tiny", "--batch-size=3", "--learning-rate=0.01")
    (request,) = asked
    assert settings(job_config(request)) == (None, 5, 3, 0.01, 42)
    assert (request.device, request.finetune, request.recorded) == ("cuda", "auto", {})


def test_a_new_parameter_that_sets_a_key_needs_no_further_code(
    asked: list[TrainRequest], monkeypatch: pytest.MonkeyPatch
):
    made_up = Parameter(name="made-up", title="", help="", group="", type=Type.NUMBER, sets="optimizer.weight_decay")
    monkeypatch.setitem(BY_NAME, "made-up", made_up)
    train(parameters=PARAMETERS | {"made-up": "0.03"})
    assert job_config(asked[0]).optimizer.weight_decay == 0.03
