"""CVAT for images and CVAT for video, as CVAT writes them, and wrong in every way that a test needs."""

import json
from pathlib import Path

import pytest

from data_prep.changes import ChangeLog
from data_prep.errors import AnnotationError, DataPrepError, SourceError
from data_prep.formats import registry
from data_prep.formats.outlines import outline_box
from data_prep.formats.record import Annotation, Annotations
from data_prep.sources.find import find_source
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

LABELS = ("car", "road sign")


def meta(*labels: str, task: str = "") -> str:
    listed = "".join(f"<label><name>{one}</name><type>any</type></label>" for one in labels or LABELS)
    return f"<version>1.1</version><meta><task><id>3</id><labels>{listed}</labels>{task}</task></meta>"


def xml(body: str, head: str | None = None) -> bytes:
    head = meta() if head is None else head
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{head}{body}</annotations>'.encode()


def image(name: str, shapes: str = "", more: str = "") -> str:
    return f'<image id="0" name="{name}" {more} width="64" height="48">\n{shapes}</image>'


def box(label: str = "car", corners: tuple[float, ...] = (4, 6, 24, 36), more: str = "", inside: str = "") -> str:
    sides = " ".join(f'{name}="{value}"' for name, value in zip(("xtl", "ytl", "xbr", "ybr"), corners, strict=True))
    return f'<box label="{label}" source="manual" occluded="0" {sides} z_order="0" {more}>{inside}</box>\n'


def read(path: Path, changes: ChangeLog | None = None) -> Annotations:
    with find_source(str(path)).open(path.parent) as files:
        (found,) = registry.find_exports(files)
        return found.format.read(files, changes or ChangeLog())


def only_shape(tmp_path: Path, shape: str) -> Annotation:
    path = write_zip(
        tmp_path / "x.zip", **{"annotations.xml": xml(image("a.png", shape)), "images/a.png": picture("a")}
    )
    (found,) = read(path).images[0].annotations
    return found


def photos(*names: str) -> dict[str, bytes]:
    return {f"images/{name}": picture(name) for name in names}


# CVAT for images


def test_a_task_of_cvat_for_images_becomes_a_prepared_set(tmp_path: Path, load: Load):
    body = (
        image("a.png", box(more='rotation="90"') + box("road sign"), 'subset="Train"')
        + image("b.png", more='subset="Train"')
        + image("sub/c.png", box("road sign"), 'subset="Validation"')
    )
    images = {"images/Train/a.png": picture("a"), "images/Train/b.png": picture("b")}
    path = write_zip(
        tmp_path / "x.zip", **{"annotations.xml": xml(body), **images, "images/Validation/sub/c.png": picture("c")}
    )
    local = load(path)
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", ()), ("road sign", ())]
    first, empty = local.split("train").images
    assert (first.file_name, empty.file_name, len(empty.boxes)) == ("a.png", "b.png", 0)
    assert first.boxes.tolist() == [[0, 11, 29, 31], [4, 6, 24, 36]], "the first is turned, and cut to the image"
    assert [one.file_name for one in local.split("val").images] == ["sub/c.png"]
    assert {change.reason for change in local.manifest.changes} == {"box-rotated", "box-clipped"}


def test_a_box_keeps_its_source_rotation_group_and_attributes(tmp_path: Path):
    inside = '<attribute name="plate">A &amp; B</attribute><attribute name="side">left</attribute>'
    found = only_shape(tmp_path, box(more='rotation="30.5" group_id="4"', inside=inside).replace("manual", "auto"))
    assert (found.class_name, found.box, found.rotation, found.source) == ("car", (4, 6, 20, 30), 30.5, "auto")
    assert found.place == "line 3"
    assert json.loads(bytes(found.attributes)) == {
        "occluded": False, "rotation": 30.5, "group_id": "4", "plate": "A & B", "side": "left",
    }  # fmt: skip


def test_a_polygon_is_the_box_around_it_and_its_outline(tmp_path: Path):
    found = only_shape(tmp_path, '<polygon label="car" points="10,5;30.5,5;20,25" occluded="1"></polygon>')
    assert found.box == (10, 5, 20.5, 20)
    assert json.loads(bytes(found.outline)) == [[10, 5, 30.5, 5, 20, 25]]


def test_an_ellipse_is_the_box_around_it_as_it_is_turned(tmp_path: Path):
    upright = only_shape(tmp_path, '<ellipse label="car" cx="30" cy="20" rx="10" ry="4"/>')
    assert (upright.box, upright.rotation) == ((20, 16, 20, 8), 0)
    turned = only_shape(tmp_path, '<ellipse label="car" cx="30" cy="20" rx="10" ry="4" rotation="90"/>')
    assert turned.rotation == 0
    assert turned.box == pytest.approx((26, 10, 8, 20))


def test_a_mask_becomes_run_lengths_of_the_whole_image(tmp_path: Path):
    # Rows of the box: .##, ###
    found = only_shape(tmp_path, '<mask label="car" rle="1, 5" left="7" top="9" width="3" height="2"/>')
    assert found.box == (7, 9, 3, 2)
    mask = json.loads(bytes(found.outline))
    assert mask == {"size": [48, 64], "counts": [7 * 48 + 10, 1, 46, 2, 46, 2, 64 * 48 - (9 * 48 + 11)]}
    assert outline_box(found.outline) == found.box


@pytest.mark.parametrize(
    "mask",
    [
        'rle="1, 4" left="7" top="9" width="3" height="2"',
        'rle="-1, 7" left="7" top="9" width="3" height="2"',
        'rle="x" left="7" top="9" width="3" height="2"',
        'rle="0, 999999999999999999999999" left="7" top="9" width="3" height="2"',
        'rle="0, 6" left="62" top="9" width="3" height="2"',
        'rle="0, 6" left="1e300" top="9" width="3" height="2"',
    ],
)
def test_a_mask_that_does_not_fit_keeps_only_its_box(tmp_path: Path, mask: str):
    found = only_shape(tmp_path, f'<mask label="car" {mask}/>')
    assert bytes(found.outline) == b"[]"
    assert found.box is not None


def test_shapes_without_a_box_and_unlisted_labels_are_counted(tmp_path: Path, load: Load):
    shapes = (
        '<points label="car" points="1,2"/><polyline label="car" points="1,2;3,4"/><tag label="car"/>'
        '<skeleton label="car"><points label="nose" points="1,2"/></skeleton><cuboid label="car" xtl1="1"/>'
        + box("lorry")
        + box() * 20
        + '<box label="car" xtl="nan" ytl="1" xbr="2" ybr="3"/>'
    )
    local = load(
        write_zip(
            tmp_path / "x.zip",
            **{"annotations.xml": xml(image("a.png", shapes) + image("b.png", box()))},
            **photos("a.png", "b.png"),
        )
    )
    changes = {change.reason: change for change in local.manifest.changes}
    assert changes["shape-without-box"].count == 5
    assert changes["unknown-category"].examples[0].detail == "label 'lorry'"
    assert changes["box-not-a-number"].examples[0].detail == "bbox ['nan', '1', '2', '3']"
    assert [one.name for one in local.manifest.classes] == ["car", "road sign"]


def test_many_unlisted_labels_are_refused(tmp_path: Path, run_prepare: Prepare):
    path = write_zip(
        tmp_path / "x.zip", **{"annotations.xml": xml(image("a.png", box("lorry") + box()))}, **photos("a.png")
    )
    with pytest.raises(
        AnnotationError, match=r"1 of 2 shapes have a label that is not listed \(for example 'lorry'; listed are"
    ):
        run_prepare(path)


def test_points_of_a_skeleton_are_no_classes(tmp_path: Path):
    head = meta().replace("</labels>", "<label><name>nose</name><parent>car</parent></label></labels>")
    path = write_zip(tmp_path / "x.zip", **{"annotations.xml": xml(image("a.png", box()), head)}, **photos("a.png"))
    assert sorted(read(path).classes) == ["car", "road sign"]


# Hostile files


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/x"> %x;]>',
    ],
)
def test_a_document_type_is_refused(tmp_path: Path, declaration: str, run_prepare: Prepare):
    data = xml(image("a.png", box())).replace(b"\n<annotations>", f"\n{declaration}<annotations>".encode())
    with pytest.raises(DataPrepError, match=r"x.zip: annotations.xml: line 2 declares a document type \(DOCTYPE\)"):
        run_prepare(write_zip(tmp_path / "x.zip", **{"annotations.xml": data}, **photos("a.png")))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (xml(image("a.png", box()))[:-30], "not readable as XML .* cut off"),
        (xml(image("a.png", "<x>" * 60 + "</x>" * 60)), "nested too deeply"),
        (xml(image("a.png", "<x>" + "y" * (2 << 20) + "</x>")), "characters of text"),
        (xml(image("a.png", box()) + '<track id="0" label="car"/>'), "begins a track, among images"),
        (xml(image("", box())), "an image has no name"),
        (xml(image("a.png", box()) + image("a.png")), "are the same file 'images/a.png'"),
        (xml(image("../../etc/passwd.png", box()) + image("a.png")), "names a file outside itself"),
    ],
)
def test_broken_files_are_refused_with_a_sentence(tmp_path: Path, data: bytes, sentence: str, run_prepare: Prepare):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **{"annotations.xml": data}, **photos("a.png")))


def test_an_annotation_file_of_another_program_is_not_read(tmp_path: Path, run_prepare: Prepare):
    other = b'<dataset><image name="a.png"><box label="car"/></image></dataset>'
    with pytest.raises(SourceError, match=r"holds 'annotations.xml': it looks like CVAT for images or video"):
        run_prepare(write_zip(tmp_path / "x.zip", **{"annotations.xml": other}, **photos("a.png")))


def test_a_file_inside_the_folder_of_another_one_is_refused(tmp_path: Path, run_prepare: Prepare):
    data = xml(image("a.png", box()))
    path = write_zip(tmp_path / "x.zip", **{"annotations.xml": data, "two/annotations.xml": data})
    with pytest.raises(SourceError, match=r"several exports \('./' and 'two/'\), one inside the other"):
        run_prepare(path)
