"""What training saves can be used while it goes on, after it was stopped, and after it failed."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detr_job.errors import JobError
from detr_job.weights.finetune import read_source
from detr_job.weights.model_folder import find_model, load_model
from tests.detr_job.job_server import Gate
from tests.detr_job.training_runs import Run, assert_same_tensors

SHORT = {"schedule.steps": 6, "evaluation.interval": 2, "checkpoints.interval": 3, "evaluation.min_delta": 0}


@pytest.fixture
def done(run: Run, undisturbed: Callable[[Run], Run], tmp_path: Path) -> Run:
    """A run that ended, in a folder that the test may change."""
    ended = undisturbed(run.with_options(SHORT | {"training.ema_decay": 0.9}))
    shutil.copytree(ended.stored_folder.parents[1], tmp_path / "copy")
    return replace(ended, store_url=f"file://{tmp_path}/copy")


def test_the_best_weights_so_far_are_a_model_folder(done: Run):
    best = done.stored_folder / "best"
    assert sorted(path.name for path in best.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert_same_tensors(best / "model.safetensors", done.out / "model" / "model.safetensors")
    for name in ("config.json", "README.md"):
        assert (best / name).read_bytes() == (done.out / "model" / name).read_bytes()
    assert find_model(str(done.stored_folder)).url == done.stored.child("best").url


def test_every_checkpoint_can_be_used(done: Run):
    folder = max(done.checkpoints.iterdir())
    for place in (str(folder), done.stored.child(f"checkpoints/{folder.name}").url, f"{folder}/"):
        model = load_model(place, torch.device("cpu"))
        assert list(model.info.classes) == json.loads((done.out / "model/config.json").read_bytes())["classes"]
        assert model.info.operating_point is None
    average = read_source(str(folder)).weights
    assert_same_tensors(folder / "ema.safetensors", done.out / "checkpoint" / "ema.safetensors")
    assert all(torch.equal(average[name], value) for name, value in model.family.network.state_dict().items())


def test_a_run_without_a_model_gives_its_newest_checkpoint(done: Run):
    shutil.rmtree(done.stored_folder / "best")
    folder = max(done.checkpoints.iterdir())
    assert read_source(str(done.stored_folder)).url == done.stored.child(f"checkpoints/{folder.name}").url


def test_a_checkpoint_apart_from_its_run_is_refused_in_one_sentence(done: Run, tmp_path: Path):
    folder = max(done.checkpoints.iterdir())
    shutil.copytree(folder, tmp_path / "alone" / "checkpoints" / folder.name)
    with pytest.raises(JobError, match=r"alone/run\.json is missing or does not describe a run"):
        find_model(str(tmp_path / "alone" / "checkpoints" / folder.name))


@pytest.mark.parametrize("damage", ["run.json", "weights"])
def test_a_damaged_checkpoint_is_not_taken_for_a_missing_model(done: Run, damage: str):
    folder = max(done.checkpoints.iterdir())
    if damage == "run.json":
        (done.stored_folder / "run.json").write_text('{"format": 1}')
    else:
        (folder / "ema.safetensors").write_bytes(b"x")
    with pytest.raises(JobError, match=r"run\.json is missing or does not|ema\.safetensors is damaged") as error:
        read_source(str(folder))
    assert "public DETR" not in str(error.value)


def test_a_run_can_be_used_while_it_trains_and_after_it_was_killed(run: Run, gate: Gate):
    run = run.with_options(SHORT | {"schedule.steps": 40, "checkpoints.interval": 1000})
    job = replace(run, environment=gate.environment).start()
    best = run.stored_folder / "best" / "config.json"
    while not best.exists():
        gate.pass_one(job)
    found = find_model(str(run.stored_folder))
    assert found.url == run.stored.child("best").url
    assert found.info.classes
    job.send(signal.SIGKILL)
    gate.close()
    again = run.with_options(name="again", more=("--device", "cpu", "--finetune", run.stored_folder.as_uri()))
    assert "tensors loaded unchanged" in again.with_options({"schedule.steps": 1}).ends().says()
