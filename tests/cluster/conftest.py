"""A fresh installation for each file of tests, in a namespace that lets only restricted pods in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.sample.make import make_sample
from tests.cluster.cluster import Cluster, Installation, from_environment, own_namespace


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
    prefix = f"detr-{request.module.__name__.rpartition('.test_')[2].replace('_', '-')}"
    with own_namespace(cluster, prefix, tmp_path_factory.mktemp("values")) as installation:
        yield installation


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
