"""The results of `make run` on the generated sample: AP50 on the test part for several seeds, and the time.

    python -m benchmarks.first_run [--seeds 42,1,2] [--minutes M] [--overrides "key=value …"]

Claim: at most 6 minutes on two cores, AP50 >= 0.6 for every seed. Prints one row per seed.
"""

import tempfile
from pathlib import Path

import typer

from benchmarks.local_run import local_run, machine


def main(seeds: str = "42,1,2", minutes: str = "", overrides: str = "") -> None:
    """Run the sample once for each seed."""
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample"
        for seed in seeds.split(","):
            result = local_run(
                Path(folder) / f"store-{seed}",
                sample=sample,
                parameters={
                    "model": "tiny",
                    "device": "auto",
                    "seed": seed,
                    "minutes": minutes,
                    "overrides": overrides,
                },
            )
            print(f"| seed {seed} | {result.row()}", flush=True)


if __name__ == "__main__":
    typer.run(main)
