"""Pascal VOC as CVAT, VOC, Roboflow and LabelImg write it, and wrong in every way that a test needs."""

import json
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip
from tests.data_prep.formats.test_cvat_xml import read


def thing(name: str = "car", corners: tuple[object, ...] = (4, 6, 24, 36), more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object>\n<name>{name}</name><bndbox>{sides}</bndbox>{more}</object>"


def voc(filename: str, *things: str) -> bytes:
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    return f"<annotation><folder/><filename>{filename}</filename>{size}{''.join(things)}</annotation>".encode()


def dataset(**more: bytes) -> dict[str, bytes]:
    return {
        "labelmap.txt": b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:1,2,3::\nroad sign:4,5,6::\n",
        "ImageSets/Main/train.txt": b"a\nsub/b\n",
        "ImageSets/Main/val.txt": b"c\n",
        "ImageSets/Main/trainval.txt": b"a\nsub/b\nc\n",
        "ImageSets/Main/car_train.txt": b"a  1\nc -1\n",
        "Annotations/a.xml": voc("a.png", thing(), thing("road sign")),
        "Annotations/sub/b.xml": voc("sub/b.png"),
        "Annotations/c.xml": voc("c.png", thing()),
        "JPEGImages/a.png": picture("a"),
        "JPEGImages/sub/b.png": picture("b"),
        "JPEGImages/c.png": picture("c"),
    } | more


def test_the_layout_of_cvat_becomes_a_prepared_set(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [one.name for one in local.manifest.classes] == ["car", "road sign"]
    first, empty = local.split("train").images
    assert (first.boxes.tolist(), empty.file_name, len(empty.boxes)) == ([[4, 6, 24, 36]] * 2, "sub/b.png", 0)
    assert [one.file_name for one in local.split("val").images] == ["c.png"]
    assert not local.manifest.changes


def without_lists(**more: bytes) -> dict[str, bytes]:
    return {path: data for path, data in dataset().items() if not path.startswith("ImageSets/")} | more


@pytest.mark.parametrize(
    "lists",
    [
        {"ImageSets/Main/train.txt": b"a.png\nsub/b.png\n", "ImageSets/Main/val.txt": b"c.png\n"},
        {"ImageSets/Main/train.txt": b"a\nsub/b\n", "ImageSets/Main/val.txt": b"c.png\n"},
        {"ImageSets/Main/train.txt": b"JPEGImages/a.png\nJPEGImages/sub/b.png\n", "ImageSets/Main/val.txt": b"c"},
        {"train.txt": b"D:\\voc\\JPEGImages\\a.png\n/voc/JPEGImages/sub/b.png\n", "val.txt": b"c.png\n"},
        {"train.txt": b"JPEGImages/a.png Annotations/a.xml\nsub/b 1\n", "val.txt": b"c\n"},
        {"2007_train.txt": b"/voc/JPEGImages/a.png 4,6,24,36,0\nsub/b.png\n", "train.txt": b"a\n", "val.txt": b"c\n"},
        {"ImageSets/Segmentation/train.txt": b"a\nsub/b\n", "ImageSets/Segmentation/val.txt": b"c\n"},
        {"ImageSets/Layout/train.txt": b"a 1\na 2\nsub/b 1\n", "ImageSets/Layout/val.txt": b"c 1\n"},
    ],
)
def test_lists_of_splits_are_used_however_they_name_the_images(lists: dict[str, bytes], tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **without_lists(**lists)))
    names = {split: [one.file_name for one in local.split(split).images] for split in ("train", "val")}
    assert names == {"train": ["a.png", "sub/b.png"], "val": ["c.png"]}
    assert not any("no split" in one or "names no image" in one for one in local.manifest.warnings)


def test_a_list_that_names_no_image_is_reported(tmp_path: Path, load: Load):
    more = {"ImageSets/Main/val.txt": b"IMG_1\nIMG_2\n", "ImageSets/Main/train.txt": b"a\nsub/b\nc\n"}
    warnings = load(write_zip(tmp_path / "x.zip", **without_lists(**more))).manifest.warnings
    assert any("ImageSets/Main/val.txt names no image of this source (for example 'IMG_1')" in one for one in warnings)


def test_other_text_files_are_no_lists_of_splits(tmp_path: Path, load: Load):
    beside = {f"VOC/{path}": data for path, data in without_lists().items()} | {"test.txt": "Prüfung".encode("latin-1")}
    (note,) = (one for one in load(write_zip(tmp_path / "x.zip", **beside)).manifest.warnings if "test.txt" in one)
    assert "not UTF-8" in note
    files: dict[str, bytes] = {}
    for name in ("train_0", "train_1", "test_0"):
        files |= {f"{name}.xml": voc(f"{name}.png", thing()), f"{name}.png": picture(name)}
        files[f"{name}.txt"] = b"train_0 0.5 0.5 0.1 0.1\n"  # labels of another program
    manifest = load(write_zip(tmp_path / "both.zip", **files)).manifest
    assert not any(".txt" in one for one in manifest.warnings)
    assert manifest.counts["test"].images == 0


def test_images_for_training_and_validation_are_not_called_images_without_a_split(tmp_path: Path, load: Load):
    more = {"ImageSets/Main/trainval.txt": b"a\nsub/b\n", "ImageSets/Main/test.txt": b"c\n"}
    local = load(write_zip(tmp_path / "x.zip", **without_lists(**more)))
    assert [one.file_name for one in local.split("test").images] == ["c.png"]
    assert not any("no split" in one for one in local.manifest.warnings)


def test_rotation_and_attributes_are_kept_and_parts_counted(tmp_path: Path, load: Load):
    rotation = "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>"
    part = "<part><name>wheel</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    turned = thing(more=f"<difficult>1</difficult><truncated>0</truncated>{rotation}{part}")
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"Annotations/a.xml": voc("a.png", turned)})))
    (one,) = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert one["bbox"] == pytest.approx([0, 11, 29, 20])
    assert one["attributes"] == {"difficult": "1", "rotation": "90.0"}
    assert {change.reason for change in local.manifest.changes} == {"box-rotated", "box-clipped", "shape-without-box"}


def test_files_beside_their_images_are_read_in_a_folder_for_each_split(tmp_path: Path):
    files = {
        "train/a_jpg.rf.1.xml": voc("a_jpg.rf.1.png", thing()),
        "train/a_jpg.rf.1.png": picture("a"),
        "valid/b.xml": voc("b.png", thing("tree")),
        "valid/b.png": picture("b"),
        "README.dataset.xml": b"<notes/>",
    }
    found = read(write_zip(tmp_path / "x.zip", **files))
    assert [(one.file_name, one.subset) for one in found.images] == [("a_jpg.rf.1.png", "train"), ("b.png", "valid")]
    assert sorted(found.classes) == ["car", "tree"]


def test_a_label_that_is_not_listed_and_a_broken_box_are_counted(tmp_path: Path, load: Load):
    broken = voc(
        "a.png", *[thing()] * 20, thing("lorry"), thing(corners=("x", 1, 2, 3)), "<object><name>car</name></object>"
    )
    changes = {
        change.reason: change
        for change in load(write_zip(tmp_path / "x.zip", **dataset(**{"Annotations/a.xml": broken}))).manifest.changes
    }
    assert changes["unknown-category"].examples[0].detail == "label 'lorry'"
    assert [one.detail for one in changes["box-not-a-number"].examples] == [
        "bbox ['x', '1', '2', '3']", "bbox [None, None, None, None]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"Annotations/a.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + voc("a.png")},
            "a.xml: line 1 declares a document type",
        ),
        ({"Annotations/c.xml": voc("c.png")[:-20]}, "c.xml is not readable as XML"),
        ({"ImageSets/Main/val.txt": b"a\n"}, r"'a' is listed in train.txt and in val.txt"),
        ({"ImageSets/Main/val.txt": b"\xff"}, r"val.txt is not UTF-8 text"),
        ({"other/Annotations/a.xml": voc("a.png")}, r"several exports \('./' and 'other/'\)"),
        ({"Annotations/d.xml": voc("../../../etc/passwd.jpeg", thing())}, "names a file outside itself"),
        ({"Annotations/d.xml": voc("missing.png", thing())}, "1 of 4 images cannot be used, 1 missing"),
    ],
)
def test_broken_exports_are_refused_with_a_sentence(
    tmp_path: Path, more: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


OF_VOC = b"<folder/><source><database>The VOC2007 Database</database></source>"


def test_pixels_of_vocs_own_files_are_counted_from_1(tmp_path: Path, load: Load):
    """VOC says so in its files of 2006: "Top left pixel co-ordinates : (1, 1)"."""
    whole = voc("a.png", thing(corners=(1, 1, 64, 48)), thing(corners=(10, 10, 10, 12))).replace(b"<folder/>", OF_VOC)
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"Annotations/a.xml": whole})))
    first = local.split("train").images[0]
    assert first.boxes.tolist() == [[0, 0, 64, 48], [9, 9, 10, 12]]
    assert local.split("val").images[0].boxes.tolist() == [[4, 6, 24, 36]], "the other file does not name VOC"
    (change,) = local.manifest.changes
    assert (change.reason, change.count, change.examples[0].detail) == (
        "box-other-form",
        2,
        "bbox [1.0, 1.0, 64.0, 48.0]",
    )
    assert any("which counts pixels from 1: the boxes were converted" in one for one in local.manifest.warnings)


def test_numbers_below_1_contradict_the_name_of_voc(tmp_path: Path, load: Load):
    whole = voc("a.png", thing(corners=(0, 0, 64, 48))).replace(b"<folder/>", OF_VOC)
    local = load(write_zip(tmp_path / "x.zip", **dataset(**{"Annotations/a.xml": whole})))
    assert local.split("train").images[0].boxes.tolist() == [[0, 0, 64, 48]]
    assert any("contain numbers below 1: they were used as written" in one for one in local.manifest.warnings)


@pytest.mark.parametrize(
    ("corners", "warned"),
    [((1, 1, 64, 48), True), ((0, 0, 64, 48), False), ((1.5, 1, 64, 48), False), ((1, 1, 60, 40), False)],
)
def test_numbers_that_may_be_counted_from_0_or_1_are_used_as_written_with_a_warning(
    corners: tuple[float, ...], warned: bool, tmp_path: Path, load: Load
):
    more = {"Annotations/a.xml": voc("a.png", thing(corners=corners))}
    local = load(write_zip(tmp_path / "x.zip", **dataset(**more)))
    assert local.split("train").images[0].boxes.tolist() == [list(corners)]
    assert any("at most one pixel off" in one for one in local.manifest.warnings) == warned


def test_xml_of_another_program_is_not_read(tmp_path: Path, run_prepare: Prepare):
    other = b"<annotation><filename>a.png</filename><object><name>car</name><circle/></object></annotation>"
    with pytest.raises(DataPrepError, match="it must be a CVAT export"):
        run_prepare(write_zip(tmp_path / "x.zip", **{"a.xml": other, "a.png": picture("a")}))
