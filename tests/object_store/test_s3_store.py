"""What is particular to S3: odd keys of others, checksums, parts, encryption, servers that misbehave."""

import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from object_store import (
    AlreadyExists,
    Corrupted,
    InvalidKey,
    ObjectChanged,
    ObjectStore,
    StoreUnavailable,
    open_store,
    s3_store,
)
from object_store.s3_connection import address_of
from object_store.s3_download import RANGE_BYTES
from object_store.s3_upload import PART_BYTES
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_error, s3_object

DATA = random.Random(0).randbytes(3 * RANGE_BYTES + 5)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def listing(key: str, size: int) -> Reply:
    """A list of one object without an ETag."""
    return Reply(
        200,
        f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{key}</Key><Size>{size}</Size>"
        "<LastModified>2025-10-21T07:28:00.000Z</LastModified></Contents>"
        "</ListBucketResult>".encode(),
    )


@pytest.fixture
def fake(answering_server: AnsweringServer) -> ObjectStore:
    """A store on the server that answers what the test says."""
    assert answering_server.requests == []
    return open_store("s3://bucket/p", retry_for_s=2)


def test_keys_of_others_are_listed_as_they_are_and_refused_by_name(s3, bucket: str, tmp_path: Path):
    for key in ["p//double", "p/ok", "p/back\\slash"]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"1")
    store = open_store(f"s3://{bucket}/p")
    listed = list(store.list())
    assert [info.key for info in listed] == ["/double", "back\\slash", "ok"]
    for info in listed[:-1]:
        with pytest.raises(InvalidKey, match="is refused"):
            store.get_many([info], tmp_path / "out/deep")
    store.get_many(listed[-1:], tmp_path / "out/deep")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ok"]


@pytest.mark.parametrize("key", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\..\\evil"])
def test_a_hostile_listing_leads_nowhere(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path, key: str
):
    answering_server.answer = lambda request: (
        listing(f"p/{key}", 4) if "list-type" in request.path else s3_object(b"evil", md5(b"evil"))
    )
    listed = list(fake.list())
    assert [info.key for info in listed] == [key]
    with pytest.raises(InvalidKey, match="is refused"):
        fake.get_many(listed, tmp_path / "deep/out")
    assert list(tmp_path.iterdir()) == []


def test_folder_marks_of_consoles_are_no_objects_and_go_with_their_prefix(s3, bucket: str):
    for key in ["p/", "p/x/", "p/x/a", "p/x//b", "p/x/.partial-0123456789abcdef"]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    store = open_store(f"s3://{bucket}/p")
    assert [info.key for info in store.list()] == ["x//b", "x/a"]
    assert store.delete_prefix("x") == 3
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["p/"]


def test_a_listing_of_several_pages_is_complete_and_sorted(s3, bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(s3_store, "LIST_PAGE", 10)
    monkeypatch.setattr(s3_store, "DELETE_BATCH", 12)
    store = open_store(f"s3://{bucket}")
    names = sorted(f"{number}" for number in range(53))
    for name in names:
        s3.put_object(Bucket=bucket, Key=f"many/{name}", Body=b"")
    assert [info.key for info in store.list("many")] == [f"many/{name}" for name in names]
    assert store.delete_prefix("many") == 53
    assert list(store.list()) == []


def test_a_large_upload_has_the_etag_of_its_parts_and_leaves_no_open_upload(s3, bucket: str, tmp_path: Path):
    (tmp_path / "in").write_bytes(DATA)
    store = open_store(f"s3://{bucket}")
    store.put_file(tmp_path / "in", "x")
    assert store.head("x").etag.endswith(f"-{-(-len(DATA) // PART_BYTES)}")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)

    def fail(_: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        store.put_file(tmp_path / "in", "y", progress=fail)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
    assert not store.exists("y")


def test_an_object_of_one_part_that_is_large_is_verified_as_a_whole(s3, bucket: str, tmp_path: Path):
    s3.put_object(Bucket=bucket, Key="x", Body=DATA)
    open_store(f"s3://{bucket}").get_file("x", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


def test_an_object_replaced_between_two_ranges_is_an_error(s3, bucket: str, tmp_path: Path):
    s3.put_object(Bucket=bucket, Key="x", Body=DATA)
    replaced = threading.Event()

    def replace(_: int) -> None:
        if not replaced.is_set():
            replaced.set()
            s3.put_object(Bucket=bucket, Key="x", Body=DATA[::-1])

    store = open_store(f"s3://{bucket}")
    store.workers = 1  # one range after the other, so that the object is replaced between two
    with pytest.raises(ObjectChanged, match="replaced while it was read"):
        store.get_file("x", tmp_path / "out/x", progress=replace)
    assert list((tmp_path / "out").iterdir()) == []


def test_files_of_an_earlier_attempt_are_kept_when_their_md5_is_right(s3, bucket: str, tmp_path: Path):
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"{number}", Body=f"content {number}".encode())
    (tmp_path / "0").write_bytes(b"content 0")
    (tmp_path / "1").write_bytes(b"CONTENT 1")
    (tmp_path / "2").write_bytes(b"longer than content 2")
    kept = (tmp_path / "0").stat()
    moved: list[int] = []
    store = open_store(f"s3://{bucket}")
    store.get_many(store.list(), tmp_path, progress=moved.append)
    assert [(tmp_path / f"{number}").read_bytes() for number in range(3)] == [b"content 0", b"content 1", b"content 2"]
    assert (tmp_path / "0").stat().st_ino == kept.st_ino
    assert (tmp_path / "1").stat().st_ino != kept.st_ino
    assert sum(moved) == 27


def test_bytes_spoilt_on_the_way_are_read_again(answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path):
    def spoil_first(_: Request) -> Reply:
        good = len(answering_server.requests) > 1
        return s3_object(b"right" if good else b"wrong", md5(b"right"))

    answering_server.answer = spoil_first
    assert fake.get_bytes("x") == b"right"
    answering_server.requests.clear()
    fake.get_file("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"right"


@pytest.mark.parametrize("size", [5, len(DATA)])
def test_bytes_that_stay_wrong_are_an_error_and_leave_no_file(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path, size: int
):
    data = DATA[:size]
    answering_server.answer = lambda request: s3_object(data, md5(data[::-1]), request)
    with pytest.raises(Corrupted, match="s3://bucket/p/x: the received bytes do not match"):
        fake.get_file("x", tmp_path / "out/x")
    with pytest.raises(Corrupted, match="do not match"):
        fake.get_bytes("x")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("size", [5, len(DATA)])
def test_with_a_managed_encryption_key_the_etag_is_no_md5(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path, size: int
):
    data = DATA[:size]

    def encrypted(request: Request) -> Reply:
        reply = s3_object(data, "0" * 32, request)
        reply.headers["x-amz-server-side-encryption"] = "aws:kms"
        return reply

    answering_server.answer = encrypted
    fake.get_file("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == fake.get_bytes("x") == data
    asked_about_encryption = [request for request in answering_server.requests if request.method == "HEAD"]
    assert len(asked_about_encryption) == 1


def test_a_download_cut_off_in_the_middle_goes_on(answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path):
    cuts = iter([1000, None])
    answering_server.answer = lambda request: s3_object(DATA[:5000], md5(DATA[:5000]), request, cut_after=next(cuts))
    fake.get_file("x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA[:5000]


def test_a_size_that_the_listing_did_not_state_is_an_error(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path
):
    answering_server.answer = lambda request: (
        listing("p/x", 4) if "list-type" in request.path else s3_object(b"12345", "weak")
    )
    with pytest.raises(Corrupted, match="received 5 bytes, but the store states"):
        fake.get_many(fake.list(), tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())


def test_an_upload_that_arrives_otherwise_is_an_error(answering_server: AnsweringServer, fake: ObjectStore):
    answering_server.answer = lambda _: Reply(200, b"", {"ETag": f'"{md5(b"something else")}"'})
    with pytest.raises(Corrupted, match="s3://bucket/p/x: the store's MD5 is not that"):
        fake.put_bytes("x", b"hello")


def test_an_upload_without_a_checksum_is_verified_by_size(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path
):
    (tmp_path / "in").write_bytes(b"hello")
    answering_server.answer = lambda request: (
        Reply(200, b"", {"ETag": '"own-way"'}) if request.method == "PUT" else s3_object(b"hell", "own-way", request)
    )
    with pytest.raises(Corrupted, match=r"has 4 bytes"):
        fake.put_file(tmp_path / "in", "x")
    with pytest.raises(Corrupted, match=r"has 4 bytes"):
        fake.put_bytes("x", b"hello")


def fail_times(times: int, failure: Reply, success: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    left = iter(range(times))
    return lambda request: success(request) if next(left, None) is None else failure


@pytest.mark.parametrize("failure", [s3_error(503, "SlowDown"), s3_error(500, "InternalError"), s3_error(429, "Busy")])
def test_passing_faults_are_retried(answering_server: AnsweringServer, fake: ObjectStore, failure: Reply):
    good = s3_object(b"1", md5(b"1"))
    answering_server.answer = fail_times(3, failure, lambda _: good)
    assert fake.get_bytes("x") == b"1"
    answering_server.answer = fail_times(3, failure, lambda _: good)
    fake.put_bytes("x", b"1")


def test_other_faults_are_not_retried(answering_server: AnsweringServer, fake: ObjectStore):
    answering_server.answer = lambda _: s3_error(403, "AccessDenied")
    with pytest.raises(Exception, match="access denied"):
        fake.get_bytes("x")
    assert len(answering_server.requests) == 1


def test_retries_end(answering_server: AnsweringServer):
    store = open_store("s3://bucket", retry_for_s=0.5)
    answering_server.answer = lambda _: s3_error(503, "SlowDown")
    with pytest.raises(StoreUnavailable, match="503 SlowDown after all retries"):
        store.get_bytes("x")
    assert len(answering_server.requests) > 1


def test_a_conflict_of_two_conditional_writes_is_tried_again(answering_server: AnsweringServer, fake: ObjectStore):
    conflict = s3_error(409, "ConditionalRequestConflict")
    puts = fail_times(2, conflict, lambda _: Reply(200, b"", {"ETag": f'"{md5(b"1")}"'}))
    stored = fail_times(2, s3_error(404, "NoSuchKey"), lambda _: s3_object(b"1", md5(b"1")))
    answering_server.answer = lambda request: puts(request) if request.method == "PUT" else stored(request)
    fake.put_bytes("x", b"1", if_absent=True)
    assert sum(request.method == "PUT" for request in answering_server.requests) == 3


@pytest.mark.parametrize(("there", "ours"), [(b"mine", True), (b"hers", False)])
def test_the_lost_answer_to_a_conditional_write_is_not_taken_for_somebody_elses(
    answering_server: AnsweringServer, fake: ObjectStore, there: bytes, ours: bool
):
    puts = fail_times(1, s3_error(500, "InternalError"), lambda _: s3_error(412, "PreconditionFailed"))

    def answer(request: Request) -> Reply:
        if request.method == "PUT":
            return puts(request)
        written = any(earlier.method == "PUT" for earlier in answering_server.requests)
        return s3_object(there, md5(there)) if written else s3_error(404, "NoSuchKey")

    answering_server.answer = answer
    if ours:
        assert fake.put_bytes("x", b"mine", if_absent=True).etag == md5(b"mine")
    else:
        with pytest.raises(AlreadyExists):
            fake.put_bytes("x", b"mine", if_absent=True)


def test_if_absent_looks_first_for_servers_that_know_no_conditional_write(
    answering_server: AnsweringServer, fake: ObjectStore
):
    answering_server.answer = lambda request: (
        s3_object(b"1", md5(b"1")) if request.method == "HEAD" else Reply(200, b"", {"ETag": '"x"'})
    )
    with pytest.raises(AlreadyExists):
        fake.put_bytes("x", b"2", if_absent=True)
    assert [request.method for request in answering_server.requests] == ["HEAD"]


def test_a_server_that_ignores_if_match_cannot_mix_versions(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path
):
    answering_server.answer = lambda request: s3_object(DATA, f"v-{len(answering_server.requests) // 2}", request)
    with pytest.raises(ObjectChanged):
        fake.get_file("x", tmp_path / "out/x")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("endpoint", "bucket", "address", "virtual"),
    [
        ("https://s3.us-east-1.amazonaws.com", "b1", "https://b1.s3.us-east-1.amazonaws.com", True),
        ("https://s3.amazonaws.com", "b1", "https://b1.s3.amazonaws.com", True),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "b1", "https://b1.s3.dualstack.eu-west-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", "b1", "https://b1.s3.cn-north-1.amazonaws.com.cn", True),
        ("https://s3.us-east-1.amazonaws.com", "b.1", "https://s3.us-east-1.amazonaws.com", False),
        ("http://seaweedfs.storage.svc:8333/", "b1", "http://seaweedfs.storage.svc:8333", False),
        (
            "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com",
            "b1",
            "https://vpce-1.s3.eu-west-1.vpce.amazonaws.com",
            False,
        ),
        (
            "https://evil-s3.us-east-1.amazonaws.com.example.org",
            "b1",
            "https://evil-s3.us-east-1.amazonaws.com.example.org",
            False,
        ),
    ],
)
def test_virtual_host_style_for_aws_and_path_style_for_all_others(
    endpoint: str, bucket: str, address: str, virtual: bool
):
    found = address_of(endpoint, bucket)
    assert (found.endpoint, found.virtual_host) == (address, virtual)


def test_opening_asks_nothing_of_the_server(answering_server: AnsweringServer):
    store = open_store("s3://bucket/p").child("x")
    assert store.url == "s3://bucket/p/x"
    assert answering_server.requests == []
