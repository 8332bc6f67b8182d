"""Ultralytics YOLO as CVAT, Roboflow and Ultralytics write it, and wrong in every way that a test needs."""

import json
from pathlib import Path

import pytest

from data_prep.changes import ChangeLog
from data_prep.errors import DataPrepError
from data_prep.formats import registry
from data_prep.formats.record import Annotations
from data_prep.sources.find import find_source
from object_store import open_store
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip

YAML = b"path: .\ntrain: images/train\nval: images/val\nnames:\n  0: car\n  1: road sign\n"
BOX = b"0 0.5 0.5 0.25 0.5\n"


def dataset(yaml: bytes = YAML, train: bytes = BOX, **more: bytes) -> dict[str, bytes]:
    return {
        "data.yaml": yaml,
        "images/train/a.png": picture("a"),
        "images/train/b.png": picture("b"),
        "images/val/a.png": picture("c"),
        "labels/train/a.txt": train,
        "labels/val/a.txt": b"1 0.5 0.5 1 1\n",
    } | more


def read(path: Path) -> Annotations:
    with find_source(str(path)).open(path.parent) as files:
        (found,) = registry.find_exports(files)
        return found.format.read(files, ChangeLog())


def test_boxes_become_pixels_and_folders_become_splits(tmp_path: Path, load: Load):
    local = load(write_zip(tmp_path / "x.zip", **dataset()))
    assert [(one.name, one.source_ids) for one in local.manifest.classes] == [("car", (0,)), ("road sign", (1,))]
    first, background = local.split("train").images
    assert (first.boxes.tolist(), len(background.boxes)) == ([[24, 12, 40, 36]], 0)
    assert local.split("val").images[0].boxes.tolist() == [[0, 0, 64, 48]]
    # Both are called a.png, in different folders.
    assert {change.reason for change in local.manifest.changes} == {"image-name-taken"}


@pytest.mark.parametrize(
    ("train", "folder"),
    [(b".", ""), (b"./", ""), (b"..", ""), (b"data/images", "data/images/"), (b"photos", "photos/")],
)
def test_labels_beside_their_images_are_read_with_the_list_of_labelimg(train: bytes, folder: str, tmp_path: Path):
    files = {"data.yaml": b"names: [car, road sign]\ntrain: " + train, "classes.txt": b"car\nroad sign\n"}
    files |= {f"{folder}{name}.png": picture(name) for name in "ab"} | {f"{folder}a.txt": BOX}
    found = read(write_zip(tmp_path / "x.zip", **files))
    assert [len(list(one.annotations)) for one in found.images] == [1, 0]
    assert not found.notes


def test_the_list_of_classes_among_the_labels_is_no_label_file(tmp_path: Path, load: Load):
    files = dataset(**{"labels/train/classes.txt": b"car\nroad sign\n", "labels/classes.txt": b"car\nroad sign\n"})
    assert load(write_zip(tmp_path / "x.zip", **files)).manifest.counts["train"].boxes == 1


def test_folders_of_other_names_than_images_and_labels_are_named(tmp_path: Path):
    yaml = b"names: [car]\ntrain: my_images\n"
    files = {"data.yaml": yaml, "my_images/a.png": picture("a"), "my_labels/a.txt": BOX}
    with pytest.raises(DataPrepError, match=r"expected at 'my_images/a\.txt', but there is 'my_labels/a\.txt'"):
        read(write_zip(tmp_path / "x.zip", **files))


def test_the_layout_of_roboflow_is_read(tmp_path: Path):
    files = {
        "data.yaml": b"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['car']\n",
        "train/images/a.png": picture("a"),
        "train/labels/a.txt": BOX,
        "valid/images/b.png": picture("b"),
        "valid/labels/b.txt": BOX,
    }
    found = read(write_zip(tmp_path / "x.zip", **files))
    assert [(one.file_name, one.subset, len(list(one.annotations))) for one in found.images] == [
        ("a.png", "train", 1), ("b.png", "val", 1),
    ]  # fmt: skip


def test_lists_of_images_as_cvat_writes_them_are_read(tmp_path: Path):
    yaml = b"path: /home/me/data\ntrain: train.txt\nval: val.txt\nnames: {0: car, 1: road sign}\n"
    lists = {"train.txt": b"data/images/train/a.png\nimages/train/b.png\n", "val.txt": b"./images/val/a.png\n"}
    found = read(write_zip(tmp_path / "x.zip", **dataset(yaml), **lists))
    assert [(one.file_name, one.subset) for one in found.images] == [
        ("a.png", "train"), ("b.png", "train"), ("a.png", "val"),
    ]  # fmt: skip


def test_polygons_and_turned_boxes_are_the_box_around_them_with_their_outline(tmp_path: Path, load: Load):
    turned = b"1 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n"
    local = load(write_zip(tmp_path / "x.zip", **dataset(train=turned)))
    (one,) = json.loads((local.root / "annotations/train.json").read_bytes())["annotations"]
    assert (one["bbox"], one["segmentation"]) == ([16, 12, 32, 24], [[32, 12, 48, 24, 32, 36, 16, 24]])


def test_of_a_pose_the_box_is_read(tmp_path: Path):
    yaml = YAML + b"kpt_shape: [2, 3]\n"
    found = read(write_zip(tmp_path / "x.zip", **dataset(yaml, b"0 0.5 0.5 0.25 0.5 0.1 0.1 2 0.2 0.2 1\n")))
    (one,) = found.images[0].annotations
    assert (one.box, bytes(one.outline)) == ((0.375, 0.25, 0.25, 0.5), b"[]")


def test_a_class_that_is_not_listed_is_counted_and_many_are_refused(tmp_path: Path, load: Load):
    ok = load(write_zip(tmp_path / "x.zip", **dataset(train=BOX * 30 + b"7 0.5 0.5 0.1 0.1\n")))
    assert {change.reason: change.count for change in ok.manifest.changes}["unknown-category"] == 1
    with pytest.raises(DataPrepError, match=r"16 of 47 boxes have a class that names does not list \(for example 2\)"):
        load(write_zip(tmp_path / "y.zip", **dataset(train=b"1 0.5 0.5 0.1 0.1\n" * 30 + b"2 0.5 0.5 0.1 0.1\n" * 16)))


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (dataset(train=b"car 0.5 0.5 1 1"), r"labels/train/a.txt: line 1 begins with 'car', which is no class id"),
        (dataset(train=BOX + b"0 .5 .5 .1 .1 .9"), r"labels/train/a.txt, line 2 has 5 numbers .*confidence"),
        (dataset(train=b"\xff\xfe0"), "is not UTF-8 text"),
        (dataset(YAML + b"nc: 3\n"), "nc is 3, but names lists 2 classes"),
        (dataset(YAML.replace(b"images/val", b"images/valid")), "val: 'images/valid' names no images of this source"),
        (dataset(YAML.replace(b"images/val", b"images/train")), "is both in train and in val"),
        (dataset(b"train: images/train\nnames: 5\n"), "names must be a list"),
        (dataset(b"train: images/train\nnames: [yes, no]\n"), "True no name: put names in quotes"),
        (
            {
                "data.yaml": YAML,
                "images/train/a.png": picture("a"),
                "images/val/b.png": picture("b"),
                "labels/a.txt": BOX,
            },
            r"no image has labels: they are expected at 'labels/train/a.txt', but there is 'labels/a.txt'",
        ),
        (
            {"a/data.yaml": YAML, "a/more.yaml": YAML},
            "holds several exports in the format 'Ultralytics YOLO' in .* 'a/'",
        ),
        (dataset(b"a: &a [x]\nb: [*a, *a]\n" + YAML), "data.yaml is not valid YAML: anchors and aliases"),
        (dataset(b"train: [" * 500), "data.yaml is not valid YAML: it is nested too deeply"),
        (dataset(b"train: images/train\n"), "it looks like Ultralytics YOLO"),
    ],
)
def test_broken_data_sets_are_refused_with_a_sentence(
    tmp_path: Path, files: dict[str, bytes], sentence: str, run_prepare: Prepare
):
    with pytest.raises(DataPrepError, match=sentence):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_labels_without_their_image_are_counted(tmp_path: Path, run_prepare: Prepare):
    more = {f"labels/train/{number}.txt": BOX for number in range(5)}
    with pytest.raises(DataPrepError, match=r"5 of 8 images cannot be used, 5 missing"):
        run_prepare(write_zip(tmp_path / "x.zip", **dataset(**more)))


def test_nothing_outside_the_source_is_read_or_run(tmp_path: Path, run_prepare: Prepare):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/secret.png").write_bytes(picture("s"))
    folder = tmp_path / "set"
    for name, data in dataset(b"path: ../\ndownload: touch ran\n" + YAML.replace(b"path: .\n", b"")).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = read(folder)
    assert len(found.images) == 3
    outside = YAML.replace(b"images/train", str(tmp_path / "images/train/secret.png").encode())
    (folder / "data.yaml").write_bytes(outside)
    with pytest.raises(DataPrepError, match="names no images of this source"):
        run_prepare(folder)
    assert not list(tmp_path.rglob("ran"))


def test_a_turned_image_with_boxes_is_named(tmp_path: Path, load: Load):
    more = {"images/train/a.jpg": picture("a.jpg", orientation=6), "labels/train/a.txt": BOX}
    files = {name: data for name, data in dataset().items() if name != "images/train/a.png"} | more
    local = load(write_zip(tmp_path / "x.zip", **files))
    assert any("EXIF turns 1 image with boxes, and fractions fit either way" in one for one in local.manifest.warnings)
    assert [(one.width, one.height) for one in local.split("train").images if len(one.boxes)] == [(48, 64)]


def test_a_prefix_in_a_bucket_gives_the_same_set_as_a_zip(bucket: str, tmp_path: Path, load: Load):
    remote = open_store(f"s3://{bucket}/yolo", retry_for_s=0)
    for name, data in dataset().items():
        remote.put_bytes(name, data)
    assert load(remote.url).id == load(write_zip(tmp_path / "x.zip", **dataset())).id


def parts(**folders: str) -> dict[str, bytes]:
    """Images with labels; folder of the images with `_` for `/` → their names."""
    return {
        path: data
        for folder, names in folders.items()
        for name in names
        for place in [folder.replace("_", "/")]
        for path, data in {
            f"{place}/{name}.png": picture(name),
            f"{place.replace('images', 'labels')}/{name}.txt": BOX,
        }.items()
    }


@pytest.mark.parametrize(
    ("yaml", "folders", "splits", "said"),
    [
        ("train: train/images", {"train_images": "abc", "test_images": "de"}, {"test": "de"}, "no entry test: the 2"),
        (
            "train: train/images\nval: valid/images",
            {"train_images": "abc", "valid_images": "d", "test_images": "e"},
            {"train": "abc", "val": "d", "test": "e"},
            "the 1 image in 'test/images/' was used for it",
        ),
        ("train: images", {"images_train": "abc", "images_val": "de"}, {"train": "abc", "val": "de"}, "'images/val/'"),
        (
            "train: images/a\nval: images/b",
            {"images_a": "abc", "images_b": "d", "images_c": "ef"},
            {"train": "abc", "val": "d"},
            "does not name 'images/c/': its 2 images with labels were left out",
        ),
    ],
)
def test_folders_that_the_yaml_does_not_name_are_never_trained_on_in_silence(
    yaml: str, folders: dict[str, str], splits: dict[str, str], said: str, tmp_path: Path, load: Load
):
    files = {"data.yaml": f"{yaml}\nnames: [car, road sign]\n".encode(), **parts(**folders)}
    local = load(write_zip(tmp_path / "x.zip", **files))
    for split, names in splits.items():
        assert [Path(one.file_name).stem for one in local.split(split).images] == list(names)
    assert any(said in one for one in local.manifest.warnings)


def test_a_folder_beside_others_keeps_the_split_of_its_entry(tmp_path: Path, load: Load):
    files = {"data.yaml": b"train: images\nnames: [car]\n", **parts(images_dev="abc", images_shop="def")}
    assert load(write_zip(tmp_path / "x.zip", **files), val_fraction=0).manifest.counts["train"].images == 6


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("classes.txt", b"road sign\ncar\n", "'road sign' has the id 1 in data.yaml and 0 in classes.txt"),
        ("labels/classes.txt", b"road sign\ncar\n", "1 in data.yaml and 0 in labels/classes.txt"),
        (
            "notes.json",
            json.dumps({"categories": [{"id": 1, "name": "car"}, {"id": 0, "name": "road sign"}]}).encode(),
            "'car' has the id 0 in data.yaml and 1 in notes.json",
        ),
        ("labels/classes.txt", b"car\nroad sign\ntree\n", ""),
        ("notes.json", b'{"version": 1}', ""),
        ("classes.txt", b"\xff", ""),
        ("notes.json", b"[" * 5000 + b"]" * 5000, ""),
    ],
)
def test_another_list_with_other_ids_of_the_classes_is_named(
    path: str, content: bytes, said: str, tmp_path: Path, load: Load
):
    warnings = load(write_zip(tmp_path / "x.zip", **dataset(**{path: content}))).manifest.warnings
    assert any("contradict" in one and said in one for one in warnings) == bool(said)
