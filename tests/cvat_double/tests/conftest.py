"""The double itself, and a bucket behind it."""

from tests.cvat_double.fixtures import cvat, cvat_bucket
from tests.object_store.conftest import bucket, no_aws, s3, s3_client, s3_server

__all__ = ["bucket", "cvat", "cvat_bucket", "no_aws", "s3", "s3_client", "s3_server"]
