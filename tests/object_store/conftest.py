"""Stores to test against: a bucket on a real S3 server in its own process, and a real folder."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from object_store import ObjectStore, open_store
from tests.object_store.answering_server import AnsweringServer

SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.disable(logging.CRITICAL)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()  # until the tests end
"""


def start_s3_server() -> Iterator[str]:
    """Run moto's S3 server and yield its URL."""
    command = [sys.executable, "-W", "ignore", "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    yield from start_s3_server()


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take away what the machine of the person who tests says about AWS; what a test sets goes after it."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return monkeypatch


@pytest.fixture(scope="session")
def s3_client(s3_server: str):
    """boto3's client for the S3 server, whatever the environment says."""
    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret"}
    client = boto3.Session(region_name="us-east-1", **keys).client("s3", endpoint_url=s3_server)
    yield client
    client.close()


@pytest.fixture
def s3(s3_server: str, s3_client, no_aws: pytest.MonkeyPatch):
    """boto3's client for the S3 server, which the AWS_* variables name from here on."""
    no_aws.setenv("AWS_ENDPOINT_URL", s3_server)
    no_aws.setenv("AWS_REGION", "us-east-1")
    no_aws.setenv("AWS_ACCESS_KEY_ID", "tester")
    no_aws.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return s3_client


@pytest.fixture
def bucket(s3) -> str:
    name = f"test-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def answering_server(no_aws: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    """A server that answers what the test says, named by the AWS_* variables."""
    with AnsweringServer() as server:
        no_aws.setenv("AWS_ENDPOINT_URL", server.url)
        no_aws.setenv("AWS_ACCESS_KEY_ID", "tester")
        no_aws.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server


@pytest.fixture
def s3_store(bucket: str) -> ObjectStore:
    return open_store(f"s3://{bucket}/some/prefix", retry_for_s=0)


@pytest.fixture
def local_store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """The same tests for both kinds."""
    return request.getfixturevalue("s3_store" if request.param == "s3" else "local_store")
