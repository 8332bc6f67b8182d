"""Run a whole job as on a laptop, for the two benchmarks of its results."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Result:
    """The results of a run."""

    ap: float
    ap50: float
    seconds: float
    steps: int
    images_per_s: float
    """Median of the log lines of training."""

    def row(self) -> str:
        """Cells of a table."""
        return (
            f"AP50 {self.ap50:.3f} | AP {self.ap:.3f} | {self.steps:,} steps | {self.images_per_s:.1f} images/s | "
            f"{self.seconds / 60:.1f} min in all |"
        )


def local_run(store: Path, *, parameters: Mapping[str, str], sample: Path | None = None) -> Result:
    """`detr-workflows run-local detr-train`. With `sample`, on the generated sample, which is created if necessary."""
    start = time.monotonic()
    given = dict(parameters)
    if sample is not None:
        subprocess.run([BIN / "data-prep", "make-sample", sample], check=True, stdout=subprocess.DEVNULL)
        given["cvat-annotation-path"] = str(sample / "sample_trainval.zip")
        given["cvat-test-path"] = str(sample / "sample_test.zip")
    arguments = [argument for name, value in given.items() if value for argument in ("-p", f"{name}={value}")]
    command = [BIN / "detr-workflows", "run-local", "--store", store, "--scratch", store / "scratch", *arguments]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    numbers = {name: float(value) for name, value in re.findall(r"^(AP|AP50) ([\d.]+)$", done.stdout, re.MULTILINE)}
    (metrics,) = store.glob("workflow-data/output/*/metrics.jsonl")
    lines = [line for line in map(json.loads, metrics.read_text().splitlines()) if line["split"] == "train"]
    speed = statistics.median(line["images_per_s"] for line in lines)
    return Result(numbers["AP"], numbers["AP50"], time.monotonic() - start, lines[-1]["step"], speed)


def real_data(*names: str) -> Path:
    """The folder of the real exports. Ends the program with a sentence that names the files if it is not known."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        sys.exit(f"REAL_DATA is not set: it names the folder with {' and '.join(names)}")
    return Path(folder)


def trained_model(store: Path) -> str:
    """URL of the model of the only run in a store."""
    (model,) = store.glob("workflow-data/output/*/model")
    return model.as_uri()


def machine() -> str:
    """The processor and its number of cores."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) or ["unknown processor"]
    return f"{names[0]}, {os.cpu_count()} cores"
