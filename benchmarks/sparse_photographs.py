"""`tiny` from random weights on photographs with about one object each, with and without parts of its recipe.

    REAL_DATA=folder python -m benchmarks.sparse_photographs [--steps 1125] [--only NAME] [--val-fraction 0.2]

Trains on raccoon_cvat_coco.zip for a number of steps of 4 images, so that a busy machine changes no result, and prints
the best AP of the validation images for each variant. With 40 validation images, differences under 0.06 AP50 are noise.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import typer

from benchmarks.local_run import BIN, machine

VARIANTS = {
    "auto": "",
    "240 pixels": "data.min_sizes=[240]",
    "vertical flips": "data.augmentation.vertical_flip=0.5",
    "learning rate 0.001": "optimizer.lr=0.001",
}


def main(steps: int = 1125, only: str = "", val_fraction: float = 0.2) -> None:
    """Train each variant, or one."""
    if not (folder := os.environ.get("REAL_DATA")):
        sys.exit("REAL_DATA is not set: it names the folder with raccoon_cvat_coco.zip")
    print(machine())
    with tempfile.TemporaryDirectory() as temporary:
        store = f"file://{temporary}/store"
        source = f"{folder}/raccoon_cvat_coco.zip"
        prepare = [BIN / "data-prep", "prepare", source, "--store", store, "--val-fraction", str(val_fraction)]
        said = subprocess.run(prepare, check=True, text=True, stdout=subprocess.PIPE).stdout
        prepared = said.removeprefix("prepared set ").split(maxsplit=1)[0]
        for number, (name, overrides) in enumerate(VARIANTS.items()):
            if only in ("", name):
                train = [BIN / "detr-job", "train", "--store", store, "--set", prepared, "--output-prefix", "runs"]
                train += ["--run", str(number), "--model", "tiny", "--device", "cpu", "--out", f"{temporary}/{number}"]
                train += ["--overrides", f"schedule.steps={steps} evaluation.interval={-(-steps // 6)} {overrides}"]
                subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
                lines = (Path(temporary) / "store" / "runs" / str(number) / "metrics.jsonl").read_text().splitlines()
                best = max((row for row in map(json.loads, lines) if row["split"] == "val"), key=lambda row: row["ap"])
                print(f"| {name} | AP50 {best['ap50']:.3f} | AP {best['ap']:.3f} | step {best['step']} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
