"""Shared fixtures: where the real exports lie, when somebody has them, and a server of processes of `detr-job`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.detr_job.job_server import JobServer

# Tests run in parallel: a second thread in each, or in its processes, would make all of them many times slower.
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A script that starts the tests in the background has SIGINT ignored, and every process of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CVAT exports named by REAL_DATA."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("REAL_DATA is not set: it names a folder with real CVAT exports")
    return Path(folder)


@pytest.fixture(scope="session")
def job_server() -> Iterator[JobServer]:
    server = JobServer()
    yield server
    server.close()
