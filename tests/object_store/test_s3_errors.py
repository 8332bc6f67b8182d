"""Each thing that goes wrong with S3 is a sentence that names the URL and says what to check."""

import os
import socket
import urllib.request
from collections.abc import Callable, Iterable, Iterator

import boto3
import pytest

from object_store import (
    AccessDenied,
    ClockSkew,
    NoCredentials,
    NoSuchBucket,
    ObjectStore,
    StoreError,
    StoreUnavailable,
    WrongCredentials,
    WrongRegion,
    open_store,
)
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_error
from tests.object_store.conftest import start_s3_server

# Every way to ask a store for something: obstore and boto3 say the same error in different forms.
ASKS: dict[str, Callable[[ObjectStore], object]] = {
    "get": lambda store: store.get_bytes("x"),
    "range": lambda store: store.get_bytes("x", start=1, end=2),
    "head": lambda store: store.head("x"),
    "exists": lambda store: store.exists("x"),
    "put": lambda store: store.put_bytes("x", b"1"),
    "put if absent": lambda store: store.put_bytes("x", b"1", if_absent=True),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("x"),
    "delete prefix": lambda store: store.delete_prefix("x"),
}
# What fails before the first request, fails in the same way for all that follow.
AT_CONNECTING = ["get", "head", "put", "list", "delete prefix"]


def told_each_way(store: ObjectStore, asks: Iterable[str] = ASKS) -> list[StoreError]:
    """The errors of all asks, with the promises that hold for every one of them."""
    return [told(ASKS[name], store) for name in asks]


def told(ask: Callable[[ObjectStore], object], store: ObjectStore) -> StoreError:
    with pytest.raises(StoreError) as caught:
        ask(store)
    message = str(caught.value)
    assert store.url in message
    assert "\n" not in message
    assert "Debug source" not in message
    return caught.value


@pytest.fixture(scope="module")
def strict_server() -> Iterator[dict[str, str]]:
    """An S3 server that checks keys, signatures and rights, a bucket `closed`, and a user without rights."""
    for url in start_s3_server():
        session = boto3.Session(aws_access_key_id="setup", aws_secret_access_key="setup", region_name="us-east-1")
        session.client("s3", endpoint_url=url).create_bucket(Bucket="closed")
        iam = session.client("iam", endpoint_url=url)
        iam.create_user(UserName="powerless")
        key = iam.create_access_key(UserName="powerless")["AccessKey"]
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", headers=headers, method="POST")
        urllib.request.urlopen(request).close()
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }


@pytest.fixture
def closed(strict_server: dict[str, str], no_aws: pytest.MonkeyPatch) -> ObjectStore:
    for name, value in strict_server.items():
        no_aws.setenv(name, value)
    return open_store("s3://closed/p", retry_for_s=0)


@pytest.fixture
def store(answering_server: AnsweringServer) -> ObjectStore:
    """A store on a server whose answers the test sets."""
    assert answering_server.requests == []
    return open_store("s3://bucket/p", retry_for_s=0)


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket():
    for error in told_each_way(open_store("s3://no-such-bucket-here/p")):
        assert type(error) is NoSuchBucket
        assert "no bucket 'no-such-bucket-here' at http" in str(error)
        assert "AWS_ENDPOINT_URL" in str(error)


def test_a_user_without_rights(closed: ObjectStore):
    for error in told_each_way(closed):
        assert type(error) is AccessDenied
        assert "check that the credentials may list, read and write bucket 'closed'" in str(error)


def test_an_unknown_access_key(closed: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
    for error in told_each_way(closed):
        assert type(error) is WrongCredentials
        assert "refuses the access key" in str(error)
        assert "AWS_ACCESS_KEY_ID" in str(error)


def test_a_wrong_secret(closed: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    for error in told_each_way(closed):
        assert type(error) is WrongCredentials
        assert "refuses the secret access key" in str(error)
        assert "not the secret" not in str(error)


def test_a_wrong_clock(answering_server: AnsweringServer, store: ObjectStore):
    answering_server.answer = lambda _: s3_error(403, "RequestTimeTooSkewed")
    for error in told_each_way(store):
        assert type(error) is ClockSkew
        assert "set the clock" in str(error)


def test_an_expired_session(answering_server: AnsweringServer, store: ObjectStore):
    answering_server.answer = lambda _: s3_error(400, "ExpiredToken")
    for error in told_each_way(store):
        assert type(error) is WrongCredentials
        assert "renew the credentials" in str(error)


@pytest.mark.parametrize("how", ["400 with region", "301 with header"])
def test_a_bucket_in_another_region(answering_server: AnsweringServer, store: ObjectStore, how: str):
    def answer(_: Request) -> Reply:
        if how == "400 with region":
            reply = s3_error(400, "AuthorizationHeaderMalformed", Region="eu-west-3")
        else:
            reply = s3_error(301, "PermanentRedirect")
        reply.headers["x-amz-bucket-region"] = "eu-west-3"
        return reply

    answering_server.answer = answer
    for error in told_each_way(store):
        assert type(error) is WrongRegion
        assert "region eu-west-3" in str(error)
        assert "in region us-east-1: set AWS_REGION=eu-west-3" in str(error)


def test_an_overloaded_server_passes(answering_server: AnsweringServer, store: ObjectStore):
    answering_server.answer = lambda _: s3_error(503, "SlowDown")
    for error in told_each_way(store):
        assert type(error) is StoreUnavailable
        assert error.exit_code == 75
        assert "try again later" in str(error)


def test_nobody_at_the_endpoint_passes(no_aws: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    no_aws.setenv("AWS_ENDPOINT_URL", url)
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for error in told_each_way(open_store("s3://bucket/p", retry_for_s=0)):
        assert type(error) is StoreUnavailable
        assert error.exit_code == 75
        assert f"no answer from {url}" in str(error)
        assert "check AWS_ENDPOINT_URL" in str(error)


def test_a_host_name_that_does_not_exist(no_aws: pytest.MonkeyPatch):
    no_aws.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid")
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    error = told(lambda store: store.get_bytes("x"), open_store("s3://bucket/p", retry_for_s=0))
    assert type(error) is StoreUnavailable
    assert "no answer from http://no-such-host.invalid (dns error)" in str(error)


@pytest.mark.usefixtures("no_aws")
def test_no_credentials():
    for error in told_each_way(open_store("s3://bucket/p"), AT_CONNECTING):
        assert type(error) is NoCredentials
        assert error.exit_code == 2
        assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in str(error)


def test_half_of_the_credentials(no_aws: pytest.MonkeyPatch):
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    for error in told_each_way(open_store("s3://bucket/p"), AT_CONNECTING):
        assert type(error) is NoCredentials
        assert "AWS_SECRET_ACCESS_KEY" in str(error)


def test_a_profile_that_does_not_exist(no_aws: pytest.MonkeyPatch):
    no_aws.setenv("AWS_PROFILE", "nobody")
    for error in told_each_way(open_store("s3://bucket/p"), AT_CONNECTING):
        assert type(error) is NoCredentials
        assert "nobody" in str(error)


@pytest.mark.parametrize("url", ["not a url", "ftp://x", "http://"])
def test_an_endpoint_that_is_no_url(no_aws: pytest.MonkeyPatch, url: str):
    no_aws.setenv("AWS_ENDPOINT_URL", url)
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for error in told_each_way(open_store("s3://bucket/p", retry_for_s=0), AT_CONNECTING):
        assert url in str(error)


def test_a_certificate_bundle_that_is_not_there(no_aws: pytest.MonkeyPatch, tmp_path: os.PathLike[str]):
    no_aws.setenv("AWS_CA_BUNDLE", f"{tmp_path}/gone.pem")
    no_aws.setenv("AWS_ACCESS_KEY_ID", "a")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for error in told_each_way(open_store("s3://bucket/p", retry_for_s=0), AT_CONNECTING):
        assert "gone.pem: check AWS_CA_BUNDLE" in str(error)


def test_an_answer_that_nobody_foresaw_is_passed_on(answering_server: AnsweringServer, store: ObjectStore):
    answering_server.answer = lambda _: s3_error(418, "Teapot")
    for error in told_each_way(store):
        assert type(error) is StoreError
        assert "answers 418 Teapot: no" in str(error)


def test_a_deletion_that_is_refused_for_one_key(answering_server: AnsweringServer, store: ObjectStore):
    refused = (
        b"<DeleteResult><Error><Key>p/x</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    )
    answering_server.answer = lambda _: Reply(200, refused)
    assert type(told(lambda store: store.delete(["x", "y"]), store)) is AccessDenied
