"""What passes is repeated for the whole patience, whatever asked and however often; what does not, never."""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from object_store import Corrupted, ObjectStore, StoreError, StoreUnavailable, WrongBytes, open_store, retry
from object_store.s3_download import RANGE_BYTES
from object_store.s3_upload import PART_BYTES
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_error, s3_object
from tests.object_store.bad_network import BadNetwork, Fault
from tests.object_store.test_s3_store import fail_times, md5

SMALL = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(2 * RANGE_BYTES + 5)


@pytest.fixture
def network(s3_server: str, bucket: str, s3, no_aws: pytest.MonkeyPatch) -> Iterator[BadNetwork]:
    """The S3 server behind a network that a test can spoil, with a small and a large object in the bucket."""
    s3.put_object(Bucket=bucket, Key="small", Body=SMALL)
    s3.put_object(Bucket=bucket, Key="large", Body=LARGE)
    with BadNetwork(urlsplit(s3_server).port) as network:
        no_aws.setenv("AWS_ENDPOINT_URL", network.url)
        yield network


def get_file(key: str, content: bytes) -> Callable[[ObjectStore, Path], bool]:
    def ask(store: ObjectStore, folder: Path) -> bool:
        moved: list[int] = []
        store.get_file(key, folder / "out", progress=moved.append)
        return (folder / "out").read_bytes() == content and sum(moved) == len(content)

    return ask


def put_file(content: bytes) -> Callable[[ObjectStore, Path], bool]:
    def ask(store: ObjectStore, folder: Path) -> bool:
        moved: list[int] = []
        (folder / "in").write_bytes(content)
        store.put_file(folder / "in", "new", progress=moved.append)
        return store.get_bytes("new") == content and sum(moved) == len(content)

    return ask


ASKS: dict[str, Callable[[ObjectStore, Path], bool]] = {
    "get": lambda store, _: store.get_bytes("small") == SMALL,
    "get large": lambda store, _: store.get_bytes("large") == LARGE,
    "range": lambda store, _: store.get_bytes("small", start=1000, end=90_000) == SMALL[1000:90_000],
    "file": get_file("small", SMALL),
    "large file": get_file("large", LARGE),
    "put": lambda store, _: store.put_bytes("new", SMALL).size_bytes == store.head("new").size_bytes,
    "put if absent": lambda store, _: bool(store.put_bytes("new", SMALL, if_absent=True)),
    "put file": put_file(SMALL),
    "put large file": put_file(LARGE),
    "list": lambda store, _: [info.key for info in store.list()] == ["large", "small"],
    "head": lambda store, _: store.head("small").size_bytes == len(SMALL),
    "exists": lambda store, _: store.exists("small") and not store.exists("none"),
    "delete": lambda store, _: store.delete("small") is None and not store.exists("small"),
    "delete prefix": lambda store, _: store.delete_prefix("small") == 0,
}
# Headers, the body of an answer, the request: before its headers have ended and within its body.
FAULTS = {
    "answer cut in its headers": Fault("cut", 20),
    "answer cut in its body": Fault("cut", 400),
    "reset before the answer": Fault("reset", 0),
    "request cut": Fault("reset", 100, upload=True),
    "body of the request reset": Fault("reset", 5000, upload=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_broken_connections_are_retried_whatever_asked(
    network: BadNetwork, bucket: str, tmp_path: Path, ask: Callable[[ObjectStore, Path], bool], fault: Fault
):
    network.faults = [fault] * 4
    assert ask(open_store(f"s3://{bucket}"), tmp_path)


@pytest.mark.parametrize("name", ["get large", "large file", "put if absent", "put large file", "list"])
def test_twenty_connections_in_a_row_cut_midway_end_nothing(
    network: BadNetwork, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Ten retries of a library are soon used up: the patience counts, not the number."""
    monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.2)
    network.faults = [Fault("cut", 300)] * 20
    assert ASKS[name](open_store(f"s3://{bucket}", retry_for_s=120), tmp_path)
    assert not network.faults
    assert network.struck >= 10


@pytest.mark.parametrize("name", ["get", "get large", "file", "large file"])
def test_a_byte_changed_on_the_way_is_read_again(network: BadNetwork, bucket: str, tmp_path: Path, name: str):
    network.faults = [Fault("flip", 5000)] * 2
    assert ASKS[name](open_store(f"s3://{bucket}"), tmp_path)
    assert network.struck > 0


def test_a_large_upload_over_broken_connections_leaves_no_parts(network: BadNetwork, bucket: str, s3, tmp_path: Path):
    network.faults = [Fault("reset", PART_BYTES // 2, upload=True)] * 5
    assert put_file(LARGE)(open_store(f"s3://{bucket}"), tmp_path)
    assert network.struck >= 2
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_patience_bounds_the_time(network: BadNetwork, bucket: str, tmp_path: Path):
    for name in ("get", "put", "put large file", "list", "head", "delete"):
        network.faults = [Fault("cut", 20)] * 100_000
        before = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            ASKS[name](open_store(f"s3://{bucket}", retry_for_s=1), tmp_path)
        assert 1 <= time.monotonic() - before < 10, name
        assert caught.value.exit_code == 75


@pytest.fixture
def fake(answering_server: AnsweringServer) -> ObjectStore:
    assert answering_server.requests == []
    return open_store("s3://bucket/p", retry_for_s=1)


def test_bytes_that_are_wrong_in_another_way_each_time_are_the_networks_fault(
    answering_server: AnsweringServer, fake: ObjectStore
):
    answering_server.answer = lambda _: s3_object(os.urandom(5), md5(b"right"))
    with pytest.raises(WrongBytes, match="do not match the store's MD5") as caught:
        fake.get_bytes("x")
    assert caught.value.exit_code == 75


@pytest.mark.parametrize("patience_s", [0, 60])
def test_bytes_that_are_wrong_in_the_same_way_three_times_are_the_stores_fault(
    answering_server: AnsweringServer, patience_s: float
):
    answering_server.answer = lambda request: s3_object(b"wrong", md5(b"right"), request)
    with pytest.raises(Corrupted, match=r"do not match the store's MD5.*; 3 attempts gave the same result") as caught:
        open_store("s3://bucket", retry_for_s=patience_s).get_bytes("x")
    assert caught.value.exit_code == 2
    assert sum(request.method == "GET" for request in answering_server.requests) == 3


REFUSALS = {
    403: ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"],
    404: ["NoSuchKey", "NoSuchBucket"],
    400: ["ExpiredToken", "AuthorizationHeaderMalformed", "EntityTooLarge"],
    501: ["NotImplemented"],
}


@pytest.mark.parametrize(("status", "code"), [(status, code) for status in REFUSALS for code in REFUSALS[status]])
def test_refusals_are_never_repeated(answering_server: AnsweringServer, fake: ObjectStore, status: int, code: str):
    answering_server.answer = lambda _: s3_error(status, code)
    asks: list[Callable[[], object]] = [
        lambda: fake.get_bytes("x"),
        lambda: fake.get_bytes("x", start=1, end=2),
        lambda: fake.put_bytes("x", b"1"),
        lambda: list(fake.list()),
        lambda: fake.delete("x"),
    ]
    for ask in asks:
        answering_server.requests.clear()
        with pytest.raises(StoreError) as caught:
            ask()
        assert caught.value.exit_code == 2
        # After a redirect, the region of the bucket is asked for once.
        assert len([request for request in answering_server.requests if request.method != "HEAD"]) == 1


PASSING = [(408, "RequestTimeout"), (429, "Busy"), (500, "InternalError"), (503, "SlowDown"), (400, "RequestTimeout")]
SPOILT = [(400, "BadDigest"), (400, "XAmzContentSHA256Mismatch"), (400, "IncompleteBody")]


@pytest.mark.parametrize(("status", "code"), [*PASSING, *SPOILT])
def test_what_a_server_says_of_a_passing_fault_is_retried(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path, status: int, code: str
):
    page = Reply(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    answers: list[tuple[Callable[[], object], Reply]] = [
        (lambda: fake.get_bytes("x"), s3_object(b"1", md5(b"1"))),
        (lambda: fake.get_file("x", tmp_path / "x"), s3_object(b"1", md5(b"1"))),
        (lambda: fake.put_bytes("x", b"1"), s3_object(b"1", md5(b"1"))),
        (lambda: list(fake.list()), page),
        (lambda: fake.delete("x"), Reply(200, b"<DeleteResult><Deleted><Key>p/x</Key></Deleted></DeleteResult>")),
    ]
    for ask, good in answers:
        answering_server.requests.clear()
        answering_server.answer = fail_times(3, s3_error(status, code), lambda _, good=good: good)
        ask()
        assert len(answering_server.requests) >= 4


def test_a_web_page_in_place_of_a_list_is_a_sentence(answering_server: AnsweringServer, fake: ObjectStore):
    answering_server.answer = lambda _: Reply(200, b"<html><body>Please log in<br></body>")
    with pytest.raises(StoreUnavailable, match="answers 500"):
        list(fake.list())


def test_an_upload_completed_by_a_request_whose_answer_was_lost_is_found(
    answering_server: AnsweringServer, fake: ObjectStore, tmp_path: Path
):
    """The repetition meets no upload any more; the object is there."""
    (tmp_path / "in").write_bytes(LARGE)
    completions = fail_times(1, Reply(500), lambda _: s3_error(404, "NoSuchUpload"))
    name = "InitiateMultipartUploadResult"

    def answer(request: Request) -> Reply:
        if request.method == "POST" and "uploads" in request.path:
            return Reply(200, f"<{name}><UploadId>1</UploadId></{name}>".encode())
        if request.method == "POST":
            return completions(request)
        if request.method == "PUT":
            return Reply(200, b"", {"ETag": '"part"'})
        return s3_object(LARGE, "made-3", request)

    answering_server.answer = answer
    fake.put_file(tmp_path / "in", "x")
    assert [request.method for request in answering_server.requests].count("POST") == 3
    assert not any(request.method == "DELETE" for request in answering_server.requests)


def test_the_pages_of_a_list_do_not_go_round_for_ever(answering_server: AnsweringServer, fake: ObjectStore):
    page = b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"
    answering_server.answer = lambda _: Reply(200, page + b"</ListBucketResult>")
    with pytest.raises(StoreError, match="lists the same page again"):
        list(fake.list())
