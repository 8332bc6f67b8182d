"""Where exports may lie: zips and folders, on this machine and in a bucket."""

import os
from pathlib import Path

import pytest

from data_prep.errors import SourceError
from data_prep.sources.find import find_source
from object_store import ObjectStore, StoreError, open_store
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import simple_export, write_folder, write_zip


@pytest.fixture
def remote(bucket: str) -> ObjectStore:
    return open_store(f"s3://{bucket}/annotation-dump/t2", retry_for_s=0)


def test_a_zip_in_a_bucket_is_the_same_data_as_on_disk(tmp_path: Path, remote: ObjectStore, load: Load):
    # CVAT's own default key has spaces in it.
    remote.put_file(write_zip(tmp_path / "x.zip", simple_export()), "task_8_dataset coco 1.0.zip")
    assert load(f"{remote.url}/task_8_dataset coco 1.0.zip").id == load(simple_export()).id


def test_a_prefix_in_a_bucket_is_the_same_data_as_on_disk(tmp_path: Path, remote: ObjectStore, load: Load):
    remote.put_folder(write_folder(tmp_path / "unpacked", simple_export()), "2026-11-20")
    assert load(f"{remote.url}/2026-11-20/").id == load(simple_export()).id


def test_of_a_prefix_only_the_export_is_fetched(tmp_path: Path, remote: ObjectStore):
    remote.put_folder(write_folder(tmp_path / "unpacked", simple_export()), "dump")
    remote.put_bytes("models/model.safetensors", bytes(1000))
    source = find_source(remote.url)
    fetched: list[int] = []
    with source.open(tmp_path, fetched.append) as files:
        assert len(files.sizes) == 13
        assert "models/model.safetensors" not in files.sizes
    assert sum(fetched) == source.size_bytes == sum(files.sizes.values())


def test_a_prefix_without_an_export_is_refused_before_anything_is_fetched(remote: ObjectStore):
    remote.put_bytes("2026/ds.zip", b"")
    with pytest.raises(SourceError, match=r"holds the zip '2026/ds.zip' instead of an unpacked export; give that zip"):
        find_source(remote.url)


def test_an_annotation_file_alone_is_no_source(tmp_path: Path):
    (tmp_path / "instances_default.json").write_text("{}")
    with pytest.raises(SourceError, match="is only an annotation file; give the export's zip, or its folder"):
        find_source(str(tmp_path / "instances_default.json"))


def test_a_set_can_be_written_to_a_bucket_and_read_back(
    tmp_path: Path, remote: ObjectStore, run_prepare: Prepare, load: Load
):
    from prepared_set.reader import PreparedSet

    done = run_prepare(simple_export(), into=remote)
    pulled = PreparedSet.open(remote, done.manifest.id).pull(tmp_path / "from-s3")
    here = load(simple_export())
    assert [pulled.split("train").read(i) for i in range(9)] == [here.split("train").read(i) for i in range(9)]
    assert run_prepare(simple_export(), into=remote).was_there


def test_a_changed_object_is_another_source(tmp_path: Path, remote: ObjectStore, run_prepare: Prepare):
    url = f"{remote.url}/x.zip"
    remote.put_file(write_zip(tmp_path / "x.zip", simple_export(12)), "x.zip")
    first = run_prepare(url)
    assert run_prepare(url).was_there
    remote.put_file(write_zip(tmp_path / "x.zip", simple_export(13)), "x.zip")
    second = run_prepare(url)
    assert second.manifest.id != first.manifest.id
    assert not second.was_there


def test_a_missing_object_is_named(remote: ObjectStore):
    with pytest.raises(SourceError, match=r"no object s3://.*/missing.zip: check the key, and that the export has fin"):
        find_source(f"{remote.url}/missing.zip")
    with pytest.raises(SourceError, match=r"nothing below s3://.*/missing: check bucket and prefix"):
        find_source(f"{remote.url}/missing")


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_the_stores_sentence():
    with pytest.raises(StoreError, match="no-such-bucket"):
        find_source("s3://no-such-bucket/x.zip")


@pytest.mark.parametrize("name", ["nowhere.zip", "/no/where", "file:///no/where.zip"])
def test_a_missing_path_is_named(name: str):
    with pytest.raises(SourceError, match=f"there is no file or folder {name}"):
        find_source(name)


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(StoreError, match="only s3://bucket/prefix"):
        find_source("https://example.org/x.zip")


def test_links_out_of_a_folder_are_refused_and_links_inside_are_followed(tmp_path: Path, load: Load):
    folder = write_folder(tmp_path / "export", simple_export())
    image = folder / "images/default/000.png"
    image.rename(folder / "kept.png")
    image.symlink_to(folder / "kept.png")
    assert load(folder).manifest.counts["train"].images
    outside = tmp_path / "outside.png"
    (folder / "kept.png").rename(outside)
    image.unlink()
    image.symlink_to(outside)
    with pytest.raises(SourceError, match=r"'images/default/000.png' in .* is a link that leads out of the folder"):
        load(folder)
    image.unlink()
    (folder / "images" / "default").rename(tmp_path / "default")
    (folder / "images" / "default").symlink_to(tmp_path / "default")
    with pytest.raises(SourceError, match=r"'images/default' in .* leads out of the folder: copy the folder itself"):
        load(folder)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"annotations.xml": b""},
            r"'annotations\.xml': it looks like CVAT for .*, but it has no image and no track; export .* 'COCO 1\.0'",
        ),
        ({"annotations/captions.json": b"{}"}, "looks like another JSON format"),
        (
            {"obj_train_data/x.txt": b"", "obj.names": b""},
            "looks like YOLO 1.1, but there is no file obj.data with the keys",
        ),
        ({"sub/data.yaml": b""}, "looks like Ultralytics YOLO, but it lacks the key names"),
        ({"Annotations/x.xml": b""}, "looks like PASCAL VOC 1.1"),
        ({"default.tfrecord": b""}, "lists no images"),
        ({"2026/ds.zip": b""}, "the zip '2026/ds.zip' instead of an unpacked export; give that zip as the source"),
        ({"x.png": b""}, "must be a CVAT export in the format 'COCO 1.0'"),
        ({}, "other.zip is empty: export the task again"),
    ],
)
def test_other_formats_are_called_by_their_name(
    files: dict[str, bytes], sentence: str, tmp_path: Path, run_prepare: Prepare
):
    with pytest.raises(SourceError, match=sentence):
        run_prepare(write_zip(tmp_path / "other.zip", **files))


def test_exports_inside_each_other_are_refused(tmp_path: Path, run_prepare: Prepare):
    write_folder(tmp_path / "dump", simple_export())
    write_folder(tmp_path / "dump/two", simple_export())
    with pytest.raises(SourceError, match=r"several exports \('./' and 'two/'\), one inside the other: put them into"):
        run_prepare(tmp_path / "dump")


def test_what_macos_packs_beside_the_files_is_ignored(tmp_path: Path, load: Load):
    junk = {
        "__MACOSX/annotations/._instances_default.json": b"junk",
        "annotations/._instances_default.json": b"junk",
        "images/default/._000.png": b"junk",
    }
    local = load(write_zip(tmp_path / "mac.zip", simple_export(), **junk))
    assert local.id == load(simple_export()).id
    assert not local.manifest.changes


def test_a_plain_path_with_special_characters_works(tmp_path: Path, load: Load):
    path = write_zip(tmp_path / "a b" / "Zähler #1 %20.zip", simple_export())
    assert load(path).id == load(path.as_uri()).id


def test_a_fifo_in_a_folder_does_not_hang(tmp_path: Path, load: Load):
    folder = write_folder(tmp_path / "export", simple_export())
    os.mkfifo(folder / "images/default/pipe.png")
    assert load(folder).manifest.counts["train"].images
