"""How the benchmark of an annotator's effort counts edits."""

import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.annotator_effort import (
    FITS_IOU,
    NEAR_IOU,
    ROUNDS,
    Boxes,
    Edits,
    count_edits,
    effort_of_run,
    in_rounds,
    write_part,
)
from evaluation.predictions import PredictedImage, Prediction, PredictionsFile, write_predictions
from tests.data_prep.export_builder import Export, write_zip


def boxes(*rows: tuple[float, float, float, float, int]) -> Boxes:
    """x1, y1, x2, y2 and the class."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    return Boxes(table[:, :4], table[:, 4].astype(np.int64))


A = (0, 0, 10, 10, 0)


def shifted(pixels: float, label: int = 0) -> tuple[float, float, float, float, int]:
    """IoU with A: 0.82 at 1 pixel, 0.54 at 3, 0.25 at 6."""
    return (pixels, 0, 10 + pixels, 10, label)


@pytest.mark.parametrize(
    ("proposals", "edits"),
    [
        ((), Edits(1, drawn=1)),
        ((A,), Edits(1)),
        ((shifted(1),), Edits(1)),
        ((shifted(3),), Edits(1, moved=1)),
        ((shifted(6),), Edits(1, drawn=1, deleted=1)),
        ((shifted(1, label=1),), Edits(1, class_corrected=1)),
        ((A, shifted(50)), Edits(1, deleted=1)),
        ((A, shifted(1)), Edits(1, deleted=1)),
        ((shifted(3), A), Edits(1, deleted=1)),
    ],
)
def test_one_object_costs_what_an_annotator_does(proposals: tuple, edits: Edits):
    assert count_edits(boxes(A), boxes(*proposals)) == edits


def test_a_wrong_box_of_a_wrong_class_costs_as_much_as_a_new_one():
    assert count_edits(boxes(A), boxes(shifted(3, label=1))).total == 2


def test_an_image_without_objects_costs_its_deletions():
    assert count_edits(boxes(), boxes(A, shifted(20))) == Edits(0, deleted=2)
    assert count_edits(boxes(), boxes()) == Edits()


def test_pairs_are_the_cheapest_and_not_the_nearest():
    """The nearest pair of all would leave the other object without a partner."""
    objects = boxes((0, 0, 10, 10, 0), (4, 0, 14, 10, 0))
    proposals = boxes((1.9, 0, 11.9, 10, 0), (-3, 0, 7, 10, 0))
    assert count_edits(objects, proposals) == Edits(2, moved=2)


def test_the_count_is_the_smallest_of_all_pairings():
    rng = np.random.default_rng(3)
    for _ in range(60):
        sets = []
        for count in rng.integers(0, 5, 2):
            corners = rng.integers(0, 8, (count, 2)).astype(float)
            sets.append(Boxes(np.hstack([corners, corners + 10]), rng.integers(0, 2, count)))
        assert count_edits(*sets).total == fewest_edits(*sets)


def fewest_edits(objects: Boxes, proposals: Boxes) -> int:
    """By trying every pairing."""
    best = len(objects.labels) + len(proposals.labels)
    for count in range(min(len(objects.labels), len(proposals.labels)) + 1):
        for some in itertools.combinations(range(len(objects.labels)), count):
            for others in itertools.permutations(range(len(proposals.labels)), count):
                cost = len(objects.labels) + len(proposals.labels) - 2 * count
                for one, other in zip(some, others, strict=True):
                    x = np.abs(objects.corners[one, 0] - proposals.corners[other, 0])
                    y = np.abs(objects.corners[one, 1] - proposals.corners[other, 1])
                    shared = max(0, 10 - x) * max(0, 10 - y)
                    iou = shared / (200 - shared)
                    cost += np.inf if iou < NEAR_IOU else iou <= FITS_IOU
                    cost += objects.labels[one] != proposals.labels[other]
                best = min(best, cost)
    return int(best)


def test_edits_add_up():
    total = Edits(10, drawn=1, deleted=2) + Edits(10, moved=3, class_corrected=4)
    assert (total.objects, total.total, total.per_100) == (20, 10, 50)


def test_rounds_have_every_image_once():
    names = [f"{number}.jpg" for number in range(292)]
    rounds = in_rounds(names, seed=1)
    assert tuple(map(len, rounds)) == ROUNDS
    assert sorted(itertools.chain(*rounds)) == sorted(names)
    assert in_rounds(names, seed=1) == rounds != in_rounds(names, seed=2)


def test_a_part_has_its_images_and_their_objects(tmp_path: Path):
    export = Export()
    for number in range(4):
        export.add(f"{number}.png", [("cat", 1, 1, 9, 9), ("dog", 1, 1, 0, 0)])
    target = tmp_path / "part.zip"
    assert write_part(write_zip(tmp_path / "x.zip", export), ["1.png", "3.png"], target) == 2
    with zipfile.ZipFile(target) as part:
        coco = json.loads(part.read("annotations/instances_default.json"))
        assert {"images/default/1.png", "images/default/3.png"} < set(part.namelist())
    assert [image["file_name"] for image in coco["images"]] == ["1.png", "3.png"]
    assert coco["categories"] == export.coco["categories"]


@pytest.mark.parametrize(("with_point", "total"), [(True, 2), (False, 3)])
def test_a_run_is_read_at_its_operating_point(tmp_path: Path, *, with_point: bool, total: int):
    """Of three objects one is found. A box below the threshold of its class is not shown."""
    run, dataset = tmp_path / "workflow-data/output/run", tmp_path / "datasets/abc/annotations"
    (run / "model").mkdir(parents=True)
    dataset.mkdir(parents=True)
    images = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in (1, 2)]
    objects = [(1, 0, [0, 0, 10, 10]), (1, 1, [30, 0, 10, 10]), (2, 0, [0, 0, 10, 10])]
    truth = {
        "images": images,
        "annotations": [{"image_id": image, "category_id": label, "bbox": bbox} for image, label, bbox in objects],
    }
    (dataset / "test.json").write_text(json.dumps(truth))
    predictions = tuple(
        Prediction(image, label, bbox, score)
        for image, label, bbox, score in (
            (1, 0, (0.0, 0.0, 10.0, 10.0), 0.6),
            (1, 1, (30.0, 0.0, 10.0, 10.0), 0.6),
            (2, 0, (0.0, 0.0, 10.0, 10.0), 0.4),
        )
    )
    sizes = tuple(PredictedImage(image["id"], 64, 48) for image in images)
    content = PredictionsFile(
        set_id="abc", split="test", model="m", classes=("a", "b"), images=sizes, predictions=predictions
    )
    write_predictions(run / "predictions/test.json", content)
    point = {"threshold": 0.5, "classes": {"b": 0.7}, "split": "val"} if with_point else None
    (run / "model/config.json").write_text(json.dumps({"operating_point": point}))
    edits = effort_of_run(tmp_path)
    assert (edits.objects, edits.total, edits.drawn) == (3, total, total)
