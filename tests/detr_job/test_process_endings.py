"""Whatever happens to a training run's processes, all of them end within a minute and with the right exit code."""

import os
import subprocess
import sys

import pytest

from tests.detr_job.job_server import wait_until
from tests.detr_job.process_faults import SMALL, processes_of, suffer
from tests.detr_job.training_runs import Run

FAULTY_JOB = """
from detr_job import cli
from detr_job.models.tiny.network import Tiny
forward, passes = Tiny.forward, []
def faulty(self, images, mask=None):
    passes.append(len(images))
    return forward(self, images, mask) if len(passes) < 3 else 1 / 0
Tiny.forward = faulty
cli.main()
"""


@pytest.mark.parametrize("case", range(20))
def test_a_run_ends_whatever_happens_to_its_processes(run: Run, case: int):
    suffer(run, case)


def test_an_exception_that_nobody_handles_ends_the_job_and_its_workers(run: Run):
    job = subprocess.Popen(
        [sys.executable, "-c", FAULTY_JOB, *run.with_options(SMALL).arguments()],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(run.folder)},
        start_new_session=True,
    )
    try:
        _, said = job.communicate(timeout=60)
        assert job.returncode == 1, said
        assert said.strip().endswith("ZeroDivisionError: division by zero")
        wait_until(lambda: not processes_of(job.pid), "the end of the workers")
    finally:
        for process in processes_of(job.pid):
            os.kill(process, 9)
