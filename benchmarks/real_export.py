"""The results on a person's own export: train on the CVAT exports in REAL_DATA, evaluate on their test file.

    REAL_DATA=folder python -m benchmarks.real_export [--minutes 10] [--seed 42] [key=value ...]

Claim: 10 minutes of training on two cores, AP50 >= 0.88 and AP >= 0.58.
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.local_run import local_run, machine, real_data


def main(
    overrides: Annotated[list[str] | None, typer.Argument()] = None, minutes: str = "10", seed: str = "42"
) -> None:
    """Train on bccd_trainval, evaluate on bccd_test."""
    folder = real_data("bccd_trainval_cvat_coco.zip", "bccd_test_cvat_coco.zip")
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        result = local_run(
            Path(temporary),
            parameters={
                "cvat-annotation-path": f"{folder}/bccd_trainval_cvat_coco.zip",
                "cvat-test-path": f"{folder}/bccd_test_cvat_coco.zip",
                "model": "tiny",
                "device": "auto",
                "minutes": minutes,
                "seed": seed,
                "overrides": " ".join(overrides or []),
            },
        )
    print(f"| seed {seed} | {minutes} min of training | {result.row()}")


if __name__ == "__main__":
    typer.run(main)
