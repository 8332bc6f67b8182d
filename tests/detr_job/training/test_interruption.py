"""SIGTERM and Ctrl-C: the step is finished, saved and uploaded, and a restart goes on at exactly that step."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from detr_job import stop_request
from detr_job.stop_request import StopNow, StopRequest
from tests.detr_job.job_server import Gate, Job, wait_until
from tests.detr_job.process_faults import processes_of
from tests.detr_job.training_runs import Run, assert_same_result

NO_CHECKPOINTS = {"checkpoints.interval": 1000, "evaluation.interval": 6, "schedule.steps": 8}


def started_up_to(run: Run, gate: Gate, step: int) -> Job:
    """A run held where it has taken `step` steps and writes the log of the next."""
    job = replace(run, environment=gate.environment).start()
    for _ in range(step + 1):
        gate.pass_one(job)
    return job


def stopped_at(job: Job, gate: Gate, number: signal.Signals = signal.SIGTERM, *, to_all: bool = False) -> int:
    """Send the signal, open the gate, and see that it ends in time with 75; the step that it says it saved."""
    sent = time.monotonic()
    (job.send_to_all if to_all else job.send)(number)
    gate.stay_open()
    assert job.ends() == 75, job.says()
    assert time.monotonic() - sent < 10
    gate.close()
    last = job.says().strip().splitlines()[-1]
    assert last.startswith(f"error: stopped by {number.name} after step "), last
    return int(last.split("after step ")[1].split(",")[0])


def test_sigterm_saves_the_step_and_a_restart_goes_on_there(run: Run, gate: Gate, undisturbed: Callable[[Run], Run]):
    run = run.with_options(NO_CHECKPOINTS)
    step = stopped_at(started_up_to(run, gate, 3), gate)
    assert step == 4
    assert run.complete_steps() == [step]
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    again = run.ends()
    assert f"resuming at step {step} " in again.says()
    assert_same_result(run, undisturbed(run))


def test_sigterm_does_not_wait_for_an_evaluation_which_the_restart_makes_up_for(
    run: Run, gate: Gate, undisturbed: Callable[[Run], Run]
):
    run = run.with_options(NO_CHECKPOINTS)
    job = started_up_to(run, gate, 5)
    assert stopped_at(job, gate) == 6
    assert "val AP" not in job.says()
    assert "step 6: val AP" in run.ends().says()
    assert_same_result(run, undisturbed(run))


def test_sigterm_after_the_last_step_leaves_its_evaluation_to_the_restart(run: Run, gate: Gate):
    run = run.with_options(NO_CHECKPOINTS | {"schedule.steps": 3})
    job = started_up_to(run, gate, 2)
    assert stopped_at(job, gate) == 3
    again = run.ends().says()
    assert "step 3: val AP" in again
    assert "complete" not in again


def test_sigterm_before_the_first_step_leaves_nothing_to_go_on_from(run: Run, gate: Gate):
    job = replace(run, environment=gate.environment).start()
    job.reaches_line("training and")
    job.send(signal.SIGTERM)
    gate.stay_open()
    assert job.ends() == 75, job.says()
    assert not run.checkpoints.exists()
    assert "step 1/" not in job.says()
    gate.close()
    assert "resuming at" not in run.ends().says()


def test_sigterm_before_the_predictions_ends_in_time_and_the_restart_only_predicts(run: Run):
    run = run.with_options({"schedule.steps": 2})
    held = run.out / "checkpoint" / "trainer.pt"
    held.parent.mkdir(parents=True)
    os.mkfifo(held)  # the job waits for a reader where training has ended
    job = run.start()
    job.reaches(lambda: run.complete_steps() == [2], "the last checkpoint")
    job.send(signal.SIGTERM)
    with held.open("rb") as reader:
        assert reader.read()
    assert job.ends() == 75, job.says()
    assert list((run.out / "predictions").iterdir()) == []
    held.unlink()
    again = run.ends().says()
    assert "training is complete (step 2); only the predictions are computed again" in again
    assert "step 1/" not in again
    assert (run.out / "predictions" / "test.json").exists()


def test_a_kill_while_it_saves_after_sigterm_costs_no_older_checkpoint(
    run: Run, gate: Gate, undisturbed: Callable[[Run], Run]
):
    run = run.with_options(NO_CHECKPOINTS | {"checkpoints.keep": 1, "checkpoints.interval": 3})
    job = started_up_to(run, gate, 4)
    job.reaches(lambda: run.complete_steps() == [3], "the checkpoint of step 3")
    job.send(signal.SIGTERM)
    gate.stay_open()
    job.reaches(lambda: any(run.checkpoints.glob("step-00000005/*")), "a file of step 5")
    job.send(signal.SIGKILL)
    job.ends()
    gate.close()
    assert run.complete_steps() in ([3], [3, 5], [5])
    run.ends()
    assert_same_result(run, undisturbed(run))


def test_a_second_ctrl_c_leaves_at_once(run: Run, gate: Gate):
    job = started_up_to(run, gate, 3)
    job.send(signal.SIGINT)
    job.reaches_line("Ctrl-C again leaves at once")
    job.send(signal.SIGINT)
    assert job.ends() == 130, job.says()
    assert job.says().strip().endswith("run the same command again to resume")


def test_workers_survive_a_signal_to_all_processes_and_leave_with_the_job(run: Run, gate: Gate):
    run = run.with_options(NO_CHECKPOINTS | {"data.workers": 2, "data.cache": "false"}, to_the_end=True)
    job = started_up_to(run, gate, 2)
    workers = processes_of(job.pid)
    assert len(workers) == 3
    assert stopped_at(job, gate, to_all=True) == 3
    wait_until(lambda: not processes_of(job.pid), "the end of the workers")


def test_workers_leave_after_the_job_was_killed(run: Run, gate: Gate):
    run = run.with_options({"data.workers": 2, "data.cache": "false"})
    job = started_up_to(run, gate, 1)
    job.send(signal.SIGKILL)
    job.ends()
    wait_until(lambda: not processes_of(job.pid), "the end of the workers")


def test_a_request_breaks_off_what_runs_at_once_and_nothing_else():
    stop = StopRequest()
    with stop.installed():
        with pytest.raises(StopNow), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
        signal.raise_signal(signal.SIGTERM)


def test_a_step_is_broken_off_only_when_it_takes_long_after_a_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stop_request, "STEP_S", 0.2)
    stop = StopRequest()
    with stop.installed():
        with stop.in_step():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopNow), stop.in_step():
            time.sleep(30)
        with pytest.raises(StopNow), stop.in_step():
            pytest.fail("begun")


def test_what_runs_at_once_is_not_begun_after_a_request():
    stop = StopRequest()
    with stop.installed():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopNow), stop.at_once():
            pytest.fail("begun")


def test_signals_are_the_callers_again_afterwards():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with stop.installed():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
