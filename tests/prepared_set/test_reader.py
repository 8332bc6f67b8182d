"""A prepared set read back: verified, by offset, from any process, and refused when it is not whole."""

import json
import multiprocessing
import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from object_store import ObjectStore, open_store
from prepared_set.errors import ImageError, SetError
from prepared_set.manifest import FORMAT_VERSION
from prepared_set.reader import LocalSet, PreparedSet, Split
from tests.data_prep.conftest import Load, Prepare
from tests.data_prep.export_builder import Export, picture, simple_export

SHARD_BYTES = 20_000


@pytest.fixture
def export() -> Export:
    export = simple_export(20)
    export.add("folder/" + "long" * 60 + ".png", [("cat", 1, 2, 10, 12)])
    export.add("ünïcode/猫 \n.png", [("cat", 1, 2, 10, 12)])
    return export


@pytest.fixture
def local(load: Load, export: Export) -> LocalSet:
    return load(export, test=(simple_export(6, prefix="t"),), shard_bytes=SHARD_BYTES)


@pytest.fixture
def remote_set(bucket: str, run_prepare: Prepare, export: Export) -> PreparedSet:
    remote = open_store(f"s3://{bucket}/store", retry_for_s=0)
    done = run_prepare(export, test=(simple_export(6, prefix="t"),), into=remote, shard_bytes=SHARD_BYTES)
    return PreparedSet.open(remote, done.manifest.id)


def read_all(split: Split) -> dict[str, bytes]:
    return {record.file_name: split.read(index) for index, record in enumerate(split.images)}


def test_image_bytes_come_back_unchanged(local: LocalSet, export: Export):
    together = read_all(local.split("train")) | read_all(local.split("val"))
    assert together == export.pictures


def test_shards_are_plain_tars_that_hold_one_split_each(local: LocalSet):
    assert len(local.manifest.shards) > 4
    for shard in local.manifest.shards:
        with tarfile.open(local.root / shard.key) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
            assert {(member.uid, member.mtime, member.uname) for member in tar} == {(0, 0, "")}
        own = read_all(local.split(shard.split))
        assert members == {member.file_name: own[member.file_name] for member in shard.images}
        assert sum(map(len, members.values())) <= SHARD_BYTES


def test_records_agree_with_the_coco_file(local: LocalSet):
    split = local.split("train")
    coco = json.loads(split.annotations_path.read_bytes())
    assert [c["name"] for c in coco["categories"]] == list(local.class_names)
    by_id = {image["id"]: image for image in coco["images"]}
    assert len(split) == len(by_id) == local.manifest.counts["train"].images
    for record in split.images:
        own = [a for a in coco["annotations"] if a["image_id"] == record.image_id]
        assert record.file_name == by_id[record.image_id]["file_name"]
        assert record.annotation_ids.tolist() == [a["id"] for a in own]
        assert record.labels.tolist() == [a["category_id"] for a in own]
        assert record.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in own)]


def test_ids_are_unique_over_all_splits(local: LocalSet):
    records = [record for name in ("train", "val", "test") for record in local.split(name).images]
    assert len({record.image_id for record in records}) == len(records)
    annotation_ids = [number for record in records for number in record.annotation_ids.tolist()]
    assert len(set(annotation_ids)) == len(annotation_ids)


def test_records_behave_like_a_list(local: LocalSet):
    images = local.split("train").images
    assert [r.file_name for r in images] == [images[i].file_name for i in range(len(images))]
    assert images[-1].file_name == images[len(images) - 1].file_name
    assert [r.file_name for r in images[1:3]] == [images[1].file_name, images[2].file_name]
    with pytest.raises(IndexError):
        images[len(images)]


def test_a_split_without_images_is_empty(load: Load):
    split = load(simple_export()).split("test")
    assert len(split) == 0
    assert list(split.images) == []


def test_an_unknown_split_is_refused(local: LocalSet, store: ObjectStore, tmp_path: Path):
    with pytest.raises(SetError, match="was not pulled"):
        local.split("dev")
    with pytest.raises(SetError, match="there is no split 'dev'"):
        PreparedSet.open(store, local.id).pull(tmp_path, ["dev"])


def test_a_split_travels_to_other_processes(local: LocalSet):
    split = local.split("train")
    expected = split.read(3)  # the descriptor is open, and must not travel
    assert pickle.loads(pickle.dumps(split)).read(3) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(split.read, (3,)) == expected


def test_threads_may_read_at_once(local: LocalSet, export: Export):
    split = local.split("train")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(split.read, list(range(len(split))) * 20))
    assert read == [export.pictures[record.file_name] for record in split.images] * 20


def test_descriptors_are_closed_with_the_split(local: LocalSet):
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list open files in /proc")
    before = descriptors()
    split = local.split("train")
    read_all(split)
    assert descriptors() > before
    del split
    assert descriptors() == before


def test_an_image_that_cannot_be_decoded_is_named(local: LocalSet):
    split = local.split("train")
    shard, offset, size_bytes = split._places[0]
    path = split._shard_paths[shard]
    data = bytearray(path.read_bytes())
    data[offset : offset + size_bytes] = bytes(size_bytes)
    path.write_bytes(data)
    name = split.images[0].file_name
    with pytest.raises(
        ImageError, match=rf"image '{name}' of split train of the prepared set {local.id}: the file is not"
    ):
        split.decode(0)


def test_a_shard_that_became_shorter_is_named(local: LocalSet):
    split = local.split("train")
    path = split._shard_paths[split._places[-1][0]]
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(SetError, match=r"is too short: image .* cannot be read"):
        split.read(len(split) - 1)


# opening


@pytest.mark.parametrize("set_id", ["", "../../etc", "0123456789ABCDEF", "0123456789abcdef0", "by-source"])
def test_what_cannot_be_an_id_is_refused(set_id: str, store: ObjectStore):
    with pytest.raises(SetError, match="is not the id of a prepared set"):
        PreparedSet.open(store, set_id)


def test_a_set_that_is_not_there_is_refused(store: ObjectStore):
    with pytest.raises(SetError, match="there is no prepared set 0123456789abcdef in file://"):
        PreparedSet.open(store, "0123456789abcdef")


def test_a_newer_format_is_refused_with_what_to_do(store: ObjectStore, local: LocalSet):
    manifest = json.loads(store.get_bytes(f"datasets/{local.id}/manifest.json"))
    newer = manifest | {"format_version": FORMAT_VERSION + 1, "shards": "laid out otherwise"}
    store.put_bytes(f"datasets/{local.id}/manifest.json", json.dumps(newer).encode())
    with pytest.raises(SetError, match=rf"has format {FORMAT_VERSION + 1}, .* reads up to {FORMAT_VERSION}: update"):
        PreparedSet.open(store, local.id)


def test_a_damaged_manifest_is_refused(store: ObjectStore, local: LocalSet):
    store.put_bytes(f"datasets/{local.id}/manifest.json", b'{"format_version": 1, "id"')
    with pytest.raises(SetError, match=r"manifest of the prepared set .* is damaged"):
        PreparedSet.open(store, local.id)


# pulling


def test_a_local_store_is_read_in_place(local: LocalSet, tmp_path: Path):
    assert local.root == tmp_path / "store" / "datasets" / local.id
    assert [path.name for path in (tmp_path / "pulled").rglob("*") if path.is_file()] == ["verified.json"]


def test_damage_in_a_local_store_is_found(local: LocalSet, store: ObjectStore, tmp_path: Path):
    path = local.root / local.manifest.shards[0].key
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(SetError, match=r"images/shard-00000.tar of the prepared set .* is damaged"):
        PreparedSet.open(store, local.id).pull(tmp_path / "pulled")


def test_only_the_splits_asked_for_are_fetched(remote_set: PreparedSet, tmp_path: Path):
    test_only = remote_set.pull(tmp_path / "pulled", ["test"])
    fetched = {path.name for path in test_only.root.rglob("*") if path.is_file()}
    shards = {Path(shard.key).name for shard in remote_set.manifest.shards if shard.split == "test"}
    assert fetched == {"test.json", "verified.json"} | shards
    assert len(test_only.split("test")) == 6
    with pytest.raises(SetError, match=r"split 'train' .* was not pulled"):
        test_only.split("train")


def test_what_was_pulled_is_not_fetched_again(remote_set: PreparedSet, tmp_path: Path, bucket: str):
    moved: list[int] = []
    first = read_all(remote_set.pull(tmp_path / "pulled", progress=moved.append).split("train"))
    total = sum(file.size_bytes for file in remote_set.manifest.files(("train", "val", "test")))
    assert sum(moved) == total
    # Without its objects the store can give nothing any more: all comes from the disk.
    open_store(f"s3://{bucket}/store").delete_prefix(f"datasets/{remote_set.id}")
    (tmp_path / "pulled" / remote_set.id / "verified.json").write_text("torn not")
    again = remote_set.pull(tmp_path / "pulled", progress=moved.append)
    assert read_all(again.split("train")) == first
    assert sum(moved) == 2 * total


def test_several_may_pull_into_one_folder_at_once(remote_set: PreparedSet, tmp_path: Path, export: Export):
    with ThreadPoolExecutor(4) as pool:
        pulled = list(pool.map(lambda _: remote_set.pull(tmp_path / "pulled"), range(4)))
    for local in pulled:
        assert read_all(local.split("train")) | read_all(local.split("val")) == export.pictures


def test_a_damaged_copy_is_fetched_again(remote_set: PreparedSet, tmp_path: Path):
    local = remote_set.pull(tmp_path / "pulled")
    whole = read_all(local.split("train"))
    for shard in remote_set.manifest.shards:
        path = local.root / shard.key
        path.write_bytes(bytes(path.stat().st_size))
    assert read_all(remote_set.pull(tmp_path / "pulled").split("train")) == whole


def test_damage_in_the_store_is_found_after_fetching(remote_set: PreparedSet, tmp_path: Path, bucket: str):
    key = remote_set.manifest.shards[0].key
    store = open_store(f"s3://{bucket}/store/datasets/{remote_set.id}")
    store.put_bytes(key, bytes(remote_set.manifest.shards[0].size_bytes))
    with pytest.raises(SetError, match=rf"{key} of the prepared set .* is damaged: its content is not"):
        remote_set.pull(tmp_path / "pulled")


def test_a_copied_set_works_anywhere(local: LocalSet, tmp_path: Path):
    shutil.copytree(tmp_path / "store", tmp_path / "moved store #1")
    moved = PreparedSet.open(open_store(tmp_path / "moved store #1"), local.id).pull(tmp_path / "elsewhere")
    assert read_all(moved.split("train")) == read_all(local.split("train"))


def test_pictures_have_the_size_that_is_written(load: Load):
    export = simple_export()
    for orientation in range(1, 9):
        listed = export.add(f"o{orientation}.jpg", [("cat", 1, 2, 10, 12)], orientation=orientation)
        if orientation >= 5:
            listed |= {"width": 48, "height": 64}
    export.add("deep.png", [("cat", 1, 2, 10, 12)], data=picture("deep.png"))
    local = load(export)
    for name in ("train", "val"):
        split = local.split(name)
        assert [split.decode(i).size for i in range(len(split))] == [(r.width, r.height) for r in split.images]
