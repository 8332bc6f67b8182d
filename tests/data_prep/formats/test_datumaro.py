"""Datumaro 1.0 as CVAT writes it, and wrong in every way that a test needs."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pycocotools import mask as reference

from data_prep.errors import DataPrepError
from data_prep.formats import registry
from data_prep.formats.outlines import outline_box
from data_prep.sources.archive import ZipExport
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip
from tests.data_prep.formats.test_cvat_xml import read

BOX: dict[str, Any] = {
    "id": 0, "type": "bbox", "label_id": 0, "group": 0, "bbox": [4, 6, 20, 30], "attributes": {"occluded": False},
}  # fmt: skip


def subset(*items: tuple[str, list[dict[str, Any]]], labels: tuple[str, ...] = ("car", "road sign")) -> dict[str, Any]:
    return {
        "info": {},
        "categories": {"label": {"labels": [{"name": one, "parent": "", "attributes": []} for one in labels]}},
        "items": [
            {"id": name.split(".")[0], "annotations": shapes, "image": {"path": name, "size": [48, 64]}}
            for name, shapes in items
        ],
    }


def export(tmp_path: Path, name: str = "x.zip", **subsets: dict[str, Any]) -> Path:
    files = {f"annotations/{one}.json": json.dumps(content).encode() for one, content in subsets.items()}
    images = {
        f"images/{one}/{item['image']['path']}": picture(item["image"]["path"], content=one + item["image"]["path"])
        for one, content in subsets.items()
        for item in content["items"]
    }
    return write_zip(tmp_path / name, **files, **images)


def test_subsets_become_splits(tmp_path: Path, load: Load):
    train = subset(("a.png", [BOX, BOX | {"label_id": 1, "bbox": [1, 2, 3, 4]}]), ("sub/b.png", []))
    local = load(export(tmp_path, Train=train, Validation=subset(("c.png", [BOX]))))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (0,)), ("road sign", (1,))]
    first, empty = local.split("train").images
    assert (sorted(first.boxes.tolist()), empty.file_name) == ([[1, 2, 4, 6], [4, 6, 24, 36]], "sub/b.png")
    assert [one.file_name for one in local.split("val").images] == ["c.png"]
    assert not local.manifest.changes


def test_rotation_group_tracks_and_outlines_are_kept(tmp_path: Path):
    shapes = [
        BOX | {"group": 5, "attributes": {"rotation": 30.0, "track_id": 3}},
        BOX | {"type": "polygon", "bbox": None, "points": [10, 5, 30, 5, 20, 25]},
        BOX | {"type": "ellipse", "bbox": None, "points": [10, 5, 30, 25]},
        BOX | {"type": "rotated_bbox", "bbox": None, "rotated_bbox": [20, 20, 10, 4, 45]},
    ]
    found = read(export(tmp_path, default=subset(("a.png", shapes))))
    turned, polygon, ellipse, rotated = found.images[0].annotations
    assert (turned.rotation, turned.track_id) == (30, "3")
    assert json.loads(bytes(turned.attributes)) == {"rotation": 30, "track_id": 3, "group_id": 5}
    assert (polygon.box, json.loads(bytes(polygon.outline))) == ((10, 5, 20, 20), [[10, 5, 30, 5, 20, 25]])
    assert ellipse.box == (10, 5, 20, 20)
    assert (rotated.box, rotated.rotation) == ((15, 18, 10, 4), 45)


def test_the_box_of_a_compressed_mask_is_that_of_its_pixels(tmp_path: Path):
    random = np.random.default_rng(0)
    for _ in range(50):
        height, width = random.integers(1, 60, 2)
        pixels = np.asfortranarray(random.random((height, width)) < random.random(), dtype=np.uint8)
        made = reference.encode(pixels)
        rle = {"size": [int(height), int(width)], "counts": made["counts"].decode()}
        expected = tuple(reference.toBbox(made).tolist()) if pixels.any() else None
        assert outline_box(msgspec.Raw(msgspec.json.encode(rle))) == expected
    mask = BOX | {"type": "mask", "bbox": None, "rle": rle}
    (one,) = read(export(tmp_path, default=subset(("a.png", [mask])))).images[0].annotations
    assert (one.box, json.loads(bytes(one.outline))) == (expected, rle)


@pytest.mark.parametrize("counts", ["", "zzzz\x7f", "o" * 1000, "1", [1, "x"], "\u2603"])
def test_a_mask_that_cannot_be_read_has_no_box(counts: object):
    assert outline_box(msgspec.Raw(msgspec.json.encode({"size": [48, 64], "counts": counts}))) is None


def test_kinds_without_a_box_and_broken_boxes_are_counted(tmp_path: Path, load: Load):
    shapes = [BOX | {"bbox": [index, 6, 20, 30]} for index in range(30)]
    shapes += [BOX | {"type": kind} for kind in ("label", "points", "polyline", "skeleton", None)]
    shapes += [BOX | {"bbox": ["x", 1, 2, 3]}, BOX | {"label_id": 9}, BOX | {"label_id": None}]
    local = load(export(tmp_path, default=subset(("a.png", shapes), ("b.png", [BOX]))))
    assert {change.reason: change.count for change in local.manifest.changes} == {
        "shape-without-box": 5, "box-not-a-number": 1, "unknown-category": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (json.dumps(subset(("a.png", [BOX])))[:-9], "not readable as JSON"),
        (json.dumps(subset(("a.png", [BOX | {"label_id": 7}]))), "1 of 1 annotations have a label that is not listed"),
        (json.dumps(subset(("a.png", [BOX]), labels=())), "has no labels"),
        (
            json.dumps(subset(("a.png", [BOX]))).replace('"id": "a"', '"id": "a", "id": "b"'),
            'the key "id" is given twice',
        ),
        (json.dumps(subset(("a.png", [BOX]))).replace('[{"name"', '[{"nam"'), "is not a Datumaro file"),
        (json.dumps(subset(("../../etc/b.png", [BOX]), ("a.png", []))), "names a file outside itself"),
        (json.dumps(subset(("", [BOX]))), "neither an id nor the path"),
    ],
)
def test_broken_files_are_refused_with_a_sentence(tmp_path: Path, data: str, sentence: str, run_prepare: Prepare):
    files = {"annotations/default.json": data.encode(), "images/default/a.png": picture("a")}
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_two_exports_in_one_source_are_refused(tmp_path: Path, run_prepare: Prepare):
    data = json.dumps(subset(("a.png", [BOX]))).encode()
    path = write_zip(tmp_path / "x.zip", **{"annotations/d.json": data, "two/annotations/d.json": data})
    with pytest.raises(DataPrepError, match=r"several exports \('./' and 'two/'\), one inside the other"):
        run_prepare(path)


def test_a_file_of_coco_is_read_once_to_recognise_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read_files: list[str] = []
    read_file = ZipExport.read
    monkeypatch.setattr(ZipExport, "read", lambda self, *args: read_files.append(args[0]) or read_file(self, *args))
    path = "annotations/instances_default.json"
    files = ZipExport(write_zip(tmp_path / "x.zip", **{path: b'{"images": [], "annotations": []}'}), "x.zip")
    (found,) = registry.find_exports(files)
    files.close()
    assert found.format.name == "COCO 1.0"
    assert read_files == [path]
