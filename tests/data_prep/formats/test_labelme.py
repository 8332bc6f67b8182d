"""LabelMe as its desktop program, CVAT and its website write it."""

import json
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.formats import coco_file, xml_elements
from data_prep.formats.labelme import LabelMe
from data_prep.sources.archive import ZipExport
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip


def shape(kind: str = "rectangle", points: object = ((4, 6), (24, 36)), label: object = "car", **more: object) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def labelme(image: str, *shapes: dict, **more: object) -> bytes:
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
    return json.dumps(content | {"imageHeight": 48, "imageWidth": 64} | more).encode()


def thing(kind: str = "", points: str = "4,6 24,6 24,36 4,36", more: str = "") -> str:
    pairs = "".join("<pt><x>{}</x><y>{}</y></pt>".format(*pair.split(",")) for pair in points.split())
    return (
        f"<object>\n<name>car</name><deleted>0</deleted><occluded>no</occluded><parts/>{kind}"
        f"<polygon>{pairs}<username/></polygon><attributes>a=b</attributes>{more}</object>"
    )


def xml(name: str, *things: str) -> bytes:
    size = "<imagesize><nrows>48</nrows><ncols>64</ncols></imagesize>"
    return f"<annotation><filename>{name}</filename><folder/>{size}{''.join(things)}</annotation>".encode()


BOX = "<type>bounding_box</type>"
MASK = (
    "<object><name>car</name><segm><username/><box><xmin>4</xmin><ymin>6</ymin><xmax>24</xmax><ymax>36</ymax></box>"
    "<mask>a_mask_0.png</mask></segm></object>"
)


def test_shapes_of_the_desktop_program_become_boxes(tmp_path: Path, load: Load):
    shapes = [
        shape(points=[[24, 36], [4, 6]]),
        shape("polygon", [[1, 2], [30, 2], [30, 20.5]], "tree", group_id=3),
        shape("circle", [[20, 20], [23, 24]]),
        shape("line"),
        shape("point", [[1, 1]]),
    ]
    files = {
        "a.json": labelme("a.png", *shapes), "a.png": picture("a"),
        "sub/b.json": labelme("..\\a2.png"), "a2.png": picture("b"),
    }  # fmt: skip
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    first, empty = local.split("train").images
    assert first.boxes.tolist() == [[4, 6, 24, 36], [15, 15, 25, 25], [1, 2, 30, 20.5]]
    assert (empty.file_name, len(empty.boxes)) == ("a2.png", 0)
    written = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert (written[2]["segmentation"], written[2]["attributes"]) == ([[1, 2, 30, 2, 30, 20.5]], {"group_id": 3})
    counts = {change.reason: change.count for change in local.manifest.changes}
    assert counts == {"shape-without-box": 2, "box-reversed": 1}


def test_xml_of_cvat_becomes_boxes(tmp_path: Path, load: Load):
    deleted = thing().replace("<deleted>0", "<deleted>1")
    files = {
        "train/a.xml": xml("a.png", thing(BOX), thing(points="1,2 30,2 30,20"), MASK, deleted),
        "train/a.png": picture("a"),
        "val/b.xml": xml("b.png", thing(BOX)),
        "val/b.png": picture("b"),
    }
    local = load(write_zip(tmp_path / "x.zip", **files))
    (first,) = local.split("train").images
    assert (first.file_name, first.boxes.tolist()) == ("a.png", [[1, 2, 30, 20], [4, 6, 24, 36], [4, 6, 24, 36]])
    assert [one.file_name for one in local.split("val").images] == ["b.png"]
    written = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert sorted(bool(one["segmentation"]) for one in written) == [False, False, True]
    assert {change.reason: change.count for change in local.manifest.changes} == {"marked-ignored": 1}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"a.json": labelme("a.png", shape(), imageData="aGFsbG8=")},
            r"the images are only inside the JSON files \(imageData in 'a.json'\): put the image files beside them",
        ),
        ({"a.json": labelme("a.png", shape())}, "was exported without images"),
        (
            {"a.json": labelme("a.png", shape())[:-5], "a.png": picture("a")},
            "a.json is not readable as a file of LabelMe",
        ),
        ({"a.json": labelme("a.png", shape()).replace(b'"flags"', b'"shapes"', 1)}, "key"),
        ({"a.json": labelme("/etc/passwd.png", shape()), "b.png": picture("a")}, "names a file outside itself"),
        (
            {"a.json": labelme("a.png", *[shape(points=[[1, "x"], None])] * 12), "a.png": picture("a")},
            "12 of 12 boxes cannot be used",
        ),
        (
            {"a.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + xml("a.png", thing()), "b.xml": xml("a.png", thing())},
            "declares a document type",
        ),
    ],
)  # fmt: skip
def test_broken_files_are_refused_with_a_sentence(
    files: dict[str, bytes], sentence: str, tmp_path: Path, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_a_shape_without_label_is_counted(tmp_path: Path, load: Load):
    files = {"a.json": labelme("a.png", *[shape()] * 12, shape(label=None)), "a.png": picture("a")}
    changes = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0).manifest.changes
    assert {change.reason: change.count for change in changes} == {"unknown-category": 1}


def test_a_file_that_does_not_fit_into_memory_is_refused(
    tmp_path: Path, run_prepare: Prepare, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(coco_file, "free_bytes", lambda: 16 << 20)
    files = {"a.json": labelme("a.png", shape(points=[[]] * 50_000)), "a.png": picture("a")}
    with pytest.raises(DataPrepError, match=r"a.json needs about \d+ MiB of memory"):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_the_rotation_of_a_rectangle_of_cvat_is_applied(tmp_path: Path, load: Load):
    turned = thing(BOX).replace("a=b", "a=b, rotation=90.0, c=d")
    others = [thing(BOX).replace("a=b", text) for text in ("my rotation=90", "rotation=much")]
    polygon = thing(points="1,2 30,2 30,20").replace("a=b", "rotation=90.0")
    files = {"a.xml": xml("a.png", turned, *others, polygon), "a.png": picture("a")}
    local = load(write_zip(tmp_path / "x.zip", **files), val_fraction=0)
    boxes = local.split("train").images[0].boxes.tolist()
    assert sorted(boxes) == [[0, 11, 29, 31], [1, 2, 30, 20], [4, 6, 24, 36], [4, 6, 24, 36]]
    assert {change.reason: change.count for change in local.manifest.changes} == {"box-rotated": 1, "box-clipped": 1}


def test_a_file_of_cvat_is_not_read_to_its_end_to_recognise_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    elements: list[str] = []
    element = xml_elements.Element
    monkeypatch.setattr(xml_elements, "Element", lambda name, *rest: elements.append(name) or element(name, *rest))
    data = b"<annotations><image/><image/></annotations>"
    files = ZipExport(write_zip(tmp_path / "x.zip", **{"annotations.xml": data}), "x.zip")
    assert not LabelMe().roots(files)
    files.close()
    assert elements == ["annotations"]
