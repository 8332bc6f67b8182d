"""Prepared sets to read, made as a user makes them."""

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
