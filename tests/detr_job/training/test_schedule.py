"""How long a run takes and at which rates, and what Argo and a terminal see of it."""

import os
import pty
import re
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from detr_job.training.optimizer import rate_factor
from detr_job.weights import checkpoint as checkpoints
from run_config.job.config import Schedule
from tests.detr_job.job_server import Gate
from tests.detr_job.training_runs import Run

RARELY = {"evaluation.interval": 1000, "checkpoints.interval": 1000, "training.ema_decay": 0}


def rates(run: Run) -> list[float]:
    return [line["lr"] for line in run.metrics() if line["split"] == "train"]


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Schedule(kind="cosine", warmup=0.1, final_lr=0.01), {0: 0.01, 0.05: 0.5, 0.1: 1.0, 0.55: 0.505, 1: 0.01}),
        (Schedule(kind="cosine", final_lr=0.0), {0: 1.0, 0.5: 0.5, 1: 0.0}),
        (Schedule(kind="step"), {0: 1.0, 0.66: 1.0, 200 / 300: 0.1, 1: 0.1}),
        (Schedule(kind="step", drop_at=(0.5, 0.75), drop_factor=0.5), {0.49: 1.0, 0.5: 0.5, 0.75: 0.25}),
        (Schedule(kind="constant", warmup=0.5), {0: 0.01, 0.25: 0.5, 0.5: 1.0, 1: 1.0}),
    ],
)
def test_rates_reach_their_values(schedule: Schedule, points: dict[float, float]):
    for done, factor in points.items():
        assert rate_factor(schedule, done) == pytest.approx(factor), done


def test_the_steps_of_a_run_have_the_rates_of_its_schedule(run: Run):
    ramp = {"schedule.kind": "step", "schedule.drop_at": "[0.75]", "schedule.warmup": 0.5, "optimizer.lr": 0.001}
    run = run.with_options(RARELY | ramp | {"schedule.steps": 8})
    run.ends()
    assert rates(run) == pytest.approx([0.00001, 0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.0001, 0.0001])


def test_epochs_count_what_the_images_fill(run: Run):
    run = run.with_options(RARELY | {"data.accumulate": 2}, more=("--device", "cpu", "--epochs", "4"))
    options = {key: value for key, value in run.options.items() if key != "schedule.steps"}
    run = replace(run, options=options)
    run.ends()  # 20 images: 5 batches of 4 an epoch, 2 batches a step
    assert [line["step"] for line in run.metrics() if line["split"] == "train"] == list(range(1, 11))


def test_patience_ends_a_run_early_and_a_restart_leaves_it_at_that(run: Run):
    # The first evaluation is the best: no later one can be better by 1.
    run = run.with_options(
        {
            "evaluation.interval": 2,
            "evaluation.patience": 2,
            "evaluation.min_delta": 1.0,
            "schedule.small_images": 0,
        }
    )
    says = run.ends().says()
    assert "stopping early: 2 evaluations without a better AP than" in says
    assert [line["step"] for line in run.metrics() if line["split"] == "val"] == [2, 4, 6]
    assert run.complete_steps() == [2, 3, 6]
    assert "training is complete (step 6)" in run.ends().says()


def test_patience_begins_when_the_images_have_their_full_size(run: Run):
    small = {"schedule.steps": 8, "schedule.small_images": 0.5, "data.min_sizes": "[96]", "data.max_size": 128}
    run = run.with_options(
        small | {"evaluation.interval": 1, "evaluation.patience": 2, "evaluation.min_delta": 1.0, "data.eval_size": 96}
    )
    assert "stopping early: 2 evaluations" in run.ends().says()
    assert [line["step"] for line in run.metrics() if line["split"] == "val"] == [1, 2, 3, 4, 5]


def test_minutes_end_a_run_and_what_was_spent_counts_after_a_restart(run: Run, gate: Gate):
    budget_s = 4.0
    options = {key: value for key, value in run.options.items() if key != "schedule.steps"}
    more = ("--device", "cpu", "--minutes", str(budget_s / 60))
    falling = {"schedule.kind": "cosine", "schedule.warmup": 0, "schedule.final_lr": 0}
    run = replace(run, options=options | RARELY | falling, more=more)
    job = replace(run, environment=gate.environment).start()
    for _ in range(2):
        gate.pass_one(job)
    job.send(signal.SIGTERM)
    gate.stay_open()
    assert job.ends() == 75, job.says()
    gate.close()
    first = checkpoints.read(run.stored, run.complete_steps()[-1]).progress
    assert first.step == 2
    assert first.elapsed_s > 0
    run.ends()
    last = checkpoints.read(run.stored, run.complete_steps()[-1]).progress
    assert last.elapsed_s >= budget_s
    assert len(rates(run)) == last.step > first.step
    # The rate tells how much was spent when a step began: always more, and never all of it.
    assert rates(run) == sorted(rates(run), reverse=True)
    assert rates(run)[-1] > 0


def test_argo_sees_progress_that_is_never_complete_before_the_end(run: Run, gate: Gate):
    run = replace(run.with_options(RARELY | {"schedule.steps": 4}), environment=gate.environment)
    job = run.start()
    seen = [gate.pass_one(job) for _ in range(5)]
    assert seen == ["0/100", "25/100", "50/100", "75/100", "99/100"]
    assert job.ends() == 0


def test_a_terminal_gets_a_bar_and_lines_above_it(run: Run):
    run = run.with_options({"schedule.steps": 6, "evaluation.interval": 3})
    terminal, theirs = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    job = run.server.start(run.arguments(), Path(os.ttyname(theirs)), environment, to_the_end=False)
    shown = b""
    while job.exit_code() is None or select.select([terminal], [], [], 0)[0]:
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 1 << 16)
    os.close(theirs)
    os.close(terminal)
    assert job.exit_code() == 0, shown.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "train ━" in text
    assert re.search(r"100%", text)
    assert "ms/step" not in text  # the lines of a log
    assert text.count("step 3: val AP") == 1
    assert "done: 6 steps" in text.splitlines()[-1]
    assert shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h") == 1  # one bar, and the cursor is back
