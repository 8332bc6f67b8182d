"""Every place that will be written is tried before the first step, and refused in one sentence."""

import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.detr_job.job_server import JobServer
from tests.detr_job.training_runs import Run


@pytest.fixture
def short(run: Run) -> Run:
    return run.with_options({"schedule.steps": 2})


def blocked(place: Path) -> Path:
    """A file where a folder is wanted: nobody can write below it, not even root."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file")
    return place


@pytest.mark.parametrize("below", ["", "model", "checkpoint", "predictions"])
def test_an_out_that_cannot_be_written_is_said_before_the_first_step(short: Run, below: str):
    blocked(short.out / below if below else short.out)
    assert f"--out: {short.out}" in short.refused()
    assert not short.stored_folder.exists()


@pytest.mark.parametrize("name", ["", " ", "/"])
def test_a_run_without_a_name_is_refused(short: Run, name: str):
    sentence = replace(short, name=name).refused()
    assert f"--run: {name!r} is not allowed; give the run a name" in sentence
    assert not list(short.stored_folder.parent.glob("**/run.json"))


def test_a_cache_that_cannot_be_written_is_said_before_the_first_step(short: Run, tmp_path: Path):
    place = blocked(tmp_path / "cache")
    sentence = replace(short, environment={"DETR_JOB_CACHE": str(place)}).refused()
    assert f"DETR_JOB_CACHE: {place} cannot be written" in sentence
    assert not short.stored_folder.exists()


def test_a_place_for_checkpoints_that_cannot_be_written_is_said_before_the_first_step(short: Run):
    blocked(short.checkpoints)
    assert str(short.checkpoints) in short.refused()


def test_the_room_for_checkpoints_is_announced(short: Run):
    said = short.ends().says()
    found = re.search(rf"checkpoints take (\d+) MiB each, up to \d+ MiB in {short.stored.url}\n", said)
    assert found, said
    (folder,) = short.checkpoints.glob("step-*")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert int(found[1]) - 1 <= size / 2**20 <= int(found[1]) + 0.5
    assert "warning: checkpoints take" not in said
    assert not [path for path in short.checkpoints.iterdir() if path.name.startswith("check-")]


def test_too_little_room_for_checkpoints_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch):
    from detr_job.family import build_family
    from detr_job.weights import checkpoint
    from tests.detr_job.pictures import small_config

    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096))
    config = small_config("tiny")
    said = checkpoint.room(run.stored, build_family(config, 2).network, config)
    assert said.startswith("warning: checkpoints take ")
    assert "which has 1 MiB free; free some space or lower checkpoints.keep" in said


def test_predict_and_evaluate_try_their_folder_before_they_read_a_model(job_server: JobServer, tmp_path: Path):
    out = blocked(tmp_path / "out")
    commands = [
        ["predict", "--model", f"{tmp_path}/no-model", "photo.jpg", "--out", str(out)],
        ["evaluate", "--model", f"{tmp_path}/no-model", "--store", f"{tmp_path}/s", "--set", "1", "--out", str(out)],
    ]
    for command in commands:
        job = job_server.start(command, tmp_path / f"{command[0]}.log", to_the_end=False)
        assert job.ends() == 2
        assert job.says().startswith(f"error: --out: {out}")
