"""`data-prep convert` writes COCO that gives the same prepared set as the sources."""

import json
from pathlib import Path

import pytest

from data_prep.checks.class_choice import ClassChoice, class_choice
from data_prep.convert import Converted, convert
from data_prep.errors import DataPrepError, SourceError
from data_prep.export_reader import ReadingRules, Watcher
from data_prep.prepare import PrepareRequest
from run_config.automatic_boxes import AutomaticBoxes
from run_config.exit_codes import WRONG_INPUT
from tests.data_prep.conftest import Load
from tests.data_prep.export_builder import Export, picture, simple_export, write_zip
from tests.data_prep.formats.test_cvat_xml import box, image, photos, xml
from tests.data_prep.formats.test_pascal_voc import dataset as voc_files
from tests.data_prep.test_cli import data_prep

KEEP = ReadingRules(automatic_boxes=AutomaticBoxes.KEEP)


def converted(
    tmp_path: Path, *sources: Path, choice: ClassChoice | None = None, rules: ReadingRules | None = None
) -> tuple[Path, Converted]:
    out = tmp_path / "out"
    request = PrepareRequest(tuple(map(str, sources)), rules=rules or ReadingRules(), choice=choice or ClassChoice())
    return out, convert(request, out, watcher=Watcher())


def cvat_files() -> dict[str, bytes]:
    shapes = box("car", inside='<attribute name="colour">red</attribute>') + (
        '<polygon label="road sign" source="auto" occluded="1" points="1,2;30,2;30,20" z_order="0"></polygon>\n'
    )
    names = [f"{number}.png" for number in range(6)]
    subsets = ["train", "val", "Lager Süd"]
    body = "".join(image(name, shapes, f'subset="{subsets[number % 3]}"') for number, name in enumerate(names))
    return {"annotations.xml": xml(body)} | photos(*names)


@pytest.mark.parametrize("files", [simple_export(8).files(), voc_files(), cvat_files()], ids=["coco", "voc", "cvat"])
def test_the_result_gives_the_same_set_as_the_source(files: dict[str, bytes], tmp_path: Path, load: Load):
    source = write_zip(tmp_path / "x.zip", **files)
    out, done = converted(tmp_path, source, rules=KEEP)
    assert load(out).id == load(source, rules=KEEP).id
    assert sum(done.images.values()) == len(list((out / "images").rglob("*.png")))
    assert not done.changes


def test_untouched_automatic_boxes_are_left_out_as_in_prepare(tmp_path: Path, load: Load):
    source = write_zip(tmp_path / "x.zip", **cvat_files())
    out, done = converted(tmp_path, source)
    assert load(out).id == load(source).id
    assert {change.reason: change.count for change in done.changes} == {"box-automatic": 6}


def test_a_source_without_a_box_that_is_left_writes_nothing(tmp_path: Path):
    files = {"annotations.xml": xml(image("a.png", box("car").replace('"manual"', '"auto"')))} | photos("a.png")
    assert b'"auto"' in files["annotations.xml"]
    with pytest.raises(SourceError, match="no box is left: a model drew 1 box and nobody has changed them"):
        converted(tmp_path, write_zip(tmp_path / "x.zip", **files))
    empty = {"annotations.xml": xml(image("a.png", ""))} | photos("a.png")
    with pytest.raises(SourceError, match="no image has a box: draw boxes in CVAT"):
        converted(tmp_path, write_zip(tmp_path / "y.zip", **empty))
    assert not (tmp_path / "out").exists()


def test_names_that_are_taken_and_repeated_images_are_counted(tmp_path: Path, load: Load):
    one, two = Export(("cat",)), Export(("cat", "dog"))
    for export in (one, two):
        export.add("same.png", [("cat", 4, 4, 20, 20)])
    one.add("other.png", [("cat", 4, 4, 20, 20)])
    two.add("other.png", [("dog", 4, 4, 20, 20)], data=picture("another"))
    sources = [write_zip(tmp_path / f"{number}.zip", export) for number, export in enumerate((one, two))]
    out, done = converted(tmp_path, *sources)
    assert {change.reason: change.count for change in done.changes} == {"image-repeated": 1, "image-name-taken": 2}
    names = sorted(path.name for path in (out / "images/default").iterdir())
    assert (len(names), names[2]) == (3, "same.png")
    assert {one.name for one in load(out).manifest.classes} == {"cat", "dog"}


def test_a_turned_box_is_not_turned_again(tmp_path: Path, load: Load):
    export = simple_export(6)
    export.add("turned.png", [("cat", 20, 10, 20, 10)], attributes={"rotation": 90, "colour": "red"})
    source = write_zip(tmp_path / "x.zip", export)
    out, done = converted(tmp_path, source)
    assert [(change.reason, change.count) for change in done.changes] == [("box-rotated", 1)]
    (written,) = [
        one
        for one in json.loads((out / "annotations/instances_default.json").read_bytes())["annotations"]
        if "colour" in one["attributes"]
    ]
    assert (written["bbox"], written["attributes"]) == ([25, 5, 10, 20], {"colour": "red", "occluded": False})
    assert not load(out).manifest.changes


def test_an_exif_orientation_is_not_applied_again(tmp_path: Path, load: Load):
    export = Export(("cat",))
    for number in range(6):
        export.add(f"{number}.jpg", [("cat", 2, 40, 20, 20)], size=(48, 64), data=picture(f"{number}.jpg", (64, 48), 6))
    source = write_zip(tmp_path / "x.zip", export)
    out, _ = converted(tmp_path, source)
    assert load(out).id == load(source).id


def test_the_command_converts_and_chooses_classes(tmp_path: Path):
    source, out = write_zip(tmp_path / "x.zip", simple_export(9)), tmp_path / "new/out"
    done = data_prep("convert", source, "--to", out, "--annotations-only", "--classes", "pet", "--class-map", "cat=pet")
    assert done.returncode == 0, done.stderr
    assert "9 images, " in done.stdout
    assert "dropped: 6 x Boxes have a class that was not chosen." in done.stdout
    assert sorted(path.name for path in out.rglob("*")) == ["annotations", "instances_default.json"]
    coco = json.loads((out / "annotations/instances_default.json").read_bytes())
    assert [one["name"] for one in coco["categories"]] == ["pet"]
    again = data_prep("convert", source, "--to", out)
    assert (again.returncode, "exists already; give the name of a new folder" in again.stderr) == (WRONG_INPUT, True)


def test_a_subset_cannot_lead_out_of_the_folder(tmp_path: Path):
    body = "".join(image(f"{number}.png", box(), 'subset="../../up"') for number in range(4))
    files = {"annotations.xml": xml(body)} | photos(*(f"{number}.png" for number in range(4)))
    out, done = converted(tmp_path, write_zip(tmp_path / "x.zip", **files))
    assert list(done.images) == ["_.._up"]
    assert (out / "annotations/instances__.._up.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.zip"]


def test_a_failure_leaves_nothing(tmp_path: Path):
    source = write_zip(tmp_path / "x.zip", simple_export(6))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataPrepError, match="cannot be written"):
        convert(PrepareRequest((str(source),)), tmp_path / "file/out", watcher=Watcher())
    with pytest.raises(DataPrepError, match="no source has the class"):
        converted(tmp_path, source, choice=class_choice(["bird"], []))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "x.zip"]
