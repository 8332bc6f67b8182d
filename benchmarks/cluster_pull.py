"""Copy a prepared set of 3,000 images into a pod of the training image, against Argo's artifact download of its files.

    python -m benchmarks.cluster_pull [--images 3000] [--rounds 5]

Claim: at least 8 times as fast. Both read from the same bucket into an emptyDir on the same node, in alternating pods.
Our time is that of PreparedSet.open and pull in the process, including connection and verification. Argo's time is that
between the first and the last log line of its init container about the artifact, a folder in S3. The container has no
limits on CPU and memory here. In both pods the main container then hashes every image, and the digests must be equal.
The start of the pod and of the process is not counted on either side, but printed.
Needs the variables of tests/cluster/README.md, and the images.
"""

import io
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image, ImageDraw

from benchmarks.cluster_space import container_times, printed, run_pod, single_pod, space, spread, stamped_log
from benchmarks.local_run import machine
from data_prep.prepare import PrepareRequest, prepare
from object_store import open_store
from tests.cluster.cluster import Installation

WIDTH, HEIGHT = 640, 480
CLASSES = ("bolt", "nut", "washer")

# Both print one JSON line. The digest covers the contents of all images, independent of their names.
OURS = """
import json, os, sys, time
from hashlib import sha256
from pathlib import Path
from prepared_set.manifest import SPLITS
from prepared_set.reader import PreparedSet
from object_store import open_store
born = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
store = open_store(sys.argv[1])
ready = time.clock_gettime(time.CLOCK_BOOTTIME) - born
start = time.perf_counter()
local = PreparedSet.open(store, sys.argv[2]).pull(Path(sys.argv[3]))
pull = time.perf_counter() - start
digests = sorted(sha256(split.read(i)).hexdigest() for split in map(local.split, SPLITS) for i in range(len(split)))
digest = sha256("".join(digests).encode()).hexdigest()
print(json.dumps({"pull_s": pull, "ready_s": ready, "images": len(digests), "digest": digest}))
"""
THEIRS = """
import json, sys
from hashlib import sha256
from pathlib import Path
digests = sorted(sha256(path.read_bytes()).hexdigest() for path in Path(sys.argv[1]).rglob("*") if path.is_file())
print(json.dumps({"images": len(digests), "digest": sha256("".join(digests).encode()).hexdigest()}))
"""


def draw_export(folder: Path, count: int) -> int:
    """Write a CVAT export as a folder, with generated images of the size of photographs. Return their size in bytes."""
    rng = np.random.default_rng(0)
    pictures = folder / "images" / "default"
    pictures.mkdir(parents=True)
    grain = rng.normal(0, 9, (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.int16)
    images: list[dict[str, object]] = []
    boxes: list[dict[str, object]] = []
    size_bytes = 0
    for number in range(1, count + 1):
        ground = Image.fromarray(rng.integers(40, 200, (6, 8, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
        draw = ImageDraw.Draw(ground)
        for label in range(len(CLASSES)):
            x, y, size = (int(value) for value in rng.integers((0, 0, 40), (WIDTH - 120, HEIGHT - 120, 120)))
            draw.ellipse((x, y, x + size, y + size), fill=tuple(int(v) for v in rng.integers(0, 255, 3)))
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [x, y, size, size],
                    "area": size * size,
                    "segmentation": [],
                    "iscrowd": 0,
                }
            )
        top, left = int(rng.integers(HEIGHT)), int(rng.integers(WIDTH))
        pixels = np.asarray(ground, np.int16) + grain[top : top + HEIGHT, left : left + WIDTH]
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        name = f"picture_{number:05}.jpg"
        (pictures / name).write_bytes(file.getvalue())
        size_bytes += len(file.getvalue())
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
    categories = [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(CLASSES, start=1)]
    (folder / "annotations").mkdir()
    tree = {"categories": categories, "images": images, "annotations": boxes}
    (folder / "annotations" / "instances_default.json").write_text(json.dumps(tree))
    return size_bytes


def ours(installation: Installation, set_id: str) -> dict[str, Any]:
    """Pull the set in a pod, and return what the pod printed."""
    template: dict[str, Any] = {
        "container": {
            "command": ["python"],
            "args": ["-c", OURS, installation.store, set_id, "/mnt/data"],
            "volumeMounts": [{"name": "data", "mountPath": "/mnt/data"}],
        },
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    name, pod = run_pod(installation, single_pod(installation, template, gpu_node=True))
    found = printed(installation, pod)
    installation.kubectl("delete", "workflow", name)
    return found


def theirs(installation: Installation) -> dict[str, Any]:
    """Let Argo download the files. Return what the pod printed, `pull_s`, and the init container's time `init_s`."""
    template: dict[str, Any] = {
        "container": {"command": ["python"], "args": ["-c", THEIRS, "/mnt/pictures"]},
        "inputs": {
            "artifacts": [
                {
                    "name": "pictures",
                    "path": "/mnt/pictures",
                    "archive": {"none": {}},
                    "s3": {"key": "team/pictures"},
                }
            ]
        },
    }
    name, pod = run_pod(installation, single_pod(installation, template, gpu_node=True))
    found = printed(installation, pod)
    about = [stamp for stamp, line in stamped_log(installation, pod["metadata"]["name"], "init") if _about_it(line)]
    begun, ended = container_times(pod, "init")
    installation.kubectl("delete", "workflow", name)
    return found | {"pull_s": about[-1] - about[0], "init_s": ended - begun}


def _about_it(line: str) -> bool:
    return "artifact" in line or "S3 Load" in line


def main(images: int = 3000, rounds: int = 5) -> None:
    """Upload the same images in both forms, and download them alternately."""
    with space("bench-pull") as installation, tempfile.TemporaryDirectory() as folder:
        print(machine(), flush=True)
        installation.install()
        export = Path(folder) / "export"
        size_bytes = draw_export(export, images)
        store = open_store(installation.store)
        store.put_folder(export / "images" / "default", "pictures")
        manifest = prepare(PrepareRequest((str(export),)), store, lambda _dataset, _manifest: b"").manifest
        what = f"{images:,} images, {size_bytes / 1e6:.0f} MB, {len(manifest.shards)} shards"
        print(what, flush=True)
        us, argo = [], []
        for number in range(rounds):
            mine, its = ours(installation, manifest.id), theirs(installation)
            if mine["digest"] != its["digest"] or mine["images"] != images:
                raise SystemExit(f"the two pods do not hold the same images: {mine}, {its}")
            us.append(mine["pull_s"])
            argo.append(its["pull_s"])
            print(
                f"round {number + 1}: ours {us[-1]:.2f} s (process ready for it after {mine['ready_s']:.2f} s), "
                f"Argo {argo[-1]:.2f} s (its container {its['init_s']:.0f} s)",
                flush=True,
            )
        ratio = statistics.median(argo) / statistics.median(us)
        print(f"| {what} | {spread(us)} | {spread(argo)} | {ratio:.1f} times as fast |")


if __name__ == "__main__":
    typer.run(main)
