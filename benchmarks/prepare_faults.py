"""Whether a prepared set is ever taken for whole when it is not, with `prepare` disturbed at random moments.

    python -m benchmarks.prepare_faults [--cases 200] [--first 0]

First `kill -9` in so many cases, then a quarter as many of each: two processes on one set, one of the two killed, a
full disk, credentials that expire half-way, a store that becomes unreachable. After each, the set is absent or whole
with all its bytes, the exit code is right for the fault, and the same command makes the set whole. Prints one line for
each kind. A case that violates this stops the benchmark.
"""

import os
import random
import tempfile
from pathlib import Path

import typer

from benchmarks.local_run import machine
from object_store import open_store
from tests.data_prep.prepare_faults import FAULTS, FAULTS_ON_S3, Disturbed, failing_from
from tests.object_store.answering_server import AnsweringServer
from tests.object_store.conftest import start_s3_server

BUCKET = "disturbed"


def on_a_disk(kind: str, cases: range) -> None:
    """Disturb processes that write to a folder."""
    seen = 0
    with tempfile.TemporaryDirectory() as name:
        case = Disturbed(Path(name))
        for number in cases:
            store = open_store(Path(name, f"store-{number}"))
            FAULTS[kind](case, store, random.Random(number))  # noqa: S311 - it makes test cases
            seen += case.is_there(store)
            case.check_after(store)
    print(f"{kind}: {len(cases)} cases, {seen} sets whole and {len(cases) - seen} absent, none half", flush=True)


def on_s3(kind: str, cases: range, upstream: str) -> None:
    """Let an S3 server fail from a random request on."""
    failure, code = FAULTS_ON_S3[kind]
    with tempfile.TemporaryDirectory() as name, AnsweringServer() as server:
        os.environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}
        case = Disturbed(Path(name))
        failing_from(10**6, failure, server, upstream)
        case.run(open_store(f"s3://{BUCKET}/{kind}/undisturbed"))
        requests = len(server.requests)
        for number in cases:
            store = open_store(f"s3://{BUCKET}/{kind}/{number}", retry_for_s=0)
            at = random.Random(number).randrange(requests)  # noqa: S311 - it makes test cases
            failing_from(at, failure, server, upstream)
            ended = case.exit_code(store)
            if ended != code:
                raise SystemExit(f"{kind}: case {number} at request {at}: exit code {ended} instead of {code}")
            failing_from(10**6, failure, server, upstream)
            case.check_after(open_store(store.url))  # which retries
    print(f"{kind}: {len(cases)} cases, exit code {code} in each, no half set", flush=True)


def main(cases: int = 200, first: int = 0) -> None:
    """Run all cases of one kind after the other; processes are forked before any server runs here."""
    print(machine())
    few = range(first, first + max(1, cases // 4))
    for kind in FAULTS:
        on_a_disk(kind, range(first, first + cases) if kind == "SIGKILL" else few)
    for upstream in start_s3_server():
        make_bucket(upstream)
        for kind in FAULTS_ON_S3:
            on_s3(kind, few, upstream)


def make_bucket(endpoint: str) -> None:
    """Make the bucket of the cases."""
    import boto3

    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": "secret"}
    boto3.Session(region_name="us-east-1", **keys).client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)


if __name__ == "__main__":
    typer.run(main)
