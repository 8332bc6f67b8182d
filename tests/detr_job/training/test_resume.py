"""A run that is killed and started again ends with the bits of one that nobody disturbed."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.detr_job.job_server import Gate
from tests.detr_job.training_runs import (
    D_FINE,
    DEFORMABLE_DETR,
    DETR,
    FASTER_RCNN,
    RF_DETR,
    TINY,
    Run,
    assert_same_result,
)

WORKLOADS = {
    "tiny with a moving average and accumulation": (
        "tiny",
        TINY | {"data.accumulate": 2, "model.dropout": 0.1, "schedule.steps": 16, "evaluation.interval": 5},
        4,
    ),
    "tiny without cache, clipping or average": (
        "tiny",
        TINY
        | {
            "data.cache": "false",
            "training.ema_decay": 0,
            "optimizer.clip_norm": 0,
            "checkpoints.keep": 1,
            "schedule.kind": "step",
        },
        3,
    ),
    "detr with dropout": ("detr-r18", DETR | {"training.ema_decay": 0.9}, 2),
    "d-fine with denoising and a moving average": ("d-fine-nano", D_FINE | {"data.accumulate": 2}, 2),
    "deformable detr with two stages and dropout": (
        "deformable-detr-r50-two-stage",
        DEFORMABLE_DETR | {"training.ema_decay": 0.9},
        2,
    ),
    "faster r-cnn with random proposals and a moving average": (
        "faster-rcnn-mobilenet",
        FASTER_RCNN | {"training.ema_decay": 0.9},
        2,
    ),
    "tiny with mosaics and a second head": (
        "tiny",
        TINY | {"data.augmentation.mosaic": 0.5, "model.dense_targets": 3},
        2,
    ),
    "tiny whose images grow": (
        "tiny",
        TINY | {"schedule.small_images": 0.5, "data.min_sizes": "[96]", "data.max_size": 128},
        2,
    ),
    "rf-detr with padding and a moving average": ("rf-detr-nano", RF_DETR | {"data.square": "false"}, 2),
}


def kill_somewhere(run: Run, gate: Gate, chance: random.Random) -> None:
    """Start the job, let it take some steps, wait for something that chance chooses, and kill -9 it."""
    every, last = run.options["checkpoints.interval"], run.options["schedule.steps"]
    done = max(run.complete_steps(), default=0)
    step = chance.randrange(done + 1, min(done + 2 * every, last - 1) + 1)
    job = run.start()
    for _ in range(done, step + 1):
        gate.pass_one(job)  # the first is before any step
    if step // every > done // every:
        name = chance.choice(("*", "model.safetensors", "trainer.pt", "manifest.json"))
        job.reaches(lambda: written_after(run, done, name), f"{name} of a new checkpoint")
    time.sleep(chance.choice((0, 0.01, 0.03)))  # some moments have no name
    job.send_to_all(signal.SIGKILL)
    assert job.ends() == -signal.SIGKILL


def written_after(run: Run, step: int, name: str) -> bool:
    """Whether a checkpoint beyond a step has such a file."""
    return any(int(path.parent.name[5:]) > step for path in run.checkpoints.glob(f"step-*/{name}"))


@pytest.mark.parametrize("name", WORKLOADS)
def test_kills_at_random_moments_do_not_change_a_bit(
    run: Run, gate: Gate, undisturbed: Callable[[Run], Run], name: str
):
    model, options, kills = WORKLOADS[name]
    run, chance = replace(run, model=model, options=options), random.Random(name)
    for _ in range(kills):
        kill_somewhere(replace(run, environment=gate.environment), gate, chance)
    run.ends()
    assert_same_result(run, undisturbed(run))


def test_the_number_of_workers_does_not_change_a_bit(run: Run, undisturbed: Callable[[Run], Run]):
    run = run.with_options({"data.workers": 2, "data.cache": "false", "schedule.steps": 8})
    run.ends()
    reference = undisturbed(run.with_options({"data.workers": 0}))
    assert_same_result(run, reference)


def test_a_finished_run_only_predicts_again(run: Run):
    run = run.with_options({"schedule.steps": 3})
    run.ends()
    weights = (run.out / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(run.out)
    says = run.ends().says()
    assert "training is complete (step 3); only the predictions are computed again" in says
    assert "step 1/" not in says
    assert (run.out / "model" / "model.safetensors").read_bytes() == weights
    assert [line["step"] for line in run.metrics() if line["split"] == "train"] == [1, 2, 3]


def test_metrics_are_in_the_store_before_the_checkpoint_that_comes_after_them(run: Run):
    every = {"evaluation.interval": 4, "checkpoints.interval": 4, "checkpoints.keep": 1000}
    job = run.with_options(every | {"training.log_interval": 1000, "schedule.steps": 4000}).start()
    job.reaches(lambda: run.complete_steps() != [], "a checkpoint")
    job.send(signal.SIGKILL)
    assert job.ends() == -signal.SIGKILL
    measured = [line["step"] for line in run.metrics() if line["split"] == "val"]
    assert set(run.complete_steps()) <= set(measured)
