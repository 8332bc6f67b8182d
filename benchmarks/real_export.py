"""The results on a person's own export: train on the CVAT exports in REAL_DATA, evaluate on their test file.

    REAL_DATA=folder python -m benchmarks.real_export [--minutes 10] [--seed 42] [key=value ...]

Claim: 10 minutes of training on two cores, AP50 >= 0.88 and AP >= 0.58.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.local_run import local_run, machine


def main() -> None:
    """Train on bccd_trainval, evaluate on bccd_test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", default="10")
    parser.add_argument("--seed", default="42")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    folder = os.environ.get("REAL_DATA")
    if not folder:
        sys.exit(
            "REAL_DATA is not set: it names the folder with bccd_trainval_cvat_coco.zip and bccd_test_cvat_coco.zip"
        )
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        result = local_run(
            Path(temporary),
            parameters={
                "cvat-annotation-path": f"{folder}/bccd_trainval_cvat_coco.zip",
                "cvat-test-path": f"{folder}/bccd_test_cvat_coco.zip",
                "model": "tiny",
                "device": "auto",
                "minutes": options.minutes,
                "seed": options.seed,
                "overrides": " ".join(options.overrides),
            },
        )
    print(
        f"| seed {options.seed} | {options.minutes} min of training | AP50 {result.ap50:.3f} | AP {result.ap:.3f} | "
        f"{result.seconds / 60:.1f} min in all |"
    )


if __name__ == "__main__":
    main()
