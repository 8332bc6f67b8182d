"""Several exports in one source, in one format or in several, are the same data as the sources one by one."""

from pathlib import Path

import pytest

from data_prep.errors import SourceError
from data_prep.export_reader import ReadingRules
from object_store import open_store
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture, simple_export, write_folder, write_zip
from tests.data_prep.formats.test_cvat_xml import box, image, xml
from tests.data_prep.formats.test_pascal_voc import dataset as voc_files


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def cvat_files() -> dict[str, bytes]:
    names = [f"{number}.png" for number in range(8)]
    body = "".join(image(name, box("car")) for name in names)
    return {"annotations.xml": xml(body)} | {f"images/{name}": picture(name) for name in names}


def ultralytics_files() -> dict[str, bytes]:
    return {
        "data.yaml": b"names: [car, tree]\ntrain: images/train\nval: images/val\n",
        "images/train/u1.png": picture("u1"),
        "images/val/u2.png": picture("u2"),
        "labels/train/u1.txt": b"0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.4 0.4\n",
        "labels/val/u2.txt": b"1 0.5 0.5 0.2 0.2\n",
    }


@pytest.mark.parametrize("kind", ["zip", "folder", "bucket"])
def test_two_exports_of_one_format_are_as_two_sources(kind: str, tmp_path: Path, load: Load, bucket: str):
    one, two = simple_export(prefix="a"), simple_export(prefix="b", classes=("dog", "fox"))
    expected = load(one, two).id
    files = below("one", one.files()) | below("deep/two", two.files())
    source: str | Path = tmp_path / "dump"
    if kind == "zip":
        source = write_zip(tmp_path / "both.zip", **files)
    elif kind == "folder":
        write_folder(tmp_path / "dump/one", one)
        write_folder(tmp_path / "dump/deep/two", two)
    else:
        remote = open_store(f"s3://{bucket}/dump", retry_for_s=0)
        for name, data in files.items():
            remote.put_bytes(name, data)
        source = remote.url
    local = load(source)
    assert local.id == expected
    assert [one.name for one in local.manifest.classes] == ["cat", "dog", "fox"]


def test_formats_may_be_mixed_in_one_zip_and_classes_are_merged_by_name(tmp_path: Path, load: Load):
    parts = {"cvat": cvat_files(), "voc": voc_files(), "yolo": ultralytics_files(), "coco": simple_export().files()}
    mixed = {name: data for folder, files in parts.items() for name, data in below(folder, files).items()}
    together = load(write_zip(tmp_path / "mixed.zip", **mixed))
    apart = load(*(write_zip(tmp_path / f"{name}.zip", **files) for name, files in parts.items()))
    assert together.id == apart.id
    assert [one.name for one in together.manifest.classes] == ["car", "cat", "dog", "road sign", "tree"]


def test_roboflows_folders_for_splits_are_one_export_beside_another(tmp_path: Path, load: Load):
    import json

    coco = {split: simple_export(4, prefix=split) for split in ("train", "valid")}
    files = {f"rf/{split}/_annotations.coco.json": json.dumps(one.coco).encode() for split, one in coco.items()}
    files |= {f"rf/{split}/{name}": data for split, one in coco.items() for name, data in one.pictures.items()}
    local = load(write_zip(tmp_path / "x.zip", **files, **below("voc", voc_files())))
    assert {record.file_name for record in local.split("val").images} >= {"valid000.png", "valid003.png", "c.png"}


def ambiguous(tmp_path: Path) -> Path:
    export = Export()
    for number in range(8):
        export.add(f"{number}.png", [("cat", 4, 4, 20, 20)])
    labels = {f"labels/train/{number}.txt": b"1 0.5 0.5 0.2 0.2\n" for number in range(8)}
    files = {name.replace("images/default", "images/train"): data for name, data in export.files().items()}
    files["annotations/instances_train.json"] = files.pop("annotations/instances_default.json")
    return write_zip(
        tmp_path / "x.zip", **files, **labels, **{"data.yaml": b"names: [cat, dog]\ntrain: images/train\n"}
    )


def test_the_same_files_in_two_formats_need_a_choice(tmp_path: Path, run_prepare: Prepare, load: Load):
    source = ambiguous(tmp_path)
    with pytest.raises(
        SourceError, match=r"'COCO 1.0' and 'Ultralytics YOLO'\) of the same files.*--format coco or ultra"
    ):
        run_prepare(source)
    boxes = {
        chosen: sum(
            load(source, rules=ReadingRules(format=chosen)).manifest.counts["train"].boxes_per_class[index:][:1]
        )
        for index, chosen in enumerate(("coco", "ultralytics"))
    }
    assert all(boxes.values()), "cats as COCO, dogs as YOLO"


def test_a_chosen_format_that_is_not_there_is_refused(tmp_path: Path, run_prepare: Prepare):
    with pytest.raises(SourceError, match=r"is not in the chosen format 'PASCAL VOC 1.1': it has no Annotations"):
        run_prepare(ambiguous(tmp_path), rules=ReadingRules(format="pascal-voc"))
