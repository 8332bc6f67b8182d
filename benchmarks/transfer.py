"""What a trained start is worth for few images, on the CVAT exports in REAL_DATA.

    REAL_DATA=folder python -m benchmarks.transfer [--model tiny] [--start URL | --keep FOLDER] [--steps 750]

Trains a model on generated pictures of machine parts, from random weights, and then on 25, 50, 100 and all photographs
of blood cells: once from these weights and once from random ones, the same number of steps. Prints the AP of the data
set's own test images. The classes differ, so all rows of the heads start new. Steps are counted, so a busy machine
changes no result.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.annotator_effort import ANNOTATIONS, SAMPLE, write_part
from benchmarks.local_run import Result, local_run, machine, real_data, trained_model
from data_prep.sample.make import make_sample

TEST = "bccd_test_cvat_coco.zip"


def main(
    model: Annotated[str, typer.Option(help="Preset.")] = "tiny",
    start: Annotated[str, typer.Option(help="URL of a trained model. Empty: train one.")] = "",
    keep: Annotated[Path | None, typer.Option(help="Folder that keeps the first model.")] = None,
    pictures: Annotated[int, typer.Option(help="Generated pictures, a fifth of which is only tested on.")] = 2500,
    first_steps: Annotated[int, typer.Option(help="Steps on generated pictures.")] = 3000,
    steps: Annotated[int, typer.Option(help="Steps on photographs.")] = 750,
    counts: Annotated[str, typer.Option(help="Numbers of photographs; 0: all.")] = "25,50,100,0",
    seed: Annotated[int, typer.Option(help="Seed of the choice of photographs and of training.")] = 42,
) -> None:
    """Compare the two starts."""
    folder = real_data(SAMPLE, TEST)
    source = folder / SAMPLE
    with zipfile.ZipFile(source) as archive:
        names = sorted(image["file_name"] for image in json.loads(archive.read(ANNOTATIONS))["images"])
    shuffled = np.random.default_rng(seed).permutation(names).tolist()
    print(f"{machine()}; {model}, {steps:,} steps, seed {seed}")
    with tempfile.TemporaryDirectory() as temporary:
        if not start:
            store = (keep or Path(temporary, "first")).resolve()
            sample = make_sample(store / "sample", images=pictures)
            result = _train(store, model, sample.trainval, sample.test, "none", first_steps, seed)
            start = trained_model(store)
            print(f"{pictures:,} generated pictures, {first_steps:,} steps: AP50 {result.ap50:.3f}, AP {result.ap:.3f}")
            print(f"start: {start}")
        print("| photographs | random: AP50 | AP | trained: AP50 | AP |\n|---|---|---|---|---|", flush=True)
        for count in map(int, counts.split(",")):
            part = Path(temporary, f"{count}.zip")
            write_part(source, shuffled[: count or None], part)
            row = [str(count or len(names))]
            for number, weights in enumerate(("none", start)):
                store = Path(temporary, f"{count}-{number}")
                result = _train(store, model, part, folder / TEST, weights, steps, seed)
                row += [f"{result.ap50:.3f}", f"{result.ap:.3f}"]
            print(f"| {' | '.join(row)} |", flush=True)


def _train(store: Path, model: str, train: Path, test: Path, start: str, steps: int, seed: int) -> Result:
    given = {"cvat-annotation-path": str(train), "cvat-test-path": str(test), "model": model, "device": "auto"}
    given |= {"cvat-finetune-checkpoint": start, "seed": str(seed), "overrides": f"schedule.steps={steps}"}
    return local_run(store, parameters=given)


if __name__ == "__main__":
    typer.run(main)
