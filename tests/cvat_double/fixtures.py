"""Fixtures: import them into a folder's conftest.py. `cvat_bucket` needs those of tests/object_store/conftest.py."""

from collections.abc import Iterator

import pytest

from tests.cvat_double.server import CvatDouble, running
from tests.cvat_double.world import CloudStorage


@pytest.fixture
def cvat() -> Iterator[CvatDouble]:
    """A CVAT of one's own, empty but for its users."""
    with running() as double:
        yield double


@pytest.fixture
def cvat_bucket(cvat: CvatDouble, bucket: str, s3_server: str) -> CloudStorage:
    """The test's bucket, registered with CVAT as a cloud storage of the service account."""
    return cvat.add_cloud_storage(bucket, endpoint=s3_server, access_key="tester", secret_key="secret")
