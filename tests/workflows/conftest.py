"""The S3 server of object_store's tests, for runs that lie in a bucket."""

from tests.object_store.conftest import bucket, no_aws, s3, s3_client, s3_server

__all__ = ["bucket", "no_aws", "s3", "s3_client", "s3_server"]
