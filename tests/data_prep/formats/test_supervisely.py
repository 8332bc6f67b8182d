"""Supervisely's projects, and what is wrong in them."""

import base64
import json
import zlib
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.formats import coco_file
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

META = {
    "classes": [
        {"title": "car", "shape": "rectangle"},
        {"title": "tree", "shape": "any"},
        {"title": "way", "shape": "line"},
    ]
}


def thing(kind: str = "rectangle", exterior: object = ((4, 6), (24, 36)), title: str = "car", **more: object) -> dict:
    points = {"exterior": exterior, "interior": []}
    return {"id": 7, "classTitle": title, "geometryType": kind, "points": points, "tags": [{"name": "old"}]} | more


def annotation(*things: dict, **more: object) -> bytes:
    content = {"description": "", "size": {"height": 48, "width": 64}, "objects": things, "tags": []}
    return json.dumps(content | more).encode()


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "project/meta.json": json.dumps(META).encode(),
        "project/train/ann/a.png.json": annotation(thing()),
        "project/train/img/a.png": picture("a"),
        "project/val/ann/b.png.json": annotation(),
        "project/val/img/b.png": picture("b"),
    } | more


def test_rectangles_polygons_and_masks_become_boxes(tmp_path: Path, load: Load):
    mask = {"origin": [10, 12], "data": base64.b64encode(zlib.compress(picture("mask", (20, 8)))).decode()}
    things = [
        thing(),
        thing("polygon", [[1, 2], [30, 2], [30, 20.5]], "tree"),
        thing("bitmap", title="tree", bitmap=mask),
        thing("line", title="way"),
    ]
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"project/train/ann/a.png.json": annotation(*things)})))
    assert [one.name for one in local.manifest.classes] == ["car", "tree"]
    (image,) = local.split("train").images
    assert image.boxes.tolist() == [[4, 6, 24, 36], [1, 2, 30, 20.5], [10, 12, 30, 20]]
    assert [(one.file_name, len(one.boxes)) for one in local.split("val").images] == [("b.png", 0)]
    written = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert [bool(one["segmentation"]) for one in written] == [False, True, False]
    assert written[0]["attributes"] == {"tags": ["old"]}
    assert {change.reason: change.count for change in local.manifest.changes} == {"shape-without-box": 1}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"project/meta.json": b"{}"}, "meta.json is not readable as a file of Supervisely"),
        (
            {"project/train/ann/a.png.json": annotation(thing())[:-3]},
            "a.png.json is not readable as a file of Supervisely",
        ),
        (
            {"project/train/ann/a.png.json": annotation(*[thing(title="bike")] * 3)},
            r"3 of 3 shapes have a label that is not listed \(for example 'bike'; listed are 'car', 'tree'",
        ),
        (
            {
                "project/train/ann/a.png.json": annotation(
                    *[thing("bitmap", bitmap={"origin": [1, 1], "data": "!"})] * 10
                )
            },
            "10 of 10 boxes cannot be used",
        ),
        ({"project/train/ann/c.png.json": annotation()}, "1 of 3 images cannot be used, 1 missing"),
    ],
)
def test_broken_projects_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


def test_classes_with_one_title_are_merged_and_counted(tmp_path: Path, load: Load):
    meta = {"classes": [*META["classes"], {"title": "car ", "shape": "line"}]}
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"project/meta.json": json.dumps(meta).encode()})))
    assert [one.name for one in local.manifest.classes] == ["car", "tree"]
    assert {change.reason: change.count for change in local.manifest.changes} == {"category-merged": 1}


def test_a_file_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, run_prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(coco_file, "free_bytes", lambda: 16 << 20)
    data = annotation(thing(), extra=[[]] * 50_000)
    with pytest.raises(DataPrepError, match=r"a.png.json needs about \d+ MiB of memory"):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**{"project/train/ann/a.png.json": data})))


@pytest.mark.parametrize(
    ("tags", "splits"),
    [
        (("train", "train", "val"), {"train": 2, "val": 1, "test": 0}),
        (("old", "test", "old"), {"train": 2, "val": 1, "test": 0}),
        (("train", "test", "train"), {"train": 1, "val": 1, "test": 1}),
    ],
)
def test_tags_of_images_say_their_splits(tags: tuple[str, ...], splits: dict[str, int], tmp_path: Path, load: Load):
    files = {"meta.json": json.dumps(META).encode()}
    for name, tag in zip("abc", tags, strict=True):
        files[f"ds/ann/{name}.png.json"] = annotation(thing(), tags=[{"name": tag}])
        files[f"ds/img/{name}.png"] = picture(name)
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0.34)
    assert {name: one.images for name, one in local.manifest.counts.items()} == splits
