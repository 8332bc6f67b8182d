"""`data-prep rewrite-paths` on a file of COCO's size against json.load, a loop and json.dump.

    python -m benchmarks.rewrite_paths                  118,000 images, 860,000 annotations with outlines: about 550 MB
    python -m benchmarks.rewrite_paths --scale 0.125    for a quick look

CPU time and peak memory of one process each, alternating. The profile at the end shows which parts bound it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import typer

from benchmarks.memory import peak_kib

IMAGES, ANNOTATIONS, ROUNDS = 118_000, 860_000, 3
FOLDER = "/mnt/data/images"


def write_coco(path: Path, scale: float) -> None:
    """An annotation file like COCO's `instances_train2017.json`."""
    rng = np.random.default_rng(0)
    images, annotations = int(scale * IMAGES), int(scale * ANNOTATIONS)
    with path.open("w") as file:
        file.write('{"info": {"description": "like COCO"}, "licenses": [], "images": ')
        json.dump(
            [
                {
                    "license": 3, "file_name": f"{number:012}.jpg", "height": 480, "width": 640, "id": number,
                    "coco_url": f"http://images.example.org/train2017/{number:012}.jpg",
                    "flickr_url": f"http://farm9.example.org/8186/{number}_{number * 7 % 99_991}_z.jpg",
                    "date_captured": "2013-11-14 11:18:45",
                }
                for number in range(images)
            ],
            file,
        )  # fmt: skip
        file.write(', "annotations": [')
        for number in range(annotations):
            outline = rng.uniform(0, 640, 2 * int(rng.integers(10, 50))).round(2).tolist()
            annotation = {
                "segmentation": [outline], "area": round(float(rng.uniform(1, 90_000)), 4), "iscrowd": 0,
                "image_id": int(rng.integers(0, images)), "bbox": rng.uniform(0, 400, 4).round(2).tolist(),
                "category_id": int(rng.integers(1, 91)), "id": number,
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(annotation))
        categories = [{"supercategory": "thing", "id": number, "name": f"c{number}"} for number in range(1, 91)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def rewrite_plainly(source: Path, target: Path) -> None:
    """The baseline."""
    with source.open() as file:
        tree = json.load(file)
    for image in tree["images"]:
        image["file_name"] = f"{FOLDER}/{image['file_name']}"
    with target.open("w") as file:
        json.dump(tree, file)


def work(kind: str, source: Path, target: Path) -> None:
    """Rewrite in this process, and print CPU seconds and peak memory in KiB."""
    from data_prep.rewrite_paths import rewrite_paths

    start = time.process_time()
    if kind == "ours":
        rewrite_paths(source, FOLDER, target)
    else:
        rewrite_plainly(source, target)
    print(time.process_time() - start, peak_kib())


def measured(kind: str, source: Path, target: Path) -> tuple[float, float]:
    """CPU seconds and MiB of a new process."""
    command = [sys.executable, "-m", "benchmarks.rewrite_paths", "--kind", kind]
    command += ["--source", str(source), "--target", str(target)]
    processor_s, peak_kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(processor_s), int(peak_kib) / 1024


def print_profile(source: Path, target: Path) -> None:
    """Print the CPU time of the parts that no faster code would save."""
    data = source.read_bytes()
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])

    class Ids(msgspec.Struct, gc=False):
        id: int
        image_id: int
        category_id: int

    parts: dict[str, Callable[[], object]] = {
        "read the bytes": source.read_bytes,
        "find the members": lambda: msgspec.json.decode(data, type=dict[str, msgspec.Raw]),
        "parse the images": lambda: msgspec.json.decode(members["images"], type=list[dict[str, msgspec.Raw]]),
        "parse the ids": lambda: msgspec.json.decode(members["annotations"], type=list[Ids]),
        "write the bytes": lambda: target.write_bytes(data),
    }
    for name, part in parts.items():
        start = time.process_time()
        part()
        print(f"  {name}: {time.process_time() - start:.2f} s")


def main(scale: float = 1.0, kind: str = "", source: Path = Path(), target: Path = Path()) -> None:
    """Compare both; or do the work of one process."""
    if kind:
        work(kind, source, target)
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-rewrite-") as folder:
        source, target = Path(folder, "in.json"), Path(folder, "out.json")
        write_coco(source, scale)
        rounds = [(measured("ours", source, target), measured("json", source, target)) for _ in range(ROUNDS)]
        ours, plain = (median(one[index][0] for one in rounds) for index in (0, 1))
        ratio = median(theirs[0] / own[0] for own, theirs in rounds)
        memory = median(own[1] / theirs[1] for own, theirs in rounds)
        print(
            f"{source.stat().st_size / 1e6:,.0f} MB: {ours:.2f} s against {plain:.2f} s of CPU time, {ratio:.1f} times "
            f"as fast, with {memory:.2f} of the memory ({rounds[0][0][1]:,.0f} MiB)"
        )
        print_profile(source, target)


if __name__ == "__main__":
    typer.run(main)
