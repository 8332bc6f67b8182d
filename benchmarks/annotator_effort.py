"""The edits that models save an annotator who labels an export in rounds, on the CVAT exports in REAL_DATA.

    REAL_DATA=folder python -m benchmarks.annotator_effort [--minutes 5 | --steps 500] [--model tiny] [--start URL]

The images come in rounds of 25, 75 and 192. The first round is drawn by hand. Before each later round a model is
trained on all images so far. Its boxes, at the operating point chosen on its own validation part, are put on the next
images. The annotator then draws what was missed, deletes what is wrong, moves a box that fits badly, and corrects a
class: one edit each. Prints a row for each round, and edits per 100 objects over all images.

Goal: 5 minutes of training a round from random weights, at most 45 edits per 100 objects.
"""

import json
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.local_run import local_run, machine, real_data
from evaluation.operating_point import OperatingPoint
from evaluation.predictions import PredictionsFile
from evaluation.repeated import without_repeated

ROUNDS = (25, 75, 192)
FITS_IOU, NEAR_IOU = 0.7, 0.3
"""A box above the first is left as it is, one below the second is no help, one between is moved."""
SAMPLE = "bccd_trainval_cvat_coco.zip"
ANNOTATIONS = "annotations/instances_default.json"
_RUNS, _SETS = "workflow-data/output/*", "datasets/*/annotations/test.json"


@dataclass(frozen=True)
class Boxes:
    """Objects or proposals of one image: `corners` (n, 4) are x1, y1, x2, y2 in pixels, `labels` (n,)."""

    corners: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Edits:
    """The edits of some images, by kind."""

    objects: int = 0
    drawn: int = 0
    deleted: int = 0
    moved: int = 0
    class_corrected: int = 0

    @property
    def total(self) -> int:
        """All edits."""
        return self.drawn + self.deleted + self.moved + self.class_corrected

    @property
    def per_100(self) -> float:
        """Edits per 100 objects."""
        return 100 * self.total / max(1, self.objects)

    def __add__(self, other: "Edits") -> "Edits":
        return Edits(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def count_edits(objects: Boxes, proposals: Boxes) -> Edits:
    """The fewest edits that turn the proposals into the objects.

    A pair costs an edit if its box must be moved and another if its class is wrong. An object without a partner is
    drawn, a proposal without one is deleted.
    """
    wanted, given = len(objects.labels), len(proposals.labels)
    overlap = _iou(objects.corners, proposals.corners)
    moved = (overlap <= FITS_IOU).astype(int)
    other_class = (objects.labels[:, None] != proposals.labels[None, :]).astype(int)
    # Rows: objects, then one deletion for each proposal. Columns: proposals, then one drawing for each object. Of equal
    # costs, drawing and deleting is taken instead of a pair.
    cost = np.full((wanted + given, given + wanted), np.inf)
    cost[:wanted, :given] = np.where(overlap >= NEAR_IOU, moved + other_class + 1e-6, np.inf)
    cost[:wanted, given:][np.diag_indices(wanted)] = 1
    cost[wanted:, :given][np.diag_indices(given)] = 1
    cost[wanted:, given:] = 0
    rows, columns = linear_sum_assignment(cost)
    pairs = (rows < wanted) & (columns < given)
    found = rows[pairs], columns[pairs]
    paired = int(pairs.sum())
    return Edits(wanted, wanted - paired, given - paired, int(moved[found].sum()), int(other_class[found].sum()))


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) intersection over union."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union: NDArray[np.float64] = areas[0][:, None] + areas[1][None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def effort_of_run(store: Path) -> Edits:
    """The edits on the test images of the one run in a store, which its model has not seen."""
    (run,) = store.glob(_RUNS)
    (truth_path,) = store.glob(_SETS)
    predicted = msgspec.json.decode((run / "predictions/test.json").read_bytes(), type=PredictionsFile)
    config = json.loads((run / "model/config.json").read_bytes())
    truth = json.loads(truth_path.read_bytes())
    proposals: list[tuple[int, int, Sequence[float]]] = []
    if config["operating_point"] is not None:  # without one, no box is good enough to be shown
        point = msgspec.convert(config["operating_point"], OperatingPoint)
        kept = [one for one in predicted.predictions if one.score >= point.of(predicted.classes[one.category_id])]
        proposals = [(one.image_id, one.category_id, one.bbox) for one in without_repeated(kept)]
    objects = [(one["image_id"], one["category_id"], one["bbox"]) for one in truth["annotations"]]
    return sum(
        (count_edits(_on(image["id"], objects), _on(image["id"], proposals)) for image in truth["images"]), Edits()
    )


def _on(image_id: int, boxes: Iterable[tuple[int, int, Sequence[float]]]) -> Boxes:
    own = [(label, bbox) for image, label, bbox in boxes if image == image_id]
    corners = np.array([bbox for _, bbox in own], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return Boxes(corners, np.array([label for label, _ in own], np.int64))


def write_part(source: Path, names: Collection[str], target: Path) -> int:
    """Write an export with these images of another one. Returns the number of their objects."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as part:
        coco = json.loads(whole.read(ANNOTATIONS))
        coco["images"] = [image for image in coco["images"] if image["file_name"] in names]
        ids = {image["id"] for image in coco["images"]}
        coco["annotations"] = [
            one for one in coco["annotations"] if one["image_id"] in ids and min(one["bbox"][2:]) > 0
        ]
        part.writestr(ANNOTATIONS, json.dumps(coco))
        for name in names:
            part.writestr(f"images/default/{name}", whole.read(f"images/default/{name}"))
    return len(coco["annotations"])


def in_rounds(names: Sequence[str], seed: int) -> list[list[str]]:
    """The names in a random order, cut into rounds. The last round gets the rest."""
    shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    ends = [sum(ROUNDS[:number]) for number in range(len(ROUNDS))]
    return [shuffled[start:end] for start, end in zip(ends, [*ends[1:], None], strict=True)]


def main(
    minutes: Annotated[float, typer.Option(help="Training time of each round.")] = 5.0,
    steps: Annotated[int, typer.Option(help="Training steps of each round, instead of minutes.")] = 0,
    model: Annotated[str, typer.Option(help="Preset.")] = "tiny",
    start: Annotated[
        str,
        typer.Option(help="URL of the weights that each round starts from. Empty: random."),
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the order of images, the split and training.")] = 42,
    overrides: Annotated[str, typer.Option(help="Further configuration, key=value …")] = "",
) -> None:
    """Label the blood cells in three rounds."""
    folder = real_data(SAMPLE)
    source = folder / SAMPLE
    with zipfile.ZipFile(source) as archive:
        names = [image["file_name"] for image in json.loads(archive.read(ANNOTATIONS))["images"]]
    length = f"{steps:,} steps" if steps else f"{minutes:g} min"
    print(f"{machine()}; {model} from {start or 'random weights'}, {length} a round, seed {seed}")
    print("| round | images | objects | drawn | deleted | moved | class corrected | edits per 100 objects | AP50, AP |")
    print("|---|---|---|---|---|---|---|---|---|")
    everything, done = Edits(), list[str]()
    for number, own in enumerate(in_rounds(names, seed), start=1):
        with tempfile.TemporaryDirectory() as temporary:
            train, following = Path(temporary, "train.zip"), Path(temporary, "next.zip")
            objects = write_part(source, own, following)
            if done:
                write_part(source, done, train)
                result = local_run(
                    Path(temporary, "store"),
                    parameters={
                        "cvat-annotation-path": str(train),
                        "cvat-test-path": str(following),
                        "model": model,
                        "cvat-finetune-checkpoint": start,
                        "device": "auto",
                        "minutes": "" if steps else f"{minutes:g}",
                        "seed": str(seed),
                        "overrides": f"schedule.steps={steps} {overrides}" if steps else overrides,
                    },
                )
                edits = effort_of_run(Path(temporary, "store"))
                quality = f"{result.ap50:.3f}, {result.ap:.3f}"
            else:
                edits, quality = Edits(objects, drawn=objects), ""
        print(_row(str(number), len(own), edits, quality), flush=True)
        everything, done = everything + edits, done + own
    print(_row("all", len(done), everything, ""))


def _row(name: str, images: int, edits: Edits, quality: str) -> str:
    return (
        f"| {name} | {images} | {edits.objects:,} | {edits.drawn:,} | {edits.deleted:,} | {edits.moved:,} | "
        f"{edits.class_corrected:,} | {edits.per_100:.0f} | {quality} |"
    )


if __name__ == "__main__":
    typer.run(main)
