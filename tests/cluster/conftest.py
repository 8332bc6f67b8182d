"""A fresh installation for each file of tests, in a namespace that lets only restricted pods in."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.sample import make_sample
from tests.cluster.cluster import SECRET, Cluster, Installation, Places, from_environment, sample_values


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = from_environment()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small exports."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample(folder, images=30)
    return folder


@pytest.fixture(scope="module")
def bare(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A namespace, a bucket and a secret, with nothing installed."""
    name = f"detr-{request.module.__name__.rpartition('.test_')[2].replace('_', '-')}-{uuid.uuid4().hex[:6]}"
    places = Places.of(cluster)
    installation = Installation(
        cluster, places, name, name, sample_values(cluster, places, name), _files=tmp_path_factory.mktemp("values")
    )
    cluster.s3.create_bucket(Bucket=name)
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        keys = [f"--from-literal=access-key-id={cluster.access_key}"]
        keys.append(f"--from-literal=secret-access-key={cluster.secret_key}")
        installation.kubectl("create", "secret", "generic", SECRET, *keys)
        yield installation
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        _empty(cluster, name)


@pytest.fixture(scope="module")
def sample_exports(bare: Installation, sample: Path) -> Installation:
    """Sample exports in the store."""
    for path in sample.glob("*.zip"):
        bare.upload(f"uploads/{path.name}", path.read_bytes())
    return bare


@pytest.fixture(scope="module")
def installation(sample_exports: Installation) -> Installation:
    """The chart, installed, beside sample exports in the store."""
    sample_exports.install()
    return sample_exports


def _empty(cluster: Cluster, bucket: str) -> None:
    """Delete a bucket with what lies in it."""
    s3 = cluster.s3
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])
    s3.delete_bucket(Bucket=bucket)
