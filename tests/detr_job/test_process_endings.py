"""Whatever happens to a training run's processes, all of them end within a minute and with the right exit code."""

import pytest

from tests.detr_job.process_faults import suffer
from tests.detr_job.training_runs import Run


@pytest.mark.parametrize("case", range(20))
def test_a_run_ends_whatever_happens_to_its_processes(run: Run, case: int):
    suffer(run, case)
