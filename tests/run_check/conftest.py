"""What a check looks at: a store in a folder or on an S3 server, and sets in it."""

from tests.data_prep.conftest import (
    answering_server,
    bucket,
    load,
    no_aws,
    run_prepare,
    s3,
    s3_client,
    s3_server,
    store,
)

__all__ = ["answering_server", "bucket", "load", "no_aws", "run_prepare", "s3", "s3_client", "s3_server", "store"]
