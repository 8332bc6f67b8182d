"""Credentials come from where boto3 finds them, and are renewed while a long run goes on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from object_store import NoCredentials, StoreUnavailable, open_store, s3_connection
from tests.object_store.answering_server import AnsweringServer, Reply, Request, s3_object


def key_used(request: Request) -> str:
    """The access key that signed a request."""
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def region_used(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].split("/")[2]


@pytest.fixture
def server(answering_server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> AnsweringServer:
    """A server that gives one object, and no credentials in the environment."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    answering_server.answer = lambda request: s3_object(b"1", "weak", request)
    return answering_server


def test_from_the_environment_with_a_session_token(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-env")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    open_store("s3://bucket").get_bytes("x")
    assert key_used(server.requests[0]) == "from-env"
    assert server.requests[0].headers["x-amz-security-token"] == "token"


def test_from_a_profile_with_its_region_and_endpoint(
    server: AnsweringServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    (tmp_path / "config").write_text(f"[profile lab]\nregion = eu-north-1\nendpoint_url = {server.url}\n")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = from-profile\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    open_store("s3://bucket").get_bytes("x")
    assert (key_used(server.requests[0]), region_used(server.requests[0])) == ("from-profile", "eu-north-1")


def test_from_a_web_identity(s3, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As a service account of Kubernetes has it: a token in a file, exchanged at STS for a role."""
    assert s3.list_buckets()["Buckets"]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "token").write_text("a token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/trainer")
    store = open_store(f"s3://{bucket}")
    store.put_bytes("x", b"1")
    assert store.get_bytes("x") == b"1"
    assert [info.key for info in store.list()] == ["x"]


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        ({}, "us-east-1"),
    ],
)
def test_the_region_is_the_one_of_the_variables(
    answering_server: AnsweringServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    answering_server.answer = lambda request: s3_object(b"1", "weak", request)
    open_store("s3://bucket").get_bytes("x")
    assert region_used(answering_server.requests[0]) == region


def test_the_endpoint_for_s3_goes_before_the_one_for_all(
    answering_server: AnsweringServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", answering_server.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    answering_server.answer = lambda request: s3_object(b"1", "weak", request)
    store = open_store("s3://bucket/p", retry_for_s=0)
    store.get_bytes("x")
    with pytest.raises(Exception, match="s3://bucket/p"):
        list(store.list())  # the body of this answer is no listing, but it was asked here
    assert [request.path.partition("?")[0] for request in answering_server.requests] == ["/bucket/p/x", "/bucket"]


class Vending:
    """The container endpoint of ECS and EKS: each visit gives the next key, valid for so long."""

    def __init__(self, valid_for: timedelta) -> None:
        self.valid_for = valid_for
        self.given = 0
        self.fails = False

    def answer(self, request: Request) -> Reply:
        if request.path != "/credentials":
            return s3_object(b"1", "weak", request)
        if self.fails:
            return Reply(500, b"{}")
        self.given += 1
        credentials = {
            "AccessKeyId": f"key-{self.given}",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": (datetime.now(UTC) + self.valid_for).isoformat(),
        }
        return Reply(200, json.dumps(credentials).encode())


@pytest.fixture
def vending(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> Vending:
    """Credentials that are always about to expire, and no memory of them on obstore's side."""
    vending = Vending(timedelta(minutes=5))
    server.answer = vending.answer
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/credentials")
    monkeypatch.setattr(s3_connection, "CREDENTIALS_TTL", timedelta(0))
    return vending


def test_credentials_about_to_expire_are_renewed_between_requests(server: AnsweringServer, vending: Vending):
    store = open_store("s3://bucket")
    for _ in range(3):
        store.get_bytes("x")
    keys = [key_used(request) for request in server.requests if request.path != "/credentials"]
    assert len(set(keys)) == 3
    assert vending.given >= 3


def test_credentials_with_time_left_are_kept(
    server: AnsweringServer, vending: Vending, monkeypatch: pytest.MonkeyPatch
):
    vending.valid_for = timedelta(hours=1)
    monkeypatch.setattr(s3_connection, "CREDENTIALS_TTL", timedelta(minutes=9))
    store = open_store("s3://bucket")
    for _ in range(5):
        store.get_bytes("x")
    assert vending.given == 1
    assert {key_used(request) for request in server.requests if request.path != "/credentials"} == {"key-1"}


def test_credentials_that_cannot_be_renewed_are_said(vending: Vending):
    store = open_store("s3://bucket", retry_for_s=0)
    store.get_bytes("x")
    vending.fails = True
    vending.valid_for = timedelta(0)
    with pytest.raises((NoCredentials, StoreUnavailable), match=r"s3://bucket/x: .*credentials"):
        store.get_bytes("x")
    vending.fails = False
    vending.valid_for = timedelta(minutes=5)
    assert store.get_bytes("x") == b"1"


def test_what_obstore_is_told_lasts_no_longer_than_what_boto3_promises():
    # botocore renews what has less than ten minutes left; obstore renews what has less than five.
    assert timedelta(minutes=5) < s3_connection.CREDENTIALS_TTL < timedelta(minutes=10)
