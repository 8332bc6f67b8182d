"""The connection to one bucket: boto3 finds endpoint, region and credentials, and obstore transfers the bytes.

boto3 interprets all `AWS_*` variables and `~/.aws`, so this program can use every bucket that `aws s3 ls` can. boto3
also lists, because one key with two slashes in a row makes a whole listing of obstore fail. boto3 also uploads large
files, because it can retry each part separately. obstore transfers everything else, because boto3 is limited by the
Python interpreter with many small objects. The retries of both are off: `S3Connection.request` retries.
"""

import functools
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.credentials
import botocore.exceptions
import botocore.loaders
import botocore.parsers
import botocore.session
import obstore.exceptions
from botocore.config import Config
from obstore.store import S3Store as ObstoreS3

from object_store.errors import NoCredentials, PassingError, StoreError
from object_store.retry import retried
from object_store.s3_errors import cut_short, explain_boto, explain_credentials, explain_obstore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef
    from obstore.store import ClientConfig, S3Credential

T = TypeVar("T")

# botocore renews credentials with less than 10 minutes left, and fails if it cannot. obstore asks again when less than
# 5 minutes are left of what we state here. So the credentials in use are valid for at least 6 minutes.
CREDENTIALS_TTL = timedelta(minutes=9)

CONNECT_TIMEOUT = timedelta(seconds=10)
# A download that receives no byte for this time is cancelled and retried.
STALLED_AFTER = timedelta(seconds=60)
# One part of an upload (16 MiB, 4 in parallel) must finish in this time: about 0.1 MiB/s in total.
UPLOAD_REQUEST_TIMEOUT = timedelta(minutes=10)

_AWS_HOST = re.compile(r"s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True)
class S3Address:
    """The address of requests for a bucket. In virtual-host style, `endpoint` contains the bucket's name."""

    endpoint: str
    virtual_host: bool


def address_of(endpoint_url: str, bucket: str) -> S3Address:
    """Use virtual-host style for AWS itself and path style for every other server.

    A bucket with a dot in its name does not match AWS's certificate, so it uses path style too.
    """
    parts = urlsplit(endpoint_url)
    if parts.hostname and _AWS_HOST.fullmatch(parts.hostname) and "." not in bucket:
        return S3Address(f"{parts.scheme}://{bucket}.{parts.netloc}", virtual_host=True)
    return S3Address(endpoint_url.rstrip("/"), virtual_host=False)


class S3Connection:
    """The connection to one bucket. It connects at the first use, and is shared by a store and its children."""

    def __init__(self, bucket: str, *, retry_for_s: float) -> None:
        self.bucket = bucket
        # An ETag of 32 hex digits is the content's MD5 unless the bucket encrypts with a managed key.
        self.etag_is_md5 = True
        self._retry_for_s = retry_for_s
        self._lock = threading.Lock()
        self._clients: _Clients | None = None
        self._credentials_error: Exception | None = None

    @property
    def client(self) -> "S3Client":
        """boto3's client, for listing, uploads in parts and questions about the bucket."""
        return self._connect().client

    @property
    def reader(self) -> ObstoreS3:
        """obstore's client for downloads, which may take any time as long as bytes arrive."""
        return self._connect().reader

    @property
    def writer(self) -> ObstoreS3:
        """obstore's client for everything else."""
        return self._connect().writer

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return self.client.meta.endpoint_url

    @property
    def region(self) -> str:
        """The region that requests are signed for."""
        return self.client.meta.region_name

    def region_of_bucket(self) -> str | None:
        """Ask the server for the region of the bucket. None: the server does not state it."""
        try:
            headers = self.client.head_bucket(Bucket=self.bucket)["ResponseMetadata"]["HTTPHeaders"]
        except botocore.exceptions.ClientError as error:
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        except (botocore.exceptions.BotoCoreError, botocore.parsers.ResponseParserError):
            return None  # the region only improves the message of an error that is already being reported
        return headers.get("x-amz-bucket-region")

    def request(self, url: str, ask: Callable[[], T], kind: type[PassingError] = PassingError) -> T:
        """Run one request with retries.

        `ask` must be idempotent. `kind`: see `retried`.

        Raises StoreError: naming `url`, when the request fails.
        """

        def attempt() -> T:
            with self.errors(url):
                return ask()

        return retried(attempt, self._retry_for_s, kind)

    @contextmanager
    def errors(self, url: str) -> Iterator[None]:
        """Raise a `StoreError` that names `url` for all errors of obstore and boto3."""
        try:
            yield
        except _BadSetting as error:
            raise StoreError(f"{url}: {error}") from error
        except FileNotFoundError as error:
            if error.errno is not None:
                raise  # an error of a local file; obstore's own has no number
            raise explain_obstore(error, url, self) from error
        except (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            botocore.parsers.ResponseParserError,
        ) as error:
            raise explain_boto(error, url, self) from error
        except obstore.exceptions.BaseError as error:
            if self._credentials_error is not None:
                raise explain_credentials(self._credentials_error, url) from error
            raise explain_obstore(error, url, self) from error

    def encrypts(self, full_key: str, url: str) -> bool:
        """Whether an object is encrypted so that its ETag is not an MD5."""

        def ask() -> "HeadObjectOutputTypeDef":
            found = self.client.head_object(Bucket=self.bucket, Key=full_key)
            if "ETag" not in found:
                raise cut_short(url, self)
            return found

        found = self.request(url, ask)
        managed = str(found.get("ServerSideEncryption", "")).startswith("aws:kms")
        return managed or "SSECustomerAlgorithm" in found

    def _connect(self) -> "_Clients":
        """Find endpoint, region and credentials at the first use. Only one thread does so."""
        with self._lock:
            if self._clients is None:
                self._check_settings()
                # botocore reads AWS_DEFAULT_REGION; every other SDK reads AWS_REGION first.
                region = os.environ.get("AWS_REGION") or None
                session = boto3.Session(botocore_session=_botocore_session(), region_name=region)
                try:
                    client = self._make_client(session)
                except ValueError as error:
                    raise _BadSetting(f"{error}: check AWS_ENDPOINT_URL, http://host:port") from error
                credentials = session.get_credentials()
                if credentials is None:
                    raise botocore.exceptions.NoCredentialsError
                make = functools.partial(self._make_obstore, client, credentials)
                # A total is set because obstore's default of 30 s would cancel long downloads.
                reader = make({"timeout": "24h", "read_timeout": STALLED_AFTER})
                self._clients = _Clients(client, reader, make({"timeout": UPLOAD_REQUEST_TIMEOUT}))
            return self._clients

    def _check_settings(self) -> None:
        """Check the files that environment variables name: both libraries report a missing file unclearly."""
        bundle = os.environ.get("AWS_CA_BUNDLE")
        if bundle and not Path(bundle).is_file():
            raise _BadSetting(f"there is no file {bundle}: check AWS_CA_BUNDLE")

    def _make_client(self, session: boto3.Session) -> "S3Client":
        return session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            config=Config(
                connect_timeout=CONNECT_TIMEOUT.total_seconds(),
                read_timeout=STALLED_AFTER.total_seconds(),
                # No retries here, as with obstore: `request` retries both in the same way.
                retries={"mode": "standard", "total_max_attempts": 1},
                # "auto" means path style whenever an endpoint is set, as in `address_of`.
                s3={"addressing_style": "auto", "payload_signing_enabled": True},
                # Many private stores do not know checksums newer than MD5.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _make_obstore(
        self,
        client: "S3Client",
        credentials: botocore.credentials.Credentials,
        options: "ClientConfig",
    ) -> ObstoreS3:
        address = address_of(client.meta.endpoint_url, self.bucket)
        options["connect_timeout"] = CONNECT_TIMEOUT
        if address.endpoint.startswith("http://"):
            options["allow_http"] = True
        elif bundle := os.environ.get("AWS_CA_BUNDLE"):
            options["root_certificate"] = Path(bundle).read_bytes()
        return ObstoreS3(
            self.bucket,
            # Both names are set, because obstore prefers the variable AWS_ENDPOINT_URL_S3 to `endpoint`.
            endpoint=address.endpoint,
            aws_endpoint_url_s3=address.endpoint,
            region=client.meta.region_name,
            virtual_hosted_style_request=address.virtual_host,
            client_options=options,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
            credential_provider=functools.partial(self._current_credentials, credentials),
        )

    def _current_credentials(self, credentials: botocore.credentials.Credentials) -> "S3Credential":
        """Give obstore the current credentials of boto3, which renews them before they expire."""
        try:
            frozen = credentials.get_frozen_credentials()
        except Exception as error:
            self._credentials_error = error
            raise
        self._credentials_error = None
        if frozen.access_key is None or frozen.secret_key is None:
            raise NoCredentials("the source of credentials gave an empty key")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_TTL,
        }


def _botocore_session() -> botocore.session.Session:
    """A new session that shares the cached files that describe S3: reading them takes botocore a tenth of a second."""
    session = botocore.session.Session()
    session.register_component("data_loader", _service_files(session.get_config_variable("data_path")))
    return session


@functools.cache
def _service_files(folders: str | None) -> botocore.loaders.Loader:
    return botocore.loaders.create_loader(folders)


class _BadSetting(Exception):
    """An environment variable has an invalid value. `errors` adds the URL."""


@dataclass(frozen=True, slots=True)
class _Clients:
    client: "S3Client"
    reader: ObstoreS3
    writer: ObstoreS3
