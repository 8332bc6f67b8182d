"""Turn the errors of an S3 server, obstore or boto3 into one sentence that says what to check.

obstore reports the status and the body of the response only in the text of its errors, so they are parsed from the
text. boto3 reports them as fields. After that, both are handled in the same way.
"""

import re
from dataclasses import dataclass
from typing import Protocol

import botocore.exceptions
import botocore.parsers
from obstore.exceptions import AlreadyExistsError, PreconditionError

from object_store.errors import (
    AccessDenied,
    AlreadyExists,
    ClockSkew,
    NoCredentials,
    NoSuchBucket,
    NoSuchKey,
    ObjectChanged,
    StoreError,
    StoreUnavailable,
    WrongCredentials,
    WrongRegion,
)

_PASSING_STATUS = {408, 425, 429}
_NOT_SUPPORTED = {501, 505}  # the only server errors that are permanent
_PASSING_CODES = {"RequestTimeout", "SlowDown", "Throttling", "ServiceUnavailable", "InternalError", "OperationAborted"}
# The server received other bytes than were signed here.
_SPOILT_CODES = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"}
_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_TOKEN_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
_CLOCK_CODES = {"RequestTimeTooSkewed", "RequestExpired"}
_REGION_CODES = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_BUCKET_CODES = {"NoSuchBucket", "InvalidBucketName"}

_CREDENTIAL_ERRORS = (
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.InvalidConfigError,
    botocore.exceptions.ConfigParseError,
    botocore.exceptions.SSOError,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.MetadataRetrievalError,
)

_CONNECTION_ERRORS = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
)


class S3Place(Protocol):
    """The properties of a connection that error messages use."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    @property
    def endpoint(self) -> str:
        """The URL of the server."""

    @property
    def region(self) -> str:
        """The region that requests are signed for."""

    def region_of_bucket(self) -> str | None:
        """The region that the server states for the bucket. None: it states none."""


@dataclass(frozen=True, slots=True)
class S3Answer:
    """The response to a failed request: HTTP status (0: no response), S3's code and message."""

    status: int
    code: str = ""
    message: str = ""
    region: str | None = None


def answer_in(text: str) -> S3Answer:
    """Parse status, code and message from the text of an obstore error."""

    def find(pattern: str) -> str:
        match = re.search(pattern, text, re.DOTALL)
        return match[1].strip() if match else ""

    if "redirect without LOCATION" in text:
        return S3Answer(301, "PermanentRedirect")
    status = int(find(r"status code: (\d{3})") or 0)
    # The response to a bulk delete has status 200 and lists each failure.
    code = find(r"<Code>([^<]*)</Code>") or find(r"\(code: (\w+)\)")
    message = find(r"<Message>([^<]*)</Message>")
    return S3Answer(status, code, message, find(r"<Region>([^<]*)</Region>") or None)


def explain_obstore(error: Exception, url: str, place: S3Place) -> StoreError:
    """Return the `StoreError` for an obstore exception."""
    text = str(error)
    answer = answer_in(text)
    if isinstance(error, AlreadyExistsError) and answer.code != "ConditionalRequestConflict":
        return AlreadyExists(f"{url} exists")
    if isinstance(error, PreconditionError):
        return ObjectChanged(f"{url} was replaced while it was read: start again")
    if answer.status or answer.code:
        return explain_answer(answer, url, place)
    if untrusted := re.search(r"InvalidCertificate\(\s*(\w+)", text):
        return _untrusted(url, place, untrusted[1])
    short = text.partition("\n")[0]
    if "HTTP error" in short or "HttpError" in text:
        # The lines after the first hold the chain of causes. The innermost cause is the useful one.
        causes = re.findall(r'"((?:tcp|dns|tls|operation|invalid peer|connection)[^"]*)"', text)
        cause = causes[-1] if causes else short.rpartition(" - ")[2]
        return unreachable(url, place, cause)
    return StoreError(f"{url}: {short}")


def explain_boto(error: Exception, url: str, place: S3Place) -> StoreError:
    """Return the `StoreError` for a boto3 exception."""
    if isinstance(error, botocore.exceptions.ClientError):
        fields = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = fields.get("Code", "")
        region = fields.get("Region")
        return explain_answer(
            S3Answer(status, code, fields.get("Message", ""), str(region) if region else None), url, place
        )
    if isinstance(error, _CREDENTIAL_ERRORS):
        return no_credentials(error, url)
    if isinstance(error, botocore.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _untrusted(url, place, str(error).rpartition(": ")[2])
    if isinstance(error, botocore.parsers.ResponseParserError):
        return cut_short(url, place)
    if isinstance(error, _CONNECTION_ERRORS):
        return unreachable(url, place, str(error))
    return StoreError(f"{url}: {error}")


def explain_credentials(error: Exception, url: str) -> StoreError:
    """Return the error for credentials that could not be renewed. Only network faults are temporary."""
    if isinstance(error, _CONNECTION_ERRORS):
        return StoreUnavailable(f"{url}: the credentials could not be renewed ({error}): check the network")
    return no_credentials(error, url)


def explain_answer(answer: S3Answer, url: str, place: S3Place) -> StoreError:  # noqa: PLR0911 a table of answers
    """Return the `StoreError` for the error response of an S3 server."""
    code = answer.code
    if code in _CLOCK_CODES:
        return ClockSkew(
            f"{url}: {place.endpoint} says that this machine's clock is wrong ({code}): "
            "set the clock (timedatectl, chrony) and try again"
        )
    if code in _KEY_CODES:
        wrong = "access key" if code == "InvalidAccessKeyId" else "secret access key"
        return WrongCredentials(
            f"{url}: {place.endpoint} refuses the {wrong} ({code}): check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and that they belong to this endpoint"
        )
    if code in _TOKEN_CODES:
        return WrongCredentials(
            f"{url}: {place.endpoint} refuses the session token ({code}): renew the credentials, "
            "or unset AWS_SESSION_TOKEN if the keys are permanent ones"
        )
    if code in _REGION_CODES or answer.status == 301:
        return _wrong_region(answer.region or place.region_of_bucket(), url, place)
    if code in _BUCKET_CODES:
        return NoSuchBucket(
            f"{url}: there is no bucket {place.bucket!r} at {place.endpoint} ({code}): "
            "check its name and AWS_ENDPOINT_URL"
        )
    if code == "PreconditionFailed" or answer.status == 412:
        return ObjectChanged(f"{url} was replaced while it was read: start again")
    if answer.status == 404 or code == "NoSuchKey":
        return NoSuchKey(f"{url} does not exist: check the spelling and the bucket")
    if code in _SPOILT_CODES:
        return StoreUnavailable(
            f"{url}: {place.endpoint} received different bytes than were sent ({code}): check proxies between here "
            "and the store"
        )
    overloaded = answer.status >= 500 and answer.status not in _NOT_SUPPORTED
    if code in _PASSING_CODES or overloaded or answer.status in _PASSING_STATUS:
        return StoreUnavailable(
            f"{url}: {place.endpoint} answers {answer.status} {code} after all retries: "
            "the store is overloaded or being repaired; try again later"
        )
    if code == "ConditionalRequestConflict":
        return StoreUnavailable(f"{url} is being written by another process: try again")
    if answer.status in {401, 403} or code == "AccessDenied":
        return AccessDenied(
            f"{url}: access denied by {place.endpoint} ({code or answer.status}): check that the credentials "
            f"may list, read and write bucket {place.bucket!r} at this prefix; without the right to list, "
            "a missing object looks the same"
        )
    said = f": {answer.message}" if answer.message else ""
    return StoreError(f"{url}: {place.endpoint} answers {answer.status} {code}{said}")


def unreachable(url: str, place: S3Place, cause: str) -> StoreUnavailable:
    """Return the error for a server that did not respond."""
    return StoreUnavailable(
        f"{url}: no answer from {place.endpoint} ({cause}): check AWS_ENDPOINT_URL, the network, "
        "the proxy settings and that the server runs"
    )


def cut_short(url: str, place: S3Place) -> StoreUnavailable:
    """Return the error for a response without a field that S3 always sends."""
    return unreachable(url, place, "the answer is truncated, or not from S3")


def no_credentials(error: Exception | None, url: str) -> StoreError:
    """Return the error for credentials that were not found, or could not be fetched or renewed."""
    cause = f" ({error})" if error else ""
    return NoCredentials(
        f"{url}: no credentials{cause}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
        "or give the pod a service account with a role"
    )


def _untrusted(url: str, place: S3Place, reason: str) -> StoreError:
    return StoreError(
        f"{url}: the certificate of {place.endpoint} is not trusted ({reason}): set AWS_CA_BUNDLE to a file "
        "with the certificates of the authority that signed it"
    )


def _wrong_region(actual: str | None, url: str, place: S3Place) -> WrongRegion:
    advice = f"set AWS_REGION={actual}" if actual else "set AWS_REGION to the region of the bucket"
    where = f"is in region {actual}" if actual else "is in another region"
    return WrongRegion(
        f"{url}: bucket {place.bucket!r} {where}, but requests go to {place.endpoint} "
        f"in region {place.region}: {advice}"
    )
