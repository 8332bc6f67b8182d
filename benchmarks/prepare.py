"""`data-prep prepare` on growing exports, against a plain loop that only reads and decodes the same images.

    python -m benchmarks.prepare                        1,000 to 100,000 images of about 10 kB: 3 GB of disk
    python -m benchmarks.prepare --counts 1000,5000     for a quick look

CPU time is compared, because it hardly depends on what else runs on the machine. All run in processes of their own.
Also printed: the share of the CPU time for reading the archive once more to write the images.

With 5,000 images Datumaro converts the same export too, unpacked before. It copies images without looking at them, so a
second time it also computes its statistics of images, which decode each image and find repeated ones, as prepare does.
Datumaro is installed into a temporary environment; `--datumaro PYTHON` names the Python of an existing one.
"""

import io
import json
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer
from PIL import Image

from benchmarks.memory import peak_kib

SIDES = (320, 240)
BOXES = 5
DATUMARO_AT = 5_000
DATUMARO = """
import re, sys, time
from pathlib import Path
from datumaro import Dataset
from datumaro.components.operations import compute_image_statistics
source, target, kind = sys.argv[1:]
dataset = Dataset.import_from(source, "coco")
if kind == "statistics":
    compute_image_statistics(dataset)
dataset.export(target, "coco", save_media=True)
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


class Cost(NamedTuple):
    """What a process used: CPU seconds and peak memory in MiB."""

    processor_s: float
    peak_mib: int


def write_export(path: Path, count: int) -> None:
    """A COCO export of photos that all look different."""
    rng = np.random.default_rng(count)
    boxes = rng.integers(5, 100, (count, BOXES, 4)).tolist()
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
            file = io.BytesIO()
            coarse.resize(SIDES, Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
            archive.writestr(f"images/default/{number:06}.jpg", file.getvalue())
        tree = {
            "images": [
                {"id": number + 1, "width": SIDES[0], "height": SIDES[1], "file_name": f"{number:06}.jpg"}
                for number in range(count)
            ],
            "categories": [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)],
            "annotations": [
                {
                    "id": number * BOXES + index + 1,
                    "image_id": number + 1,
                    "category_id": 1 + index % 3,
                    "segmentation": [],
                    "area": box[2] * box[3],
                    "bbox": box,
                    "iscrowd": 0,
                    "attributes": {"occluded": False, "rotation": 0.0},
                }
                for number, own in enumerate(boxes)
                for index, box in enumerate(own)
            ],
        }
        archive.writestr("annotations/instances_default.json", json.dumps(tree))


def decode_all(path: Path) -> None:
    """The baseline: read and decode each image."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".jpg"):
                Image.open(io.BytesIO(archive.read(name))).convert("RGB")


def prepare_all(path: Path, store: Path) -> None:
    """Prepare the export."""
    from data_prep.prepare import PrepareRequest, prepare
    from data_prep.report.page import draw_report
    from object_store import open_store

    prepare(PrepareRequest((str(path),)), open_store(str(store)), draw_report)


def measured(kind: str, path: Path, store: Path) -> Cost:
    """Run one of both in a new process."""
    return cost_of(
        [sys.executable, "-m", "benchmarks.prepare", "--kind", kind, "--export", str(path), "--store", str(store)]
    )


def cost_of(command: list[str]) -> Cost:
    """Run a command that ends with its CPU seconds and its peak memory in KiB."""
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    processor_s, peak_kib = output.splitlines()[-1].split()
    return Cost(float(processor_s), int(peak_kib) // 1024)


def compare_with_datumaro(path: Path, ours: Cost, python: str, folder: Path) -> None:
    """Print what Datumaro needs for the same export, or why it was left out."""
    if not python:
        venv.create(folder / "datumaro", with_pip=True)
        python = str(folder / "datumaro/bin/python")
        install = [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "datumaro"]
        if subprocess.run(install, check=False).returncode:
            print("Datumaro could not be installed: left out")
            return
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    for kind in ("conversion", "statistics"):
        theirs = cost_of([python, "-c", DATUMARO, str(folder / "unpacked"), str(folder / kind), kind])
        what = "conversion alone" if kind == "conversion" else "conversion with statistics of images"
        print(
            f"Datumaro's {what}: {theirs.processor_s:.1f} s, {theirs.processor_s / ours.processor_s:.2f} times ours; "
            f"{theirs.peak_mib:,} MiB",
            flush=True,
        )


def reading_s(path: Path) -> float:
    """CPU time to read and hash all images, which happens once more when they are written."""
    start = time.process_time()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            sha256(archive.read(name)).hexdigest()
    return time.process_time() - start


def main(
    counts: str = "1000,5000,20000,100000", datumaro: str = "", kind: str = "", export: str = "", store: str = ""
) -> None:
    """Print one line for each number of images; or do the work of one process."""
    if kind:
        decode_all(Path(export)) if kind == "decode" else prepare_all(Path(export), Path(store))
        print(time.process_time(), peak_kib())
        return
    first = None
    for count in map(int, counts.split(",")):
        with tempfile.TemporaryDirectory(prefix="benchmark-prepare-") as folder:
            path = Path(folder, "export.zip")
            write_export(path, count)
            plain, ours = (measured(one, path, Path(folder, "store")) for one in ("decode", "prepare"))
            per_image_ms = 1000 * ours.processor_s / count
            first = first or per_image_ms
            print(
                f"{count:,} images: {per_image_ms:.2f} ms each, {per_image_ms / first:.2f} of the first row; "
                f"{ours.processor_s / plain.processor_s:.2f} times the plain loop; reading once more "
                f"{reading_s(path) / ours.processor_s:.1%}; {ours.peak_mib:,} MiB (plain loop {plain.peak_mib:,})",
                flush=True,
            )
            if count == DATUMARO_AT:
                compare_with_datumaro(path, ours, datumaro, Path(folder))


if __name__ == "__main__":
    typer.run(main)
