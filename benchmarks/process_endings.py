"""How long training takes to end after its processes are killed, stopped or starved at random moments.

    python -m benchmarks.process_endings [--cases 300] [--first 0]

Claim: in every case, all processes are gone within 60 s, and the exit code is right for the fault. Every third case
with an exit code other than 0 is run again, to the end. Prints one line. A case that violates the claim stops the
benchmark.
"""

import re
import shutil
import tempfile
from pathlib import Path

import typer

from benchmarks.local_run import machine
from object_store import open_store
from tests.detr_job.job_server import JobServer
from tests.detr_job.process_faults import suffer
from tests.detr_job.training_runs import Run, make_set


def main(cases: int = 300, first: int = 0) -> None:
    """Run one case after the other."""
    print(machine())
    server = JobServer()
    seconds = []
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            set_id = make_set(folder, open_store(folder / "store"))
            for case in range(first, first + cases):
                run = Run(server, folder, f"file://{folder}/store", set_id, name=f"case-{case}")
                (seen,) = re.findall(r"after ([0-9.]+) s$", suffer(run, case))
                seconds.append(float(seen))
                shutil.rmtree(run.stored_folder, ignore_errors=True)
                shutil.rmtree(run.out, ignore_errors=True)
    finally:
        server.close()
    seconds.sort()
    print(
        f"{len(seconds)} faults: every process gone after at most {seconds[-1]:.1f} s "
        f"(median {seconds[len(seconds) // 2]:.1f} s), every exit code right"
    )


if __name__ == "__main__":
    typer.run(main)
