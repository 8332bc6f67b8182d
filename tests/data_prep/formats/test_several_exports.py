"""Several exports in one source: all are read, and what belongs to none of them is counted."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import DataPrepError
from data_prep.formats import registry
from data_prep.formats.record import Format
from data_prep.formats.supervisely import Supervisely
from data_prep.formats.ultralytics import Ultralytics
from data_prep.sources.find import find_source
from object_store import open_store
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import picture, write_zip
from tests.data_prep.formats.test_datumaro import BOX, subset
from tests.data_prep.formats.test_labelme import labelme, shape
from tests.data_prep.formats.test_pascal_voc import thing, voc

NUMBERS = range(30)


def of_labelme(name: str) -> dict[str, bytes]:
    return {f"{name}.json": labelme(f"{name}.png", shape()), f"{name}.png": picture(name)}


def of_voc(name: str) -> dict[str, bytes]:
    return {f"{name}.xml": voc(f"{name}.png", thing()), f"{name}.png": picture(name)}


def of_voc_itself(name: str) -> dict[str, bytes]:
    return {f"Annotations/{name}.xml": voc(f"{name}.png", thing()), f"JPEGImages/{name}.png": picture(name)}


def of_ultralytics(name: str) -> dict[str, bytes]:
    return {
        "data.yaml": b"train: images\nnames: [car]\n",
        f"images/{name}.png": picture(name),
        f"labels/{name}.txt": b"0 .5 .5 .5 .5\n",
    }


def of_yolo(name: str) -> dict[str, bytes]:
    return {
        "obj.data": b"train = train.txt\nnames = obj.names\n",
        "obj.names": b"car\n",
        "train.txt": f"obj_train_data/{name}.png\n".encode(),
        f"obj_train_data/{name}.png": picture(name),
        f"obj_train_data/{name}.txt": b"0 .5 .5 .5 .5\n",
    }


def of_datumaro(name: str) -> dict[str, bytes]:
    return {
        "annotations/default.json": json.dumps(subset((f"{name}.png", [BOX]))).encode(),
        f"images/default/{name}.png": picture(name),
    }


Make = Callable[[str], dict[str, bytes]]


def in_folders(make: Make, *names: str) -> dict[str, bytes]:
    return {f"{name}/{path}": data for name in names for path, data in make(name).items()}


def exports_of(path: Path) -> int:
    with find_source(str(path)).open(path.parent) as files:
        return len(registry.find_exports(files))


@pytest.mark.parametrize(
    ("make", "exports"),
    [(of_labelme, 1), (of_voc, 1), (of_voc_itself, 30), (of_ultralytics, 30), (of_yolo, 30), (of_datumaro, 30)],
)
def test_an_export_in_each_of_many_folders_is_read(make: Make, exports: int, tmp_path: Path, load: Load):
    """A format with a file beside each image has one export in any number of folders."""
    path = write_zip(
        tmp_path / "x.zip", **in_folders(make, *map(str, NUMBERS)), **{"other/x.png": picture("never labelled")}
    )
    local = load(path, val_fraction=0)
    images = local.split("train").images
    assert sorted(one.file_name.rpartition("/")[2] for one in images) == sorted(f"{one}.png" for one in NUMBERS)
    assert all(len(one.boxes) == 1 for one in images)
    (change,) = local.manifest.changes
    assert (change.reason, change.count, change.examples[0].file) == ("image-unlisted", 1, "other/x.png")
    assert exports_of(path) == exports


def test_of_another_format_beside_them_all_folders_are_found(tmp_path: Path, load: Load):
    files = in_folders(of_labelme, *map(str, NUMBERS)) | in_folders(of_ultralytics, "yolo")
    path = write_zip(tmp_path / "x.zip", **files)
    assert len(load(path, val_fraction=0).split("train").images) == 31
    assert exports_of(path) == 31


def test_projects_of_labelme_side_by_side_keep_their_splits(tmp_path: Path, load: Load):
    files = {
        f"{project}/{split}/{path}": data
        for project in "ab"
        for split in ("train", "val")
        for path, data in of_labelme(f"{project}{split}").items()
    }
    local = load(write_zip(tmp_path / "x.zip", **files))
    assert [len(local.split(split).images) for split in ("train", "val")] == [2, 2]


def test_more_subsets_of_datumaro_than_files_are_looked_into(tmp_path: Path, load: Load):
    files = {
        path.replace("default", name): data
        for name in (f"part{one}" for one in NUMBERS)
        for path, data in of_datumaro(name).items()
    }
    assert len(load(write_zip(tmp_path / "x.zip", **files), val_fraction=0).split("train").images) == 30


def test_a_broken_data_yaml_beside_others_is_refused(tmp_path: Path, run_prepare: Prepare):
    """Named as a source by itself, it would be refused too."""
    files = in_folders(of_ultralytics, "a", "b", "c") | {"b/data.yaml": b"names: [car"}
    with pytest.raises(DataPrepError, match=r"b/data\.yaml is not valid YAML"):
        run_prepare(write_zip(tmp_path / "x.zip", **files))


def test_images_outside_the_exports_of_a_bucket_are_counted(bucket: str, run_prepare: Prepare):
    remote = open_store(f"s3://{bucket}/dump", retry_for_s=0)
    for name, data in (in_folders(of_ultralytics, "a", "b") | {"other/x.png": picture("x")}).items():
        remote.put_bytes(name, data)
    (change,) = run_prepare(remote.url, val_fraction=0).manifest.changes
    assert (change.reason, change.count) == ("image-unlisted", 1)


class NoContent:
    """A source of which only the paths matter."""

    shown_name = "source"

    def __init__(self, paths: list[str]) -> None:
        self.sizes = dict.fromkeys(paths, 0)

    def read(self, _name: str, _limit: int) -> bytes:
        return b"train: .\nnames: [car]\n"

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    ("one", "paths", "count"),
    [
        (Ultralytics(), "{}/data.yaml", 1_001),
        (Supervisely(), "{}/meta.json {}/ann/a.json", 20_000),
    ],
)
def test_very_many_exports_are_refused_soon(one: Format, paths: str, count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "FORMATS", (one,))
    files = NoContent([path.format(number) for number in range(count) for path in paths.split()])
    started = time.monotonic()
    with pytest.raises(DataPrepError, match=r"source holds more than 1,000 exports: give its folders as several"):
        registry.find_exports(files)
    assert time.monotonic() - started < 20
