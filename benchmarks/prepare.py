"""`data-prep prepare` on growing exports, against a plain loop that only reads and decodes the same images.

    python -m benchmarks.prepare                        1,000 to 100,000 images of about 10 kB: 3 GB of disk
    python -m benchmarks.prepare --counts 1000,5000     for a quick look

CPU time is compared, because it hardly depends on what else runs on the machine. Both run in processes of their own.
Also printed: the share of the CPU time for reading the archive once more to write the images.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import typer
from PIL import Image

SIDES = (320, 240)
BOXES = 5


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
                {"id": number * BOXES + index + 1, "image_id": number + 1, "category_id": 1 + index % 3, "bbox": box}
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
    command = [sys.executable, "-m", "benchmarks.prepare", "--kind", kind, "--export", str(path), "--store", str(store)]
    processor_s, peak_kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return Cost(float(processor_s), int(peak_kib) // 1024)


def reading_s(path: Path) -> float:
    """CPU time to read and hash all images, which happens once more when they are written."""
    start = time.process_time()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            sha256(archive.read(name)).hexdigest()
    return time.process_time() - start


def main(counts: str = "1000,5000,20000,100000", kind: str = "", export: str = "", store: str = "") -> None:
    """Print one line for each number of images; or do the work of one process."""
    if kind:
        decode_all(Path(export)) if kind == "decode" else prepare_all(Path(export), Path(store))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, used.ru_maxrss)
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


if __name__ == "__main__":
    typer.run(main)
