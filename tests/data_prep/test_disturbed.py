"""A full disk, expired credentials and an unreachable store, half-way: an error of its own, and no half set.

A process that is killed, and several at once: `test_writing.py`. Random moments: `benchmarks.prepare_faults`.
"""

from pathlib import Path

import pytest

from object_store import open_store
from tests.data_prep.prepare_faults import FAULTS_ON_S3, Disturbed, disk_of, failing_from
from tests.object_store.answering_server import AnsweringServer


@pytest.mark.parametrize("kind", FAULTS_ON_S3)
def test_a_store_that_fails_half_way(
    tmp_path: Path, bucket: str, s3_server: str, answering_server: AnsweringServer, kind: str
):
    case = Disturbed(tmp_path)
    failure, code = FAULTS_ON_S3[kind]
    store = open_store(f"s3://{bucket}/undisturbed", retry_for_s=0)
    failing_from(10**6, failure, answering_server, s3_server)
    case.run(store)
    requests = len(answering_server.requests)
    assert requests > 10
    for number in range(0, requests, 4):
        store = open_store(f"s3://{bucket}/{number}", retry_for_s=0)
        failing_from(number, failure, answering_server, s3_server)
        assert case.exit_code(store) == code
        failing_from(10**6, failure, answering_server, s3_server)
        case.check_after(open_store(store.url))  # which retries


def test_a_disk_that_is_full_half_way(tmp_path: Path):
    case = Disturbed(tmp_path)
    for size_bytes in (0, 100, 10_000, 30_000, 60_000, 90_000):
        store = open_store(tmp_path / str(size_bytes))
        with disk_of(size_bytes):
            assert case.exit_code(store) == 2
        case.check_after(store)
